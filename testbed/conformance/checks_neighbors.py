"""Statements about ARP and Neighbor Discovery of the VMs."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import partial

from testbed.conformance import cast, frames, oracle, probes
from testbed.conformance.observe import Capture, Place, Seen
from testbed.conformance.outcome import Failed, NotShown, expect
from testbed.conformance.scene import Guest, Scene, poll
from testbed.wiring import guest as guests
from testbed.wiring import neighbors

DAD_SECONDS = 5.0


def _is_arp_reply(seen: Seen) -> bool:
    return seen.data[12:14] == b"\x08\x06" and seen.data[20:22] == b"\0\2"


def _is_advertisement(seen: Seen) -> bool:
    return seen.data[12:14] == b"\x86\xdd" and seen.data[20] == frames.ICMPV6 and seen.data[54] == 136


def _asks(target: str) -> Callable[[bytes], bool]:
    """Whether a frame, or what it carries, is a request for ``target``."""
    address = frames.packed(target)
    head = b"\x08\x06\0\1\x08\0\6\4\0\1" if len(address) == 4 else b"\x87\0"

    def fits(data: bytes) -> bool:
        return head in data and address in data

    return fits


def _question(one: Guest, target: str) -> bytes:
    if ":" in target:
        return frames.solicitation((one.mac, one.address(6)), target)
    return frames.arp((one.mac, one.address()), target)


def _answer(scene: Scene, one: Guest, target: str) -> tuple[str, str]:
    """(MAC in the answer, its Ethernet source) to a broadcast or multicast request, by tshark."""
    version = ipaddress.ip_address(target).version
    wanted = _is_arp_reply if version == 4 else _is_advertisement
    with Capture(one.place) as capture:
        data = capture.wait(
            one.place,
            lambda seen: wanted(seen) and frames.packed(target) in seen.data,
            lambda: probes.send(one.place, _question(one, target)),
            what=f"an answer for {target}",
        )
        file = capture.save(one.place, scene.folder, lambda seen: seen.data is data)
    row = oracle.decode(
        file, "arp.src.hw_mac", "icmpv6.opt.linkaddr", "eth.src", "arp.opcode", "icmpv6.type"
    )[0]
    addresses = row["arp.src.hw_mac"] or row["icmpv6.opt.linkaddr"]
    expect(addresses, f"the answer for {target} names no MAC: {row}")
    return addresses[0], row["eth.src"][0]


def gateway(scene: Scene) -> str:
    """25: ARP for, and an echo request to, the gateway of a VM's subnet."""
    one, other = cast.remote(scene)
    address = one.gateway.get(4)
    if address is None:
        raise NotShown(f"{one.name} has no default gateway")
    wanted = scene.subnet(one.vsid).gateway_mac
    found, _ = _answer(scene, one, address)
    expect(found == wanted, f"{address} is at {found}, not at its record's {wanted}")
    neighbors.forget_neighbor(one.netns, one.interface, address)
    mark = probes.token()
    echo = frames.ip(one.address(), address, frames.ICMP, _echo(mark))
    with Capture(*scene.cables(), one.place, other.place) as capture:
        probes.send(one.place, frames.ethernet(scene.gateway_mac(one), one.mac, frames.TYPE_IPV4, echo))
        probes.fence(capture, one, other)
        answered = capture.holding(one.place, mark, outgoing=False)
        places = [place.label for place in scene.cables() if capture.holding(place, mark)]
    expect(not answered, f"{one.name} got an answer to its ping of the gateway {address}")
    expect(not places, f"the ping of {address} was seen at {', '.join(places)}")
    return f"{scene.name}: {one.name}: ARP {address} is at {found}, its record's MAC; a ping of it unanswered"


def _echo(mark: bytes) -> bytes:
    body = b"\x08\0\0\0\x7e\x57\0\1" + mark
    return body[:2] + frames.checksum(body).to_bytes(2, "big") + body[4:]


