"""A real packet is followed: sent at its adapter, and looked for at every cable and adapter of the lab.

The switches do nothing for it that they would not do anyhow: what they lose is told by their counters.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from typing import Any, NamedTuple

from testbed.errors import BadInput, LabError
from testbed.lab.lab import FABRIC, Lab
from testbed.lab.trace import Asked, Hop, Start, result
from testbed.namespaces import in_netns
from testbed.packets import ethernet, nvgre
from testbed.packets.malformed import MalformedFrame
from testbed.switch.trace import note, outer_header

SECONDS = 2.0  # for a packet to arrive somewhere
SETTLE = 0.1  # seconds for its other copies, and for the counters
_EVERYTHING = 3  # ETH_P_ALL
_OUTGOING = 4  # PACKET_OUTGOING
_LARGEST = 1 << 17
_MARK = 64  # bytes by which a packet is known again
_BEFORE_MARK = {6: 20}  # TCP's header, which rule Nat may change; of others 8 bytes


class Place(NamedTuple):
    """An interface at which frames are seen: ``kind`` "cable" or "adapter"; ``name`` of the NIC or port."""

    kind: str
    host: str
    name: str
    node: str
    interface: str


class Sighting(NamedTuple):
    """The packet at a place. outgoing: as the interface's own side sees it."""

    place: Place
    frame: bytes
    outgoing: bool


def follow(lab: Lab, start: Start, asked: Asked) -> dict[str, Any]:
    """What ``trace`` says, of a packet that is sent. Raises BadInput, LabError."""
    if any(asked.vnet):
        raise BadInput(f"--size: a real packet has at most the adapter's MTU, {start.vnic.mtu} bytes")
    with contextlib.ExitStack() as stack:
        watch = _Watch(lab, stack)
        before = _drops(lab)
        _send(lab, start, asked.frame)
        seen = _wait(watch, start, asked.frame)
        lost = {key: count - before.get(key, 0) for key, count in _drops(lab).items()}
    lost = {key: count for key, count in lost.items() if count > 0}
    return result(lab, start, asked, _hops(start, seen, lost), [])


class _Watch:
    """Packet sockets at all cables' ends in the fabric and at all adapters of VMs."""

    def __init__(self, lab: Lab, stack: contextlib.ExitStack) -> None:
        self._sockets: dict[Place, socket.socket] = {}
        for place in _places(lab):
            with in_netns(lab.netns(place.node)):
                sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
                stack.callback(sock.close)
                try:
                    sock.bind((place.interface, _EVERYTHING))
                except OSError as error:
                    raise LabError(f"{place.node}: {place.interface}: {error.strerror}") from None
            self._sockets[place] = sock

    def news(self) -> list[Sighting]:
        """What has passed since the last call."""
        found = []
        for place, sock in self._sockets.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    data, address = sock.recvfrom(_LARGEST)
                    found.append(Sighting(place, data, address[2] == _OUTGOING))
        return found


def _places(lab: Lab) -> list[Place]:
    cables = [Place("cable", each.host, each.nic, FABRIC, each.interface) for each in lab.plan.fabric.cables]
    adapters = [
        Place("adapter", vm.host, vnic.port, vm.name, vnic.interface)
        for vm in lab.plan.vms
        for vnic in vm.vnics
    ]
    return cables + adapters


def _send(lab: Lab, start: Start, frame: bytes) -> None:
    with in_netns(lab.netns(start.vm.name)):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sock:
        try:
            sock.bind((start.vnic.interface, 0))
            sock.send(frame)
        except OSError as error:
            raise LabError(f"{start.vnic.port} does not send {len(frame)} bytes: {error.strerror}") from None


def _wait(watch: _Watch, start: Start, frame: bytes) -> list[Sighting]:
    """The packet's sightings and the answer to it, until it has arrived somewhere or the time is up."""
    seen: list[Sighting] = []
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        seen += [each for each in watch.news() if _is_it(each, start, frame)]
        if any(each.place.kind == "adapter" for each in seen):
            deadline = min(deadline, time.monotonic() + SETTLE)
        time.sleep(0.01)  # a poll with a deadline
    return seen


def _is_it(each: Sighting, start: Start, frame: bytes) -> bool:
    if each.place.kind == "adapter" and each.outgoing:  # what VMs send, such as an answer
        return False
    if each.place.name == start.vnic.port:
        return _answers(each.frame, frame) or _carries(each.frame, frame, _QUOTED)
    return _carries(each.frame, frame, _CARRIED)


_CARRIED = (0, nvgre.OUTER_IPV4, nvgre.OUTER_IPV6)  # how much further back the packet's payload may be
_QUOTED = (28, 48)  # in an ICMP error


def _carries(data: bytes, frame: bytes, shifts: tuple[int, ...]) -> bool:
    """Whether ``data`` has the payload of ``frame``, further back by one of ``shifts``."""
    at = _mark_at(frame)
    mark = frame[at : at + _MARK]
    return any(data[at + shift : at + shift + len(mark)] == mark for shift in shifts)


