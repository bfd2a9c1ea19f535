"""Statements about the extensible switch: what extensions see and may do, and what a VSID belongs to."""

from __future__ import annotations

from typing import Any

from testbed.conformance import cast, forwarding, frames, oracle, probes
from testbed.conformance.checks_wire import sent
from testbed.conformance.observe import Capture
from testbed.conformance.outcome import NotShown, expect
from testbed.conformance.scene import Guest, Scene

CAPTURE, PROBE = "capture", "conformance-forwarding"
Sight = tuple[str, str, str, int]  # direction, space, port or NIC, VSID


def _extended(scene: Scene, name: str) -> cast.Pair:
    """A remote pair of which the first is on a host with this extension."""
    for one in scene.guests:
        extensions = [extension.name for extension in scene.host(one.host).extensions]
        for other in scene.guests:
            near = one.vsid == other.vsid and one.host != other.host
            if name in extensions and one.vsid and near and 4 in one.ca and 4 in other.ca:
                return one, other
    raise NotShown(f"{scene.name} has no host with the extension {name}")


def _seen(scene: Scene, host: str, mark: bytes) -> list[Sight]:
    """How the host's capture extension saw the packet with ``mark``, in order."""
    found: list[dict[str, Any]] = scene.lab.ask(host, "extension", name=CAPTURE)["result"]
    return [
        (
            each["direction"],
            each["space"],
            each["source"] if each["direction"] == "ingress" else each["destination"],
            each["vsid"],
        )
        for each in found
        if mark.hex() in each["data"]
    ]


def _pass(one: Guest, other: Guest) -> bytes:
    """The mark of a packet that has come from ``one`` to ``other``; sent once, on a way that is known."""
    mark = probes.token()
    with Capture(other.place) as capture:
        probes.fence(capture, one, other)
        probes.send(one.place, probes.packet(one, other, mark))
        probes.fence(capture, one, other)
        expect(capture.holding(other.place, mark), f"a packet of {one.name} did not come to {other.name}")
    return mark


def _told(sights: list[Sight]) -> str:
    return ", ".join(f"{direction} {space} at {place}" for direction, space, place, _ in sights)


def both_spaces(scene: Scene) -> str:
    """13: a packet to outside and one from outside."""
    one, other = _extended(scene, CAPTURE)
    nic = scene.host(one.host).team.primary
    out = _seen(scene, one.host, _pass(one, other))
    back = _seen(scene, one.host, _pass(other, one))
    wanted = [("ingress", "CA", one.port, one.vsid), ("egress", "PA", nic, one.vsid)]
    expect(out == wanted, f"{one.name} -> {other.name}: capture of {one.host} saw {out}, not {wanted}")
    wanted = [("ingress", "PA", nic, one.vsid), ("egress", "CA", one.port, one.vsid)]
    expect(back == wanted, f"{other.name} -> {one.name}: capture of {one.host} saw {back}, not {wanted}")
    return f"{scene.name}: capture of {one.host}: to outside {_told(out)}; from outside {_told(back)}"


def customer_space(scene: Scene) -> str:
    """14: the same two packets, of which the cable carries NVGRE."""
    one, other = _extended(scene, CAPTURE)
    if scene.host(one.host).wnv != "below-switch":
        raise NotShown(f"{one.host} is no host of 2012")
    sights = []
    for source, target in ((one, other), (other, one)):
        with Capture(scene.cable(one.host)) as capture:
            mark = _pass(source, target)
            file = capture.save(scene.cable(one.host), scene.folder, mark)
        expect(
            any(row["gre.key"] for row in oracle.decode(file, "gre.key")),
            f"no NVGRE on the {scene.cable(one.host).label}",
        )
        found = _seen(scene, one.host, mark)
        directions = [direction for direction, *_ in found]
        expect(directions == ["ingress", "egress"], f"capture of {one.host} saw {found}")
        sights += found
    everything = scene.lab.ask(one.host, "extension", name=CAPTURE)["result"]
    nvgre = [each for each in everything if each["space"] != "CA" or _is_gre(bytes.fromhex(each["data"]))]
    expect(not nvgre, f"capture of {one.host} saw {len(nvgre)} NVGRE packets")
    return (
        f"{scene.name}: capture of {one.host}: {_told(sights)}; none of its {len(everything)} frames is "
        f"NVGRE, the {scene.cable(one.host).label} carries it (tshark)"
    )


def _is_gre(data: bytes) -> bool:
    return data[12:14] == b"\x08\0" and data[23] == frames.GRE


def native_forwarding(scene: Scene) -> str:
    """15: an extension that drops or redirects as the payload says, on packets in and out."""
    one, other = _extended(scene, PROBE)
    aside = next(each for each in scene.guests if each.port == _redirect(scene, one.host))
    errors = len(scene.events(one.host, "extension-error"))
    before = scene.lab.ask(one.host, "extension", name=PROBE)["result"]
    for source, target in ((other, one), (one, other)):
        _redirected(source, target, aside)
        _dropped(scene, source, target, one.host)
    counts = scene.lab.ask(one.host, "extension", name=PROBE)["result"]
    expect(counts["PA"]["other"] == 0, f"{counts['PA']['other']} NVGRE packets without the mark")
    expect(counts["PA"]["native"] > before["PA"]["native"], "the extension saw no NVGRE packet")
    expect(
        counts["CA"]["native"] == 0, f"{counts['CA']['native']} CA packets with the mark of native forwarding"
    )
    redirected = counts["PA"]["redirected"] - before["PA"]["redirected"]
    expect(redirected >= 1, "the extension was not asked where an NVGRE packet is to go")
    noted = len(scene.events(one.host, "extension-error")) - errors
    expect(noted >= 1, f"{one.host} noted no extension-error event")
    return (
        f"{scene.name}: at {one.host}, packets {other.name} <-> {one.name}: all NVGRE marked, no CA packet; "
        f"what the extension redirected to {aside.port} reached its VM and not {aside.name} (extension-error "
        "noted), what it dropped reached nobody"
    )