def answered(scene: Scene) -> str:
    """26: requests by hand and by the guest's kernel; its DAD decides about duplicates."""
    one, other = cast.remote(scene, 4, 6)
    wanted = frames.mac_text(other.mac)
    with Capture(*scene.cables(), other.place) as capture:
        for version in (4, 6):
            found, _ = _answer(scene, one, other.address(version))
            expect(found == wanted, f"{other.address(version)} is at {found}, not at its record's {wanted}")
        _by_kernel(one, other)
        _duplicates(one, other)
        probes.fence(capture, one, other)
        for version in (4, 6):
            asks = _asks(other.address(version))
            places = [
                place.label
                for place in (*scene.cables(), other.place)
                if any(asks(seen.data) and one.mac in seen.data for seen in capture.frames(place))
            ]
            expect(not places, f"the request for {other.address(version)} was seen at {', '.join(places)}")
    return (
        f"{scene.name}: {one.name} asks for {other.address()} and {other.address(6)}: answer {wanted} "
        f"(tshark), in the guest's neighbor table too, on no cable; its DAD finds {other.address(6)} "
        "duplicate, a free address not"
    )


def _by_kernel(one: Guest, other: Guest) -> None:
    wanted = frames.mac_text(other.mac)
    for version in (4, 6):
        address = other.address(version)
        neighbors.forget_neighbor(one.netns, one.interface, address)
        expect(probes.ping(one, address), f"no answer to {one.name}'s ping of {address}")
        found = neighbors.neighbor(one.netns, one.interface, address)
        expect(found and found[0] == wanted, f"the kernel of {one.name} has {address} at {found}")


def _duplicates(one: Guest, other: Guest) -> None:
    """The guest's kernel tries another VM's address, then a free one."""
    taken, free = other.address(6), free_address(one, other)
    for address, duplicate in ((taken, True), (free, False)):
        with_length = f"{address}/64"
        neighbors.add_address(one.netns, one.interface, with_length)
        try:
            entry = poll(partial(_settled, one, with_length), DAD_SECONDS)
            expect(entry, f"{one.name}: {address} is still tentative after {DAD_SECONDS:g} s")
            verdict = "a duplicate" if entry["duplicate"] else "no duplicate"
            expect(entry["duplicate"] is duplicate, f"the kernel of {one.name} finds {address} {verdict}")
        finally:
            neighbors.remove_address(one.netns, one.interface, with_length)


def _settled(one: Guest, with_length: str) -> dict[str, object] | None:
    for entry in guests.addresses(one.netns)[one.interface]:
        if entry["address"] == with_length and (entry["duplicate"] or not entry["tentative"]):
            return entry
    return None


def free_address(one: Guest, other: Guest, version: int = 6, number: int = 0) -> str:
    """An address of the guest's prefix that nobody has, far from those that are used; ``number``: which."""
    address = ipaddress.ip_address(one.address(version))
    step = 0xBEEF if version == 6 else 100
    return str(address + step + number)


def unknown(scene: Scene) -> str:
    """27: an address that nobody has, in a network without L2Only records."""
    one, other = cast.remote(scene, 4, 6)
    records = scene.host(one.host).policy.lookup_records
    network = {each.vsid for each in scene.guests if each.network == one.network}
    if any(record.type == "L2Only" and record.virtual_subnet_id in network for record in records):
        raise NotShown(f"{one.network} has L2Only records")
    # others than a guest had for a while: hosts may have learned those
    targets = [free_address(one, other, version, 1) for version in (4, 6)]
    places = [*scene.cables(), *(each.place for each in scene.guests if each is not one)]
    with Capture(*places) as capture:
        before = scene.dropped(one.host, "no-lookup-record")
        probes.send(one.place, *(_question(one, target) for target in targets))
        probes.fence(capture, one, other)
        reached = _reached(capture, places, targets, one)
    expect(not reached, f"the request for an unknown address was seen at {', '.join(reached)}")
    counted = scene.dropped(one.host, "no-lookup-record") - before
    expect(counted >= 2, f"{one.host} counted {counted} of 2 requests as no-lookup-record")
    return f"{scene.name}: {one.name} asks for {' and '.join(targets)}: at no cable and no VM, counted"


def _reached(capture: Capture, places: list[Place], targets: list[str], one: Guest) -> list[str]:
    asks = [_asks(target) for target in targets]
    return [
        place.label
        for place in places
        if any(ask(seen.data) and one.mac in seen.data for seen in capture.frames(place) for ask in asks)
    ]