def _mark_at(frame: bytes) -> int:
    """Where in a frame is what stays as it is: behind the headers of IP and its transport, or Ethernet's."""
    kind = ethernet.ethertype(frame)
    at, protocol = ethernet.HEADER, 0
    if kind == ethernet.TYPE_IPV4 and len(frame) > 34:
        at, protocol = at + 4 * (frame[14] & 15), frame[23]
    elif kind == ethernet.TYPE_IPV6 and len(frame) > 54:
        at, protocol = at + 40, frame[20]
    mark = at + _BEFORE_MARK.get(protocol, 8)
    return mark if at > ethernet.HEADER and len(frame) >= mark + 8 else at


def _answers(data: bytes, frame: bytes) -> bool:
    """Whether ``data`` answers the ARP request or the Neighbor Solicitation ``frame``."""
    if ethernet.ethertype(frame) == ethernet.TYPE_ARP:
        return data[12:14] == frame[12:14] and data[20:22] == b"\0\2" and data[28:32] == frame[38:42]
    solicits = frame[12:14] == b"\x86\xdd" and frame[20:21] == b"\x3a" and frame[54:55] == b"\x87"
    return solicits and data[54:55] == b"\x88" and data[62:78] == frame[62:78]


# ---- what was lost ----------------------------------------------------------------------------

Lost = dict[tuple[str, str, str, str], int]  # host, port or NIC, stage, reason


def _drops(lab: Lab) -> Lost:
    found: Lost = {}
    for host in lab.plan.hosts:
        for each in lab.ask(host.name, "counters")["counters"]:
            if each["kind"] == "drop":
                fields = each["fields"]
                key = host.name, each["object"], fields["stage"], fields["reason"]
                found[key] = found.get(key, 0) + fields["packets"]
    return found


# ---- what was seen ----------------------------------------------------------------------------


def _hops(start: Start, seen: list[Sighting], lost: Lost) -> list[Hop]:
    own = start.vm.host
    first: Hop = {"host": own, "direction": "outbound", "port": start.vnic.port, "stages": [], "copies": []}
    hops = [first]
    first["stages"].append(
        note("port", "out", "pass", "", {"port": start.vnic.port, "vsid": start.vnic.vsid})
    )
    for each in seen:
        if each.place.kind == "cable" and not each.outgoing and each.place.host == own:
            _leaves(first, each)
    _add_lost(first, start.vnic.port, lost)
    hops += [
        _arrives(each, lost)
        for each in seen
        if each.place.kind == "cable" and each.outgoing and each.place.host != own
    ]
    for each in seen:
        if each.place.kind == "adapter":
            _reaches(hops, start, each)
    return hops


def _leaves(hop: Hop, each: Sighting) -> None:
    outer = _outer(each.frame)
    details = {"nic": each.place.name, "outer": outer}
    hop["stages"].append(note("nic", "out", "pass", "seen on its cable", details))
    hop["copies"].append({"to": "wire", "nic": each.place.name, "frame": each.frame, "outer": outer})


def _arrives(each: Sighting, lost: Lost) -> Hop:
    details = {"nic": each.place.name, "outer": _outer(each.frame)}
    hop: Hop = {
        "host": each.place.host,
        "direction": "inbound",
        "nic": each.place.name,
        "stages": [note("nic", "in", "pass", "seen on its cable", details)],
        "copies": [],
    }
    _add_lost(hop, each.place.name, lost)
    return hop


def _add_lost(hop: Hop, name: str, lost: Lost) -> None:
    """What the switch has counted meanwhile, of packets from this port or NIC."""
    for (host, where, stage, reason), count in lost.items():
        if (host, where) == (hop["host"], name):
            way = "in" if hop["direction"] == "inbound" else "out"
            hop["stages"].append(note(stage, way, "drop", reason, {"counted_meanwhile": count}))
            hop["copies"].append({"to": "nobody", "stage": stage, "reason": reason})


def _reaches(hops: list[Hop], start: Start, each: Sighting) -> None:
    name, host = each.place.name, each.place.host
    if name == start.vnic.port:
        _comes_back(hops[0], each.frame)
        return
    hop = next((hop for hop in hops if hop["host"] == host), hops[0])
    hop["stages"].append(note("port", "in", "deliver", "seen at the adapter", {"ports": [name]}))
    hop["copies"].append({"to": "port", "port": name, "queue": None, "frame": each.frame})


def _comes_back(hop: Hop, frame: bytes) -> None:
    """What the switch has said to the sender."""
    if frame[12:14] == b"\x08\x06" or frame[54:55] == b"\x88":
        details = {
            "answered_with": ethernet.format_mac(frame[6:12]),
            "answered_for": "whom it asks for",
            "asks_for": str(
                ipaddress.ip_address(frame[28:32] if frame[12:14] == b"\x08\x06" else frame[62:78])
            ),
            "protocol": "a question",
        }
        hop["stages"].append(note("wnv", "out", "reply", "the answer is seen at the adapter", details))
        hop["copies"].append({"to": "sender", "what": "answer", "frame": frame})
    elif frame[34:36] == b"\x03\x04" or frame[54:55] == b"\x02":
        hop["copies"].append({"to": "sender", "what": "too-big", "frame": frame})


def _outer(frame: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(MalformedFrame):
        if nvgre.carries_gre(frame):
            return outer_header(frame)
    return None
