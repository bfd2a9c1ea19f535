"""The hot path: read, look the flow up, act. And the full path for a flow's first packet.

A flow's key is everything in the headers that the pipeline's decision can depend on. TCP and UDP
over plain IPv4 and IPv6 have one, as has every NVGRE frame; anything else (ARP, ND, ICMP,
fragments, IP options, what is too short) takes the full path each time. Where extensions look into
received NVGRE frames, those have a key only if their inner packet has, and it is part of it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from testbed.packets import ethernet, nvgre
from testbed.packets.malformed import MalformedFrame
from testbed.switch.actions import (
    Discard,
    Encapsulate,
    EncapsulateIPv6,
    Oversize,
    Replicate,
    ToWire,
    Translate,
)
from testbed.switch.buffer import (
    INNER,
    READ,
    SIZE,
    VNET,
    VNET_HEADER,
    WIRE,
    Action,
    Flows,
    FrameBuffer,
)
from testbed.switch.coalescing import joined
from testbed.switch.delivery import delivery
from testbed.switch.drops import Drop, DropCounts, count
from testbed.switch.packet import Packet, Translation, Tunnel
from testbed.switch.pipeline import NIC, PORT, TEAM, WNV, Path
from testbed.switch.port import Port
from testbed.switch.state import SwitchState
from testbed.switch.uplink import Queue, Uplink
from testbed.switch.verification import good

if TYPE_CHECKING:
    from testbed.switch.segmentation import Segmenter

BATCH = 32  # packets per wake-up and descriptor, so that no one starves the others
FLOWS = 16384  # cached flows per port or NIC; a full cache is emptied
HELD_PER_NEXT_HOP = 64  # packets that wait for one unresolved PA next hop

# IPv4 from the frame's start: MACs, type, version/IHL | fragment field | protocol | addresses, ports
_key_ipv4 = struct.Struct("!15s5xHxB2x12s").unpack_from
_END_IPV4 = INNER + 38
# IPv6: MACs, type, version | next header | addresses, ports
_key_ipv6 = struct.Struct("!15s5xBx36s").unpack_from
_END_IPV6 = INNER + 58
# NVGRE: outer destination MAC | type, version/IHL | fragment field | protocol | PAs | GRE | VSID |
# inner destination MAC | inner type
_key_nvgre = struct.Struct("!6s6x3s5xHxB2x8s4s3sx6s6x2s").unpack_from
_END_NVGRE = WIRE + nvgre.OUTER_IPV4 + 14
# Over IPv6: outer destination MAC | type, version | next header | PAs | GRE | VSID | as above
_key_nvgre_ipv6 = struct.Struct("!6s6x3s5xBx32s4s3sx6s6x2s").unpack_from
_END_NVGRE_IPV6 = WIRE + nvgre.OUTER_IPV6 + 14
_TRANSPORTS = (6, 17)
_FRAGMENT = 0x3FFF
_TYPE_HIGH, _TYPE_LOW = INNER + 12, INNER + 13
_FROM_VM = INNER - VNET  # what a packet's end is beyond the bytes read
_OUTER_TYPE_HIGH, _OUTER_TYPE_LOW = WIRE + 12, WIRE + 13
_LENGTH_HIGH, _LENGTH_LOW = WIRE + nvgre.LENGTH_AT, WIRE + nvgre.LENGTH_AT + 1
_PAYLOAD_HIGH, _PAYLOAD_LOW = WIRE + nvgre.PAYLOAD_LENGTH_AT, WIRE + nvgre.PAYLOAD_LENGTH_AT + 1
_IP_START, _IP_END = WIRE + 14, WIRE + 34
_PAYLOAD_START = WIRE + 54
_GSO_TYPE = READ + 1
_TAG_HIGH = tuple(kind >> 8 for kind in ethernet.TAGS)
_V4_HEAD = b"\x08\x00\x45"

Key: TypeAlias = "tuple[object, ...]"


class Datapath:
    """The switch of one worker. ``unresolved`` is called with each PA next hop that needs resolving.

    ``inspects``: the decision on a received NVGRE frame may depend on its inner flow, as it does where
    a switch has extensions, while a VM waits for an address, and where the inner flow chooses the queue
    of a VM. The keys of both ways have different forms, so that it may change between any two packets.
    """

    def __init__(self, state: SwitchState, pipeline: Path, unresolved: Callable[[bytes], None]) -> None:
        self.state = state
        self.drops: DropCounts = {}
        self.inspects = False
        self._buffer = FrameBuffer()
        self._unresolved = unresolved
        # by next hop: source, copies that wait for it, vnet header, frame
        self.held: dict[bytes, list[tuple[str, int, bytes, bytes]]] = {}
        self._segmenter: Segmenter | None = None
        self.pipeline = pipeline

    # ---- hot path -------------------------------------------------------------------------

    def drain_port(self, port: Port, descriptor: int) -> None:
        """Take up to a batch of packets from a VM's queue, and let what the NICs have kept of it go."""
        self._take_from_vm(port, descriptor)
        self._flush()

    def drain_uplink(self, uplink: Uplink, queue: Queue) -> None:
        """Take up to a batch of frames from a receive queue of a NIC."""
        self._take_from_wire(uplink, queue)
        self._flush()

    def _flush(self) -> None:
        for uplink in self.state.uplinks.values():
            uplink.flush()

    def _take_from_vm(self, port: Port, descriptor: int) -> None:
        data, parts = self._buffer.data, self._buffer.from_vm
        flows, readv, key_ipv4 = port.flows, os.readv, _key_ipv4
        for _ in range(BATCH):
            try:
                end = readv(descriptor, parts) + _FROM_VM
            except OSError:  # nothing there, or the VM's NIC is down
                return
            port.from_vm_packets += 1
            port.from_vm_bytes += end - INNER
            key: Key | None
            if data[_TYPE_HIGH] == 8 and data[_TYPE_LOW] == 0 and end >= _END_IPV4:
                key = key_ipv4(data, INNER)
            else:
                key = self._other_key(end)
            action = flows.get(key)
            if action is None:
                self._first_from_vm(port, key, end)
            else:
                action(end)

    def _take_from_wire(self, uplink: Uplink, queue: Queue) -> None:
        buffer = self._buffer
        data, view = buffer.data, buffer.from_wire
        receive_into, flows = queue.receive_into, uplink.flows
        verifies = uplink.plain.rx_checksum or uplink.nvgre.rx_checksum
        key_nvgre = _key_inspected if self.inspects else _key_nvgre
        from_bytes = int.from_bytes
        for _ in range(BATCH):
            try:
                end = receive_into(view) + READ
            except OSError:  # nothing there, or the cable is gone
                return
            queue.rx_packets += 1
            queue.rx_bytes += end - WIRE
            if data[_GSO_TYPE]:
                if not joined(uplink, buffer, end):
                    self._separate(uplink, end)
                    continue
            elif verifies and not data[READ] and not self._verified(uplink, end):
                continue
            action = None
            # Not in the key, as they differ per packet: length and checksum (0 modulo 0xFFFF if right)
            if (
                end >= _END_NVGRE
                and data[_LENGTH_HIGH] << 8 | data[_LENGTH_LOW] == end - _IP_START
                and not from_bytes(data[_IP_START:_IP_END], "big") % 0xFFFF
            ):
                action = flows.get(key_nvgre(data, WIRE))
            elif (
                data[_OUTER_TYPE_HIGH] == 0x86
                and data[_OUTER_TYPE_LOW] == 0xDD
                and end >= _END_NVGRE_IPV6
                and data[_PAYLOAD_HIGH] << 8 | data[_PAYLOAD_LOW] == end - _PAYLOAD_START
            ):
                action = flows.get(self._key_ipv6_outer(end))
            if action is None:
                self._first_from_wire(uplink, end)
            else:
                action(end)

    def _separate(self, uplink: Uplink, end: int) -> None:
        """A packet of frames that NDIS does not join."""
        from testbed.switch.separation import separated  # seldom, and a host saves what it takes

        data = self._buffer.data
        for each in separated(uplink, self._buffer, end):
            outer = nvgre.OUTER_IPV6 if data[_OUTER_TYPE_HIGH] == 0x86 else nvgre.OUTER_IPV4
            action = uplink.flows.get(self._key_of_wire(outer, each))
            if action is None:
                self._first_from_wire(uplink, each)
            else:
                action(each)

    def _verified(self, uplink: Uplink, end: int) -> bool:
        """Whether a frame's checksums are right, if the NIC has to say so."""
        if good(uplink, self._buffer.view[WIRE:end]):
            return True
        count(self.drops, NIC, uplink.name, 0, Drop.BAD_CHECKSUM)
        return False

    # ---- full path ------------------------------------------------------------------------

    def _other_key(self, end: int) -> Key | None:
        data = self._buffer.data
        if data[_TYPE_HIGH] == 0x86 and data[_TYPE_LOW] == 0xDD and end >= _END_IPV6:
            return _key_ipv6(data, INNER)
        return None

    def _key_ipv6_outer(self, end: int) -> Key | None:
        data = self._buffer.data
        outer: Key = _key_nvgre_ipv6(data, WIRE)
        if not self.inspects:
            return outer
        inner = _inner_key(data, WIRE + nvgre.OUTER_IPV6, end)
        return (outer, inner) if inner else None

    def _key_of_wire(self, header: int, end: int) -> Key | None:
        if header == nvgre.OUTER_IPV6:
            return self._key_ipv6_outer(end)
        return (_key_inspected if self.inspects else _key_nvgre)(self._buffer.data, WIRE)

    def _first_from_vm(self, port: Port, key: Key | None, end: int, only: bytes | None = None) -> None:
        if port.vsid and self._buffer.data[_TYPE_HIGH] in _TAG_HIGH:
            try:
                end = self._buffer.untag(end)
            except MalformedFrame:
                count(self.drops, PORT, port.name, port.vsid, Drop.MALFORMED)
                return
        packet = Packet(self._buffer.view[INNER:end], port, port.vsid, self._buffer.vnet)
        packet.only = only
        action = self._decide(packet, self.pipeline.outbound, port.name, INNER, end)
        if action is None:
            return
        if key and packet.cacheable and not packet.waiting and _cacheable(key):
            _remember(port.flows, key, action)
        action(end)

    def _first_from_wire(self, uplink: Uplink, end: int) -> None:
        if end >= SIZE:
            count(self.drops, NIC, uplink.name, 0, Drop.MALFORMED)
            return
        buffer = self._buffer
        packet = Packet(buffer.view[WIRE:end], uplink, vnet=buffer.vnet)
        action = self._decide(packet, self.pipeline.inbound, uplink.name, WIRE, end)
        if action is None:
            return
        if packet.outer is not None:
            end = WIRE + packet.outer.length  # without Ethernet padding
            if packet.cacheable and (key := self._key_of_wire(packet.outer.header, end)):
                _remember(uplink.flows, key, action)
        action(end)

    def _decide(
        self, packet: Packet, path: Callable[[Packet], None], source: str, start: int, end: int
    ) -> Action | None:
        """The action for a packet, or None when all of it was answered or has to wait."""
        path(packet)
        for frame in packet.replies:
            self._answer(packet, frame)
        for next_hop in dict.fromkeys(packet.waiting):
            copies = packet.waiting.count(next_hop)
            self._hold(next_hop, source, packet.vsid, copies, self._buffer.store(start, end))
        actions = self._compile(packet, start)
        if not actions:
            return None
        return actions[0] if len(actions) == 1 else Replicate(self._buffer, actions)

    def _answer(self, packet: Packet, frame: bytes) -> None:
        port = packet.source
        assert isinstance(port, Port)
        if not port.send(frame):
            count(self.drops, PORT, port.name, port.vsid, Drop.PORT_REFUSED)

    def _compile(self, packet: Packet, start: int) -> list[Action]:
        buffer, drops, name = self._buffer, self.drops, packet.source.name
        actions: list[Action] = []
        for port in packet.ports:
            deliver = delivery(buffer, start, packet, port, drops)
            if packet.outer is None and packet.translation and packet.translation.next_hop is None:
                deliver = self._translate(packet, packet.translation, start, packet.macs, deliver)
            actions.append(deliver)
        actions.extend(Discard(drops, stage, name, packet.vsid, reason) for stage, reason in packet.lost)
        if not (packet.to_wire or packet.tunnels or packet.outward):
            return actions
        if packet.egress is None:
            copies = len(packet.tunnels) or 1
            actions.extend([Discard(drops, TEAM, name, packet.vsid, Drop.NO_UPLINK)] * copies)
        else:
            actions.append(packet.egress.through(partial(self._leave, packet)))
        return actions

    def _leave(self, packet: Packet, uplink: Uplink, mac: bytes) -> Action:
        """All copies of a packet that leave, through one NIC, under a MAC of the team's (none: their own)."""
        actions = [self._encapsulate(packet, tunnel, uplink, mac) for tunnel in packet.tunnels]
        if packet.to_wire:
            actions.insert(0, self._to_wire(uplink, packet.source.name, 0, mac))
        if packet.outward:  # last, for it changes more of the buffer than the MACs
            actions.append(self._to_wire_translated(packet, packet.outward, uplink, mac))
        return actions[0] if len(actions) == 1 else Replicate(self._buffer, actions)

    def _encapsulate(self, packet: Packet, tunnel: Tunnel, uplink: Uplink, mac: bytes) -> Action:
        name, vsid = packet.source.name, packet.vsid
        neighbor = self.state.neighbor(tunnel.next_hop)
        if neighbor is None:  # the filter holds such packets: lost in between
            return Discard(self.drops, WNV, name, vsid, Drop.PA_UNREACHABLE)
        outer = nvgre.template(
            neighbor, mac or uplink.mac, tunnel.source_pa, tunnel.destination_pa, tunnel.vsid, tunnel.flow_id
        )
        over_ipv4 = len(tunnel.source_pa) == 4
        kind = Encapsulate if over_ipv4 else EncapsulateIPv6
        oversize = Oversize(
            self._buffer,
            Discard(self.drops, WNV, name, vsid, Drop.OVERSIZE),
            packet.source if isinstance(packet.source, Port) else None,
            uplink.mtu - (nvgre.OVERHEAD_IPV4 if over_ipv4 else nvgre.OVERHEAD_IPV6),
            packet.gateway,
        )
        send = kind(self._buffer, outer, packet.macs, uplink, self.drops, tunnel.vsid, oversize)
        if uplink.nvgre.lso and uplink.nvgre.tx_checksum:
            return send
        limit = uplink.mtu - len(outer) + 14
        return self._in_software(send, uplink, tunnel.vsid, oversize, outer + packet.macs, limit)

    def _to_wire(self, uplink: Uplink, name: str, vsid: int, mac: bytes = b"") -> Action:
        send = ToWire(self._buffer, uplink, self.drops, vsid, mac)
        if uplink.plain.lso and uplink.plain.tx_checksum:
            return send
        too_long = Discard(self.drops, NIC, name, vsid, Drop.TX_OVERSIZE)
        return self._in_software(send, uplink, vsid, too_long, b"", uplink.mtu + 14)

    def _in_software(
        self, send: Action, uplink: Uplink, vsid: int, oversize: Action, header: bytes, limit: int
    ) -> Action:
        """An action for a NIC that lacks an offload."""
        from testbed.switch.segmentation import Segmenter  # a host whose NICs do all of it saves these
        from testbed.switch.software import SoftwareOffload

        if self._segmenter is None:
            self._segmenter = Segmenter(self._buffer)
        return SoftwareOffload(
            self._buffer,
            self._segmenter,
            send,
            uplink,
            self.drops,
            header=header,
            vsid=vsid,
            limit=limit,
            oversize=oversize,
        )

    def _to_wire_translated(
        self, packet: Packet, translation: Translation, uplink: Uplink, mac: bytes
    ) -> Action:
        assert translation.next_hop is not None
        neighbor = self.state.neighbor(translation.next_hop)
        if neighbor is None:
            return Discard(self.drops, WNV, packet.source.name, packet.vsid, Drop.PA_UNREACHABLE)
        send = self._to_wire(uplink, packet.source.name, packet.vsid)
        return self._translate(packet, translation, INNER, neighbor + (mac or uplink.mac), send)

    def _translate(
        self, packet: Packet, translation: Translation, start: int, macs: bytes, send: Action
    ) -> Action:
        malformed = Discard(self.drops, WNV, packet.source.name, packet.vsid, Drop.MALFORMED)
        addresses = translation.source, translation.destination
        return Translate(self._buffer, start, macs, addresses, send, malformed)

    # ---- packets that a test sends ----------------------------------------------------------

    def inject(self, port: Port, frame: bytes) -> Packet:
        """Send a frame as if the VM had; what the stages have decided about it."""
        end = self._buffer.restore(INNER, bytes(VNET_HEADER.size), frame)
        packet = Packet(self._buffer.view[INNER:end], port, port.vsid, self._buffer.vnet)
        packet.injected = True
        action = self._decide(packet, self.pipeline.outbound, port.name, INNER, end)
        if action is not None:
            action(end)
        self._flush()
        return packet

    # ---- packets that wait for a PA neighbor ----------------------------------------------

    def _hold(
        self, next_hop: bytes, source: str, vsid: int, copies: int, stored: tuple[bytes, bytes]
    ) -> None:
        waiting = self.held.setdefault(next_hop, [])
        if len(waiting) >= HELD_PER_NEXT_HOP:
            count(self.drops, WNV, source, vsid, Drop.PA_UNREACHABLE, copies)
            return
        waiting.append((source, copies, *stored))
        if len(waiting) == 1:
            self._unresolved(next_hop)

    def neighbor(self, next_hop: bytes, mac: bytes | None) -> None:
        """A PA next hop is resolved, changed, or (None) does not answer: send or drop what waits."""
        if mac is None:
            self.state.neighbors.pop(next_hop, None)
        else:
            self.state.neighbors[next_hop] = mac
        self.state.forget_flows()
        for source, copies, vnet, frame in self.held.pop(next_hop, ()):
            port = self.state.ports.get(source)
            if port is None:
                count(self.drops, PORT, source, 0, Drop.PORT_REMOVED, copies)
            elif mac is None:
                count(self.drops, WNV, source, port.vsid, Drop.PA_UNREACHABLE, copies)
            else:
                self._first_from_vm(port, None, self._buffer.restore(INNER, vnet, frame), next_hop)
        self._flush()