def flooded(scene: Scene) -> str:
    """28: an address that nobody has, in a network with L2Only records."""
    learner = next((each for each in scene.guests if each.vsid and not each.ca), None)
    if learner is None:
        raise NotShown(f"{scene.name} has no VM without addresses")
    mates = [each for each in scene.guests if each.vsid == learner.vsid and each.ca]
    one = mates[0]
    others = [each for each in scene.guests if each.vsid == learner.vsid and each is not one]
    outside = [each for each in scene.guests if each.vsid != learner.vsid]
    target = str(ipaddress.ip_address(one.address()) + 100)
    asks = _asks(target)
    with Capture(*(each.place for each in (*others, *outside)), scene.cable(one.host)) as capture:
        for other in others:
            capture.wait(
                other.place,
                lambda seen: asks(seen.data),
                lambda: probes.send(one.place, _question(one, target)),
                what=f"the request for {target}",
            )
        probes.fence(capture, one, next(each for each in mates if each.host != one.host))
        leaked = _reached(capture, [each.place for each in outside], [target], one)
        file = capture.save(scene.cable(one.host), scene.folder, lambda seen: asks(seen.data))
    expect(not leaked, f"the request was seen at {', '.join(leaked)} of another subnet")
    rows = oracle.decode(file, "gre.key", "arp.dst.proto_ipv4")
    vsids = {int(row["gre.key"][0], 0) >> 8 for row in rows}
    expect(vsids == {one.vsid}, f"on the wire with VSID {vsids}, not {one.vsid}")
    names = ", ".join(each.name for each in others)
    return (
        f"{scene.name}: {one.name} asks for {target}: at {names}, on the wire with VSID {one.vsid} (tshark)"
    )


def unicast(scene: Scene) -> str:
    """29: the guest's kernel probes a neighbor by unicast and hears from the neighbor itself."""
    one, other = cast.remote(scene, 4, 6)
    told, wanted = [], frames.mac_text(other.mac)
    for version in (4, 6):
        address = other.address(version)
        asks = _asks(address)
        with Capture(other.place) as capture:
            capture.wait(
                other.place,
                partial(_asked_directly, asks, other.mac),
                partial(neighbors.probe_neighbor, one.netns, one.interface, address, wanted),
                what=f"a unicast request for {address}",
            )
        state = poll(partial(_is_reachable, one, address), 3.0)
        expect(state, f"the kernel of {one.name} does not find {address} reachable")
        told.append("ARP" if version == 4 else "Neighbor Solicitation")
    return (
        f"{scene.name}: unicast {' and '.join(told)} of the kernel of {one.name} seen at {other.name}; "
        "its neighbor entries became REACHABLE by the answers"
    )


def _asked_directly(asks: Callable[[bytes], bool], mac: bytes, seen: Seen) -> bool:
    return asks(seen.data) and seen.data[:6] == mac


def _is_reachable(one: Guest, address: str) -> bool:
    found = neighbors.neighbor(one.netns, one.interface, address)
    return found is not None and found[1] == "REACHABLE"


def below_switch(scene: Scene) -> str:
    """30: ARP for a VM elsewhere, an unknown address, a broadcast."""
    pair = next(
        (
            (one, other)
            for one in scene.guests
            for other in scene.guests
            if one.vsid == other.vsid and one.host != other.host and 4 in one.ca and 4 in other.ca
        ),
        None,
    )
    if pair is None or scene.host(pair[0].host).wnv != "below-switch":
        raise NotShown(f"{scene.name} has no two VMs on hosts of 2012")
    one, other = pair
    wanted = frames.mac_text(other.mac)
    mark = probes.token()
    broadcast = frames.ethernet(
        frames.BROADCAST, one.mac, frames.TYPE_IPV4, frames.udp(one.address(), "255.255.255.255", mark)
    )
    cables = scene.cables()
    with Capture(*cables, other.place) as capture:
        found, _ = _answer(scene, one, other.address())
        before = scene.dropped(one.host, "flooded")
        probes.send(one.place, broadcast)
        probes.fence(capture, one, other)
        asks = _asks(other.address())
        asked = [
            place.label
            for place in (*cables, other.place)
            if any(asks(seen.data) and one.mac in seen.data for seen in capture.frames(place))
        ]
        flooded_at = [place.label for place in (*cables, other.place) if capture.holding(place, mark)]
    if found != wanted:
        raise Failed(f"{other.address()} is at {found}, not at its record's {wanted}")
    expect(not asked, f"the ARP request was seen at {', '.join(asked)}")
    expect(not flooded_at, f"the broadcast was seen at {', '.join(flooded_at)}")
    counted = scene.dropped(one.host, "flooded") - before
    expect(counted >= 1, f"{one.host} did not count the broadcast as flooded")
    return (
        f"{scene.name}: ARP of {one.name} for {other.address()}: {wanted} (tshark), on no cable; a "
        f"broadcast on no cable, flooded +{counted} at {one.host}"
    )
