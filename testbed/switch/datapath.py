"""The hot path: read, look the flow up, act. And the full path for a flow's first packet.

A flow's key is everything in the headers that the pipeline's decision can depend on. TCP and UDP
over plain IPv4 and IPv6 have one, as has every NVGRE frame; anything else (ARP, ND, ICMP,
fragments, IP options, what is too short) takes the full path each time.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from testbed.packets import nvgre
from testbed.packets.malformed import MalformedFrame
from testbed.switch.actions import (
    Decapsulate,
    Deliver,
    Discard,
    DropCounts,
    Encapsulate,
    Replicate,
    ToWire,
)
from testbed.switch.buffer import INNER, SIZE, WIRE, Action, Flows, FrameBuffer
from testbed.switch.drops import Drop
from testbed.switch.packet import Hold, Packet, Reply, Verdict
from testbed.switch.pipeline import Pipeline
from testbed.switch.port import Port
from testbed.switch.state import SwitchState
from testbed.switch.uplink import Uplink

BATCH = 32  # packets per wake-up and descriptor, so that no one starves the others
FLOWS = 16384  # cached flows per port or NIC; a full cache is emptied
HELD_PER_NEXT_HOP = 64  # packets that wait for one unresolved PA next hop

# IPv4 from the frame's start: MACs, type, version/IHL | fragment field | protocol | addresses, ports
_key_ipv4 = struct.Struct("!15s5xHxB2x12s").unpack_from
_END_IPV4 = INNER + 38
# IPv6: MACs, type | next header | addresses, ports
_key_ipv6 = struct.Struct("!14s6xBx36s").unpack_from
_END_IPV6 = INNER + 58
# NVGRE: outer destination MAC | type, version/IHL | fragment field | protocol | PAs | GRE | VSID |
# inner destination MAC | inner type
_key_nvgre = struct.Struct("!6s6x3s5xHxB2x8s4s3sx6s6x2s").unpack_from
_END_NVGRE = WIRE + nvgre.OUTER + 14
_TRANSPORTS = (6, 17)
_FRAGMENT = 0x3FFF
_TYPE_HIGH, _TYPE_LOW = INNER + 12, INNER + 13
_LENGTH_HIGH, _LENGTH_LOW = WIRE + nvgre.LENGTH_AT, WIRE + nvgre.LENGTH_AT + 1
_IP_START, _IP_END = WIRE + 14, WIRE + 34
_V4_HEAD = b"\x08\x00\x45"


class Datapath:
    """The switch of one worker. ``unresolved`` is called with each PA next hop that needs resolving."""

    def __init__(self, state: SwitchState, pipeline: Pipeline, unresolved: Callable[[bytes], None]) -> None:
        self.state = state
        self.drops: DropCounts = {}
        self._buffer = FrameBuffer()
        self._unresolved = unresolved
        self._held: dict[bytes, list[tuple[str, bytes, bytes]]] = {}
        self._pipeline = pipeline

    # ---- hot path -------------------------------------------------------------------------

    def drain_port(self, port: Port) -> None:
        """Take up to a batch of packets from a VM."""
        data, parts = self._buffer.data, self._buffer.from_vm
        descriptor, flows = port.descriptor, port.flows
        readv, key_ipv4 = os.readv, _key_ipv4
        for _ in range(BATCH):
            try:
                end = readv(descriptor, parts) + nvgre.OUTER
            except OSError:  # nothing there, or the VM's NIC is down
                return
            port.from_vm_packets += 1
            port.from_vm_bytes += end - INNER
            key: tuple[object, ...] | None
            if data[_TYPE_HIGH] == 8 and data[_TYPE_LOW] == 0 and end >= _END_IPV4:
                key = key_ipv4(data, INNER)
            else:
                key = self._other_key(end)
            action = flows.get(key) if key else None
            if action is None:
                self._first_from_vm(port, key, end)
            else:
                action(end)

    def drain_uplink(self, uplink: Uplink) -> None:
        """Take up to a batch of frames from a NIC."""
        buffer = self._buffer
        data, view = buffer.data, buffer.view
        receive_into, flows = uplink.receive_into, uplink.flows
        key_nvgre, from_bytes = _key_nvgre, int.from_bytes
        for _ in range(BATCH):
            try:
                end = receive_into(view)
            except OSError:  # nothing there, or the cable is gone
                return
            uplink.rx_packets += 1
            uplink.rx_bytes += end - WIRE
            action = None
            # Not in the key, as they differ per packet: length and checksum (0 modulo 0xFFFF if right)
            if (
                end >= _END_NVGRE
                and data[_LENGTH_HIGH] << 8 | data[_LENGTH_LOW] == end - _IP_START
                and not from_bytes(data[_IP_START:_IP_END], "big") % 0xFFFF
            ):
                action = flows.get(key_nvgre(data, WIRE))
            if action is None:
                self._first_from_wire(uplink, end)
            else:
                action(end)

    # ---- full path ------------------------------------------------------------------------

    def _other_key(self, end: int) -> tuple[object, ...] | None:
        data = self._buffer.data
        if data[_TYPE_HIGH] == 0x86 and data[_TYPE_LOW] == 0xDD and end >= _END_IPV6:
            return _key_ipv6(data, INNER)
        return None

    def _first_from_vm(
        self, port: Port, key: tuple[object, ...] | None, end: int, only: bytes | None = None
    ) -> None:
        packet = Packet(self._buffer.view[INNER:end], port)
        packet.only = only
        action = self._decide(packet, self._pipeline.outbound, port.name, INNER, end)
        if action is None:
            return
        if key and not packet.waiting and _cacheable(key):
            _remember(port.flows, key, action)
        action(end)

    def _first_from_wire(self, uplink: Uplink, end: int) -> None:
        if end >= SIZE:
            Discard(self.drops, uplink.name, Drop.MALFORMED)(end)
            return
        buffer = self._buffer
        packet = Packet(buffer.view[WIRE:end], uplink)
        action = self._decide(packet, self._pipeline.inbound, uplink.name, WIRE, end)
        if action is None:
            return
        if packet.outer is not None:
            end = WIRE + packet.outer.length  # without Ethernet padding
            _remember(uplink.flows, _key_nvgre(buffer.data, WIRE), action)
        action(end)

    def _decide(
        self, packet: Packet, path: Callable[[Packet], Verdict], source: str, start: int, end: int
    ) -> Action | None:
        """The action for a packet, or None when it was answered or has to wait."""
        try:
            verdict = path(packet)
        except MalformedFrame:
            verdict = Drop.MALFORMED
        if isinstance(verdict, Drop):
            return Discard(self.drops, source, verdict)
        if isinstance(verdict, Reply):
            if not self.state.ports[source].send(verdict.frame):
                return Discard(self.drops, source, Drop.PORT_REFUSED)
            return None
        if isinstance(verdict, Hold):
            self._hold(verdict.next_hop, source, start, end)
            return None
        for next_hop in packet.waiting:
            self._hold(next_hop, source, start, end)
        actions = self._compile(packet, start)
        return actions[0] if len(actions) == 1 else Replicate(self._buffer, actions)

    def _compile(self, packet: Packet, start: int) -> list[Action]:
        buffer, drops = self._buffer, self.drops
        actions: list[Action] = []
        for port in packet.ports:
            if packet.outer is not None:
                actions.append(Decapsulate(buffer, port, drops))
            else:
                actions.append(Deliver(buffer, start, packet.macs, port, drops))
        actions.extend(Discard(drops, packet.source.name, reason) for reason in packet.lost)
        if packet.uplink is None:
            if packet.tunnels or packet.to_wire:
                actions.append(Discard(drops, packet.source.name, Drop.NO_UPLINK))
            return actions
        if packet.to_wire:
            actions.append(ToWire(buffer, packet.uplink, drops))
        for tunnel in packet.tunnels:
            outer = nvgre.template(
                self.state.neighbors[tunnel.next_hop],
                packet.uplink.mac,
                tunnel.source_pa,
                tunnel.destination_pa,
                tunnel.vsid,
                tunnel.flow_id,
            )
            actions.append(Encapsulate(buffer, outer, packet.macs, packet.uplink, drops))
        return actions

    # ---- packets that wait for a PA neighbor ----------------------------------------------

    def _hold(self, next_hop: bytes, source: str, start: int, end: int) -> None:
        waiting = self._held.setdefault(next_hop, [])
        if len(waiting) >= HELD_PER_NEXT_HOP:
            Discard(self.drops, source, Drop.PA_UNREACHABLE)(end)
            return
        waiting.append((source, *self._buffer.store(start, end)))
        if len(waiting) == 1:
            self._unresolved(next_hop)

    def neighbor(self, next_hop: bytes, mac: bytes | None) -> None:
        """A PA next hop is resolved, changed, or (None) does not answer: send or drop what waits."""
        if mac is None:
            self.state.neighbors.pop(next_hop, None)
        else:
            self.state.neighbors[next_hop] = mac
        self.state.forget_flows()
        for source, vnet, frame in self._held.pop(next_hop, ()):
            port = self.state.ports.get(source)
            end = self._buffer.restore(INNER, vnet, frame)
            if mac is None:
                Discard(self.drops, source, Drop.PA_UNREACHABLE)(end)
            elif port is None:
                Discard(self.drops, source, Drop.PORT_REMOVED)(end)
            else:
                self._first_from_vm(port, None, end, next_hop)


def _cacheable(key: tuple[object, ...]) -> bool:
    if len(key) == 4:
        head, fragment, protocol, _ = key
        assert isinstance(head, bytes)
        assert isinstance(fragment, int)
        return protocol in _TRANSPORTS and not fragment & _FRAGMENT and head[12:] == _V4_HEAD
    return key[1] in _TRANSPORTS


def _remember(flows: Flows, key: tuple[object, ...], action: Action) -> None:
    if len(flows) >= FLOWS:
        flows.clear()
    flows[key] = action
