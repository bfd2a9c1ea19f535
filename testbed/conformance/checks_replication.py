"""Statements about broadcast and multicast."""

from __future__ import annotations

from testbed.conformance import cast, frames, oracle, probes
from testbed.conformance.observe import Capture, Place
from testbed.conformance.outcome import NotShown, expect
from testbed.conformance.scene import Guest, Scene


def _broadcast(one: Guest, mark: bytes) -> bytes:
    inner = frames.udp(one.address(), "255.255.255.255", mark)
    return frames.ethernet(frames.BROADCAST, one.mac, frames.TYPE_IPV4, inner)


def _spread(scene: Scene, one: Guest, others: list[Guest]) -> tuple[Capture, bytes]:
    """A capture of one broadcast of ``one`` at all cables and at ``others``, all of it in."""
    mark = probes.token()
    with Capture(*scene.cables(), *(other.place for other in others)) as capture:
        far = [other for other in others if other.host != one.host]
        for other in far:  # PA neighbors are known from here on
            probes.fence(capture, one, other)
        probes.send(one.place, _broadcast(one, mark))
        for other in far:
            probes.fence(capture, one, other)
        for place in (*scene.cables(), *(other.place for other in others)):
            capture.frames(place)
    return capture, mark


def copies(scene: Scene) -> str:
    """32: a broadcast, counted on every cable and at every VM."""
    one, _ = cast.remote(scene)
    if scene.subnet(one.vsid).multicast:
        raise NotShown(f"{one.network} has a PA group")
    others = [each for each in scene.guests if each.vsid == one.vsid and each is not one and 4 in each.ca]
    hosts = {each.host for each in others} - {one.host}
    capture, mark = _spread(scene, one, others)
    _each_once(capture, mark, others)
    for host in scene.plan.hosts:
        place = scene.cable(host.name)
        count = _count(capture, place, mark)
        wanted = len(hosts) if host.name == one.host else int(host.name in hosts)
        expect(count == wanted, f"{count} copies on the {place.label}, not {wanted}")
    file = capture.save(scene.cable(one.host), scene.folder, mark)
    field = "ipv6.dst" if ":" in scene.pa(one.host, one.vsid) else "ip.dst"
    found = {row[field][0] for row in oracle.decode(file, field)}
    pas = {scene.pa(host, one.vsid) for host in hosts}
    expect(found == pas, f"copies went to {sorted(found)}, not to {sorted(pas)}")
    without = [host.name for host in scene.plan.hosts if host.name not in hosts and host.name != one.host]
    return (
        f"{scene.name}: a broadcast of {one.name}: {len(hosts)} on the {scene.cable(one.host).label}, one on "
        f"each cable of {', '.join(sorted(hosts))}, none on those of {', '.join(without) or 'nobody'}"
    )


def group(scene: Scene) -> str:
    """31: a broadcast in a subnet with a PA group."""
    pair = next(
        (
            (one, other)
            for one in scene.guests
            for other in scene.guests
            if one.vsid
            and scene.subnet(one.vsid).multicast
            and one.vsid == other.vsid
            and one.host != other.host
        ),
        None,
    )
    if pair is None:
        raise NotShown(f"{scene.name} has no subnet with a PA group")
    one = pair[0]
    address = scene.subnet(one.vsid).multicast
    others = [each for each in scene.guests if each.vsid == one.vsid and each is not one and 4 in each.ca]
    hosts = {each.host for each in others} - {one.host}
    capture, mark = _spread(scene, one, others)
    _each_once(capture, mark, others)
    for host in scene.plan.hosts:
        place = scene.cable(host.name)
        count = _count(capture, place, mark)
        wanted = int(host.name == one.host or host.name in hosts)
        expect(count == wanted, f"{count} packets on the {place.label}, not {wanted}")
    row = oracle.decode(
        capture.save(scene.cable(one.host), scene.folder, mark), "ip.dst", "eth.dst", "gre.key"
    )[0]
    expect(row["ip.dst"][0] == address, f"to PA {row['ip.dst'][0]}, not to the group {address}")
    wanted_mac = frames.mac_text(
        b"\x01\0\x5e" + bytes([frames.packed(address)[1] & 0x7F]) + frames.packed(address)[2:]
    )
    expect(row["eth.dst"][0] == wanted_mac, f"to MAC {row['eth.dst'][0]}, not {wanted_mac}")
    without = [host.name for host in scene.plan.hosts if host.name not in hosts and host.name != one.host]
    return (
        f"{scene.name}: a broadcast of {one.name}: one packet to {address} ({wanted_mac}) on the "
        f"{scene.cable(one.host).label} (tshark), one on those of {', '.join(sorted(hosts))}, none on those "
        f"of {', '.join(without) or 'nobody'}, which have not joined"
    )


def _each_once(capture: Capture, mark: bytes, others: list[Guest]) -> None:
    for other in others:
        count = _count(capture, other.place, mark)
        expect(count == 1, f"{other.name} got the broadcast {count} times")


def _count(capture: Capture, place: Place, mark: bytes) -> int:
    return len(capture.holding(place, mark))
