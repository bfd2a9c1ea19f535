"""Copies of packets for a capture, from inside of the switch, with what became of them.

Nothing here is on anybody's way while no tap is open: a tap puts another pipeline in the place of the
switch's, whose decisions for the packets it wants are not cached, so that each of them takes the full path.
What loses a packet before the pipeline sees it (a wrong checksum that the NIC verifies) is not seen.

| point | what is seen there |
|---|---|
| ``ingress`` | what comes from a VM or a NIC, as it came, and what became of it |
| ``wnv`` | what the WNV filter was given, in customer addresses, and its verdict |
| ``team`` | what goes to the NICs, and through which; what they have accepted |
| ``egress`` | each copy that leaves, to a port or a NIC |
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence

from testbed.packets import nvgre
from testbed.packets.checksum import Buffer
from testbed.packets.malformed import MalformedFrame
from testbed.switch.buffer import NEEDS_CSUM, VNET_HEADER, Action
from testbed.switch.drops import Drop, DropCounts
from testbed.switch.packet import Denied, Egress, Hold, Packet, Reply, Tunnel, Verdict
from testbed.switch.pipeline import TEAM, WNV, Pipeline, Stage, leaves
from testbed.switch.port import Port
from testbed.switch.uplink import Uplink

INGRESS, EGRESS = "ingress", "egress"
POINTS = (INGRESS, EGRESS, WNV, TEAM)

# time (ns since 1970), bytes of the frame that follow, of the whole frame, outbound or not, vnet header;
# behind the frame stand the comments, a line each
HEADER = struct.Struct("=QIIH10s")
_NO_VNET = bytes(VNET_HEADER.size)


class Tap:
    """Where copies go: a socket that keeps boundaries, which the tap owns. vsid: only this one; None: all.

    lost: what the reader had no room for. Whether the reader has gone is for others to notice.
    """

    def __init__(self, sock: socket.socket, point: str, vsid: int | None, snaplen: int) -> None:
        self.socket = sock
        self.point = point
        self.vsid = vsid
        self.seen = 0
        self.lost = 0
        self._snaplen = snaplen or None
        sock.setblocking(False)

    def wants(self, vsid: int) -> bool:
        """Whether packets of a virtual subnet are of interest."""
        return self.vsid is None or self.vsid == vsid

    def put(self, when: int, frame: Buffer, vnet: Buffer, comments: Iterable[str], *, outbound: bool) -> None:
        """One packet."""
        self.seen += 1
        kept = frame[: self._snaplen]
        head = HEADER.pack(when, len(kept), len(frame), outbound, bytes(vnet) or _NO_VNET)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            try:
                self.socket.sendmsg([head, kept, "\n".join(comments).encode()])
            except BlockingIOError:
                self.lost += 1


class TappedPipeline(Pipeline):
    """A pipeline that does what another one does, and tells taps of it."""

    def __init__(
        self,
        plain: Pipeline,
        taps: Sequence[Tap],
        neighbor: Callable[[bytes], bytes | None],
        drops: DropCounts,
    ) -> None:
        stages = [_Watched(each, self) if each.name in (WNV, TEAM) else each for each in plain.stages]
        super().__init__(stages, plain.mode)
        self._taps = taps
        self._neighbor = neighbor
        self._drops = drops
        self.accepted: list[tuple[int, Verdict]] = []  # when the team had the packet, and its verdict

    def tell(
        self, point: str, packet: Packet, frame: Buffer, vnet: Buffer, comments: Sequence[str], **more: int
    ) -> None:
        """A packet at a point. more: outbound, and when, if that was not now."""
        outbound, when = bool(more["outbound"]), more.get("when") or time.time_ns()
        for tap in self._taps:
            if tap.point == point and tap.wants(packet.vsid):
                tap.put(when, frame, vnet, comments, outbound=outbound)

    def outbound(self, packet: Packet) -> None:
        """As the other, then told."""
        when = time.time_ns()
        super().outbound(packet)
        self._told(packet, when)

    def inbound(self, packet: Packet) -> None:
        """As the other, then told."""
        when = time.time_ns()
        self.accepted.clear()
        super().inbound(packet)
        for then, verdict in self.accepted:
            comments = [_origin(packet), *([] if verdict is None else [said(verdict)])]
            self.tell(TEAM, packet, packet.frame, packet.vnet, comments, outbound=False, when=then)
        self._told(packet, when)

    def _told(self, packet: Packet, when: int) -> None:
        if not any(tap.wants(packet.vsid) for tap in self._taps):
            return
        packet.cacheable = False
        if packet.only is None:  # else it has waited, and was seen when it came
            comments = [_origin(packet), *fate(packet)]
            self.tell(INGRESS, packet, packet.frame, packet.vnet, comments, outbound=False, when=when)
        for port in packet.ports:
            frame, vnet = _customer(packet)
            comments = [_origin(packet), f"to {port.name}"]
            self.tell(EGRESS, packet, _with_macs(frame, packet.macs), vnet, comments, outbound=True)
        if packet.egress is not None:
            packet.egress = _TappedEgress(packet.egress, packet, self)

    def departure(self, packet: Packet, action: Action, uplink: Uplink, mac: bytes) -> Action:
        """What to do with a packet that leaves through a NIC: ``action``, told with what it loses."""

        def leave(end: int) -> None:
            copies = [self._encapsulated(packet, tunnel, uplink, mac) for tunnel in packet.tunnels]
            if packet.to_wire or packet.outward:
                copies.append((bytes(packet.frame), bytes(packet.vnet)))
            before, when = dict(self._drops), time.time_ns()  # before anybody else can see it
            action(end)
            lost = [
                f"dropped by {stage}: {reason}"
                for (stage, name, vsid, reason), packets in self._drops.items()
                if packets != before.get((stage, name, vsid, reason), 0)
            ]
            rule = ["not encapsulated: rule Nat or None, before translation"] if packet.outward else []
            comments = [_origin(packet), f"through {uplink.name}", *rule, *lost]
            for frame, vnet in copies:
                self.tell(TEAM, packet, frame, vnet, comments, outbound=True, when=when)
                self.tell(EGRESS, packet, frame, vnet, comments, outbound=True, when=when + 1)

        return leave

    def _encapsulated(
        self, packet: Packet, tunnel: Tunnel, uplink: Uplink, mac: bytes
    ) -> tuple[bytes, bytes]:
        inner = _with_macs(packet.frame, packet.macs)
        to = self._neighbor(tunnel.next_hop) or bytes(6)
        outer = bytearray(
            nvgre.template(
                to, mac or uplink.mac, tunnel.source_pa, tunnel.destination_pa, tunnel.vsid, tunnel.flow_id
            )
        )
        if len(outer) == nvgre.OUTER_IPV4:
            total = len(outer) - 14 + len(inner) & 0xFFFF
            struct.pack_into("!H", outer, nvgre.LENGTH_AT, total)
            struct.pack_into("!H", outer, nvgre.CHECKSUM_AT, nvgre.header_sum(outer) ^ 0xFFFF)
        else:
            struct.pack_into("!H", outer, nvgre.PAYLOAD_LENGTH_AT, len(outer) - 54 + len(inner) & 0xFFFF)
        return bytes(outer) + inner, _moved(packet.vnet, len(outer))


class _Watched:
    """A stage whose packets and verdicts are told."""

    def __init__(self, stage: Stage, pipeline: TappedPipeline) -> None:
        self.name = stage.name
        self._stage = stage
        self._pipeline = pipeline

    def outbound(self, packet: Packet) -> Verdict:
        """As the stage. Of the team only what it cannot send: the rest is told when it leaves."""
        verdict = self._judged(self._stage.outbound, packet, outbound=True)
        if self.name == WNV:
            self._tell(packet, packet.frame, packet.vnet, verdict, outbound=True)
        elif verdict is not None or (leaves(packet) and packet.egress is None):
            self._tell(packet, packet.frame, packet.vnet, verdict or Drop.NO_UPLINK, outbound=True)
        return verdict

    def inbound(self, packet: Packet) -> Verdict:
        """As the stage. What the team has is told in the end: not before the filter is its VSID known."""
        verdict = self._judged(self._stage.inbound, packet, outbound=False)
        if self.name == TEAM:
            self._pipeline.accepted.append((time.time_ns(), verdict))
        else:
            self._tell(packet, *_customer(packet), verdict, outbound=False)
        return verdict

    def _judged(self, judge: Callable[[Packet], Verdict], packet: Packet, *, outbound: bool) -> Verdict:
        try:
            return judge(packet)
        except MalformedFrame:
            self._tell(packet, packet.frame, packet.vnet, Drop.MALFORMED, outbound=outbound)
            raise

    def _tell(self, packet: Packet, frame: Buffer, vnet: Buffer, verdict: Verdict, *, outbound: bool) -> None:
        comments = [_origin(packet), *([said(verdict)] if verdict is not None else fate(packet))]
        self._pipeline.tell(self.name, packet, frame, vnet, comments, outbound=outbound)


class _TappedEgress:
    """The team's way out, told."""

    def __init__(self, plain: Egress, packet: Packet, pipeline: TappedPipeline) -> None:
        self._plain = plain
        self._packet = packet
        self._pipeline = pipeline

    def through(self, make: Callable[[Uplink, bytes], Action]) -> Action:
        """As the team says."""
        return self._plain.through(
            lambda uplink, mac: self._pipeline.departure(self._packet, make(uplink, mac), uplink, mac)
        )

    def chosen(self) -> Egress:
        """As the team says; nobody is told of what does not leave."""
        return self._plain.chosen()