def _redirect(scene: Scene, host: str) -> str:
    for extension in scene.host(host).extensions:
        if extension.name == PROBE:
            return str(extension.settings["redirect"])
    raise NotShown(f"{host} has no extension {PROBE}")


def _redirected(source: Guest, target: Guest, aside: Guest) -> None:
    mark = probes.token()
    frame = probes.packet(source, target, forwarding.REDIRECT + mark)
    with Capture(target.place, aside.place) as capture:
        capture.wait(
            target.place,
            mark,
            lambda: probes.send(source.place, frame),
            what=f"a packet of {source.name} that the extension redirects",
        )
        expect(
            not capture.holding(aside.place, mark), f"{aside.name} got a redirected packet of {source.name}"
        )


def _dropped(scene: Scene, source: Guest, target: Guest, host: str) -> None:
    mark = probes.token()
    frame = probes.packet(source, target, forwarding.DROP + mark)
    reason = f"{PROBE}:{forwarding.REASON}"
    with Capture(target.place) as capture:
        probes.fence(capture, source, target)
        before = scene.dropped(host, reason)
        probes.send(source.place, frame)
        probes.fence(capture, source, target)
        expect(not capture.holding(target.place, mark), f"{target.name} got what the extension dropped")
    counted = scene.dropped(host, reason) - before
    expect(counted == 1, f"{host} counted {counted} packets as {reason}, not 1")


def vsid_of_adapter(scene: Scene) -> str:
    """16: adapters of VSID 0 on two hosts, and a VM with adapters of two VSIDs."""
    plain = [each for each in scene.guests if each.vsid == 0 and 4 in each.ca]
    pair = next(((one, other) for one in plain for other in plain if one.host != other.host), None)
    if pair is None:
        raise NotShown(f"{scene.name} has no two VMs with VSID 0 on different hosts")
    one, other = pair
    mark = probes.token()
    file = sent(scene, one, other, probes.packet(one, other, mark), mark)
    row = oracle.decode(file, "gre.key", "eth.dst", "eth.src")[0]
    expect(not row["gre.key"], f"a packet of VSID 0 is on the wire with GRE key {row['gre.key']}")
    found = (row["eth.src"], row["eth.dst"])
    wanted = ([frames.mac_text(one.mac)], [frames.mac_text(other.mac)])
    expect(found == wanted, f"MACs of VSID 0 on the wire: {found}, not {wanted}")
    return (
        f"{scene.name}: {one.name} -> {other.name} on the {scene.cable(one.host).label} plain, with the VMs' "
        f"own MACs (tshark); {_two_adapters(scene)}"
    )


def _two_adapters(scene: Scene) -> str:
    adapters: dict[str, list[Guest]] = {}
    for each in scene.guests:
        if each.vsid:
            adapters.setdefault(each.port.partition(":")[0], []).append(each)
    several = next((each for each in adapters.values() if len({one.vsid for one in each}) > 1), None)
    if several is None:
        raise NotShown(f"{scene.name} has no VM with adapters of two VSIDs")
    told = []
    for one in several:
        other = next(
            each for each in scene.guests if each.vsid == one.vsid and each.host != one.host and 4 in each.ca
        )
        mark = probes.token()
        row = oracle.decode(sent(scene, one, other, probes.packet(one, other, mark), mark), "gre.key")[0]
        vsid = int(row["gre.key"][0], 0) >> 8
        expect(vsid == one.vsid, f"{one.port} has VSID {one.vsid}, its packets {vsid}")
        told.append(f"{one.port} with VSID {vsid}")
    return f"of one VM {' and '.join(told)}"


def vsid_metadata(scene: Scene) -> str:
    """17: packets of ports with different VSIDs, as the capture extension sees them at ingress."""
    told = {}
    for one in scene.guests:
        extensions = [extension.name for extension in scene.host(one.host).extensions]
        if CAPTURE not in extensions or 4 not in one.ca or one.vsid in told:
            continue
        other = next(
            (
                each
                for each in scene.guests
                if each.vsid == one.vsid and each.host != one.host and 4 in each.ca
            ),
            None,
        )
        if other is None:
            continue
        ingress = [sight for sight in _seen(scene, one.host, _pass(one, other)) if sight[0] == "ingress"]
        wanted = [("ingress", "CA", one.port, one.vsid)]
        expect(ingress == wanted, f"capture of {one.host} saw {ingress} of {one.port}, not {wanted}")
        told[one.vsid] = one.port
    expect(len(told) > 1, f"ports of one VSID only: {told}")
    return f"{scene.name}: VSID at ingress: " + ", ".join(f"{port} {vsid}" for vsid, port in told.items())