def _key_inspected(data: bytearray, at: int) -> Key | None:
    """The key of a frame of NVGRE over IPv4 with its inner flow, if it has one."""
    end = _IP_START + (data[_LENGTH_HIGH] << 8 | data[_LENGTH_LOW])
    inner = _inner_key(data, WIRE + nvgre.OUTER_IPV4, end)
    return (_key_nvgre(data, at), inner) if inner else None


def _inner_key(data: bytearray, at: int, end: int) -> Key | None:
    """The key of the packet at ``at``, as one from a VM would have it."""
    kind = data[at + 12] << 8 | data[at + 13]
    key: Key
    if kind == ethernet.TYPE_IPV4 and end - at >= _END_IPV4 - INNER:
        key = _key_ipv4(data, at)
    elif kind == ethernet.TYPE_IPV6 and end - at >= _END_IPV6 - INNER:
        key = _key_ipv6(data, at)
    else:
        return None
    return key if _cacheable(key) else None


def _cacheable(key: Key) -> bool:
    if len(key) == 4:
        head, fragment, protocol, _ = key
        assert isinstance(head, bytes)
        assert isinstance(fragment, int)
        return protocol in _TRANSPORTS and not fragment & _FRAGMENT and head[12:] == _V4_HEAD
    return key[1] in _TRANSPORTS


def _remember(flows: Flows, key: Key, action: Action) -> None:
    if len(flows) >= FLOWS:
        flows.clear()
    flows[key] = action
