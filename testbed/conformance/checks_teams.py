"""Checks of NIC teams: statements 37 to 39, on a lab with a host for each kind of team."""

from __future__ import annotations

import time

from testbed.conformance import frames, probes
from testbed.conformance.observe import Capture, Place
from testbed.conformance.outcome import expect
from testbed.conformance.scene import Guest, Scene, poll
from testbed.lab import nic, team
from testbed.lab.lab import FABRIC

FLOWS = 40
BURSTS, BURST = 12, 100
PAUSE = 0.04  # seconds between bursts, longer than the gap of the lab's topology
SECONDS = 5.0
_BROADCAST = b"\xff" * 6
_ARP_REQUEST = bytes.fromhex("0001080006040001")


def macs(scene: Scene) -> str:
    """37: flows and ARP of VMs outside virtual subnets and inside, on the cables of each kind of team."""
    told = []
    for host in ("dynamic", "hashed", "ported", "partnered"):
        told += [_check_plain(scene, scene.guest(f"{host}-plain{which}")) for which in (1, 2)]
        told.append(_check_encapsulated(scene, scene.guest(f"{host}-blue")))
    return f"{scene.name}: frames through either member: {', '.join(told)}"


def flowlets(scene: Scene) -> str:
    """38: bursts of one flow, in their order at the other VM; where each burst left."""
    one, two = scene.guest("dynamic-blue"), scene.guest("hashed-blue")
    cables = _cables(scene, one.host)
    mark = probes.token()
    with Capture(*cables.values(), two.place) as capture:
        for burst in range(BURSTS):
            numbers = range(burst * BURST, (burst + 1) * BURST)
            payloads = [mark + number.to_bytes(4, "big") + bytes(1200) for number in numbers]
            probes.send(one.place, *(probes.packet(one, two, payload) for payload in payloads))
            end = time.monotonic() + PAUSE
            _wait_for(capture, two, mark, (burst + 1) * BURST)
            while (left := end - time.monotonic()) > 0:
                time.sleep(left)  # the gap between two flowlets
        arrived = [_number(frame, mark) for frame in capture.holding(two.place, mark)]
        by = {
            name: {_number(frame, mark) // BURST for frame in capture.holding(place, mark)}
            for name, place in cables.items()
        }
    expect(arrived == list(range(BURSTS * BURST)), f"{len(arrived)} packets came, or out of order")
    torn = by["nic1"] & by["nic2"]
    expect(not torn, f"flowlets {sorted(torn)} left through both members")
    expect(all(by.values()), f"one flow in {BURSTS} flowlets left through one member only")
    counts = ", ".join(f"{len(found)} through {name}" for name, found in by.items())
    return (
        f"{scene.name}: {BURSTS} flowlets of one flow, {counts}, none torn apart; all in order at {two.name}"
    )


def _wait_for(capture: Capture, guest: Guest, mark: bytes, count: int) -> None:
    poll(lambda: len(capture.holding(guest.place, mark)) >= count, SECONDS)


def queues(scene: Scene) -> str:
    """39: where the VMs' queues are, and where the team says that they add up."""
    told = []
    for host, mode in (
        ("dynamic", "Sum-of-Queues"),
        ("ported", "Sum-of-Queues"),
        ("hashed", "Min-Queues"),
        ("partnered", "Min-Queues"),
    ):
        said = team.show(scene.lab, host)["queues"]
        expect(said == mode, f"{host}: its queues are {said}")
        filters = [each["vmq"] for each in nic.show(scene.lab, host)]
        for guest in (guest for guest in scene.guests if guest.host == host):
            own = guest.mac.hex(":")
            found = [each[own] for each in filters if own in each]
            if mode == "Sum-of-Queues":
                expect(len(found) == 1, f"{guest.name} has a queue on {len(found)} members")
            else:
                expect(len(found) == len(filters), f"{guest.name} has a queue on {len(found)} members")
                expect(len(set(found)) == 1, f"{guest.name} has different queues: {found}")
        told.append(f"{host} {mode}")
    return f"{scene.name}: {', '.join(told)}"


def _check_plain(scene: Scene, guest: Guest) -> str:
    """A VM's own MAC: where, and where it is another one's."""
    left, own = _left(scene, guest, [_question(guest)] * 3)
    plan = scene.host(guest.host).team
    at = {name for name, found in left.items() if any(frame[6:12] == guest.mac for frame in found)}
    asked = {name for name, found in left.items() if any(_ARP_REQUEST in frame for frame in found)}
    for name, found in left.items():
        seen = {frame[6:12] for frame in found} - {guest.mac}
        allowed = set() if plan.has_partner or plan.algorithm == "HyperVPort" else {own[name]}
        expect(seen <= allowed, f"{guest.name}: on {name} with other MACs")
    if not plan.has_partner:
        expect(len(at) == 1, f"{guest.name}: its MAC is on {len(at)} ports of the switch")
        expect(asked == at, f"{guest.name}: ARP left through {asked}, its MAC is at {at}")
    if plan.algorithm == "TransportPorts" and not plan.has_partner:
        expect(at == {plan.primary}, f"{guest.name}: its MAC is at {at}, not at the primary")
    return _shares(guest, left, several=plan.algorithm != "HyperVPort")


def _check_encapsulated(scene: Scene, guest: Guest) -> str:
    """The MAC of a provider address is a member's: through another one it is that one's own."""
    left, own = _left(scene, guest, [])
    plan = scene.host(guest.host).team
    for name, found in left.items():
        wanted = own[plan.primary] if plan.has_partner else own[name]
        expect({frame[6:12] for frame in found} <= {wanted}, f"{guest.name}: on {name} with other MACs")
    return _shares(guest, left, several=plan.algorithm != "HyperVPort")


def _shares(guest: Guest, left: dict[str, list[bytes]], *, several: bool) -> str:
    used = [name for name, found in left.items() if found]
    expect(len(used) == (2 if several else 1), f"{guest.name}: its frames left through {used}")
    return f"{guest.name} {' and '.join(str(len(found)) for found in left.values())}"


def _left(scene: Scene, guest: Guest, more: list[bytes]) -> tuple[dict[str, list[bytes]], dict[str, bytes]]:
    """What of flows to different ports left through each member, and the members' MACs."""
    cables, mark = _cables(scene, guest.host), probes.token()
    own = {each.name: frames.mac(each.mac) for each in scene.host(guest.host).nics}
    with Capture(*cables.values()) as capture:
        flows = [_flow(scene, guest, mark, port) for port in range(2000, 2000 + FLOWS)]
        probes.send(guest.place, *flows, *(frame + mark for frame in more))

        def left() -> dict[str, list[bytes]]:
            return {name: capture.holding(place, mark, outgoing=False) for name, place in cables.items()}

        def all_there() -> bool:
            return sum(map(len, left().values())) >= FLOWS + len(more)

        expect(poll(all_there, SECONDS), f"{guest.name}: frames are missing on the cables")
        return left(), own


def _cables(scene: Scene, host: str) -> dict[str, Place]:
    """The switch's ends of a host's cables, by NIC."""
    return {
        cable.nic: Place(f"cable {host}:{cable.nic}", scene.lab.netns(FABRIC), cable.interface)
        for cable in scene.plan.fabric.cables
        if cable.host == host
    }


def _flow(scene: Scene, guest: Guest, mark: bytes, port: int) -> bytes:
    if guest.vsid:
        other = scene.guest("hashed-blue" if guest.host != "hashed" else "dynamic-blue")
        return probes.packet(guest, other, mark, ports=(port, 9))
    inner = frames.tcp_reset(guest.address(), "198.51.100.250", mark, (port, 9))
    return frames.ethernet(bytes.fromhex("020000000fff"), guest.mac, frames.TYPE_IPV4, inner)


def _question(guest: Guest) -> bytes:
    """ARP for an address that nobody has."""
    own = bytes(int(part) for part in guest.address().split("."))
    body = _ARP_REQUEST + guest.mac + own + bytes(6) + bytes((198, 51, 100, 250))
    return frames.ethernet(_BROADCAST, guest.mac, 0x0806, body)


def _number(frame: bytes, mark: bytes) -> int:
    at = frame.index(mark) + len(mark)
    return int.from_bytes(frame[at : at + 4], "big")