def said(verdict: Verdict) -> str:
    """A verdict in words."""
    if isinstance(verdict, Reply):
        return "answered by the switch"
    if isinstance(verdict, Hold):
        return f"waits for the MAC of PA {ipaddress.ip_address(verdict.next_hop)}"
    return f"dropped: {verdict.reason if isinstance(verdict, Denied) else verdict}"


def fate(packet: Packet) -> list[str]:
    """What becomes of each copy of a packet, in words."""
    words = [f"dropped by {stage}: {reason}" for stage, reason in packet.lost]
    words += ["answered by the switch"] * bool(packet.replies)
    words += [said(Hold(next_hop)) for next_hop in packet.waiting]
    words += [f"to {port.name}" for port in packet.ports]
    words += [f"to PA {ipaddress.ip_address(tunnel.destination_pa)}" for tunnel in packet.tunnels]
    if packet.to_wire or packet.outward:
        words.append("to the wire, not encapsulated")
    return words


def _origin(packet: Packet) -> str:
    kind = "port" if isinstance(packet.source, Port) else "NIC"
    return f"VSID {packet.vsid}, from {kind} {packet.source.name}"


def _customer(packet: Packet) -> tuple[Buffer, Buffer]:
    """The frame without an outer header, and its vnet header."""
    if packet.outer is None:
        return packet.frame, packet.vnet
    header = packet.outer.header
    return packet.frame[header : packet.outer.length], _moved(packet.vnet, -header)


def _with_macs(frame: Buffer, macs: bytes) -> bytes:
    return macs + bytes(frame[len(macs) :])


def _moved(vnet: Buffer, by: int) -> bytes:
    """The vnet header of a frame that starts that much earlier."""
    if not vnet:
        return _NO_VNET
    flags, kind, header, size, start, offset = VNET_HEADER.unpack(vnet)
    if flags & NEEDS_CSUM:
        header, start = max(header + by, 0) & 0xFFFF, max(start + by, 0) & 0xFFFF
    return VNET_HEADER.pack(flags, kind, header, size, start, offset)
