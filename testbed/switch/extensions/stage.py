"""The two places where a switch runs its extensions: what they are shown there, and what comes of it.

In 2012 R2 mode the WNV filter lies between them, so that the uplink's side sees NVGRE; below the
switch (2012) it lies behind both, and no extension sees anything but customer addresses.
"""

from __future__ import annotations

import struct
from contextlib import suppress

from testbed.packets import nvgre
from testbed.packets.checksum import Buffer, checksum
from testbed.packets.malformed import MalformedFrame
from testbed.packets.translate import replace_addresses
from testbed.switch.buffer import GSO_NONE, NEEDS_CSUM, VNET_HEADER
from testbed.switch.extensions.api import Frame, Offload
from testbed.switch.extensions.stack import Stack
from testbed.switch.packet import Packet, Tunnel, Verdict
from testbed.switch.pipeline import PORT_EXTENSIONS, UPLINK_EXTENSIONS
from testbed.switch.state import SwitchState
from testbed.topology.schema import WnvMode


class PortExtensions:
    """On the ports' side: ingress of what VMs send, egress of what they get."""

    name = PORT_EXTENSIONS

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def outbound(self, packet: Packet) -> Verdict:
        """Ingress, from a VM. A packet that had to wait for a PA neighbor has been here before."""
        if not self._stack.extensions or packet.only is not None:
            return None
        return self._stack.ingress(packet, _frame(packet, _entered(packet)))

    def inbound(self, packet: Packet) -> Verdict:
        """Egress, once for each port in ``packet.ports``. A denied copy is lost, the others go on."""
        if not self._stack.extensions:
            return None
        inner, kept = _leaving(packet), []
        for port in packet.ports:
            frame = _frame(packet, inner, vsid=port.vsid, destination=port.name)
            if reason := self._stack.egress(packet, frame):
                packet.lost += ((self.name, reason),)
            else:
                kept.append(port)
        packet.ports = tuple(kept)
        return None


class UplinkExtensions:
    """On the uplink's side: egress of what leaves the host, ingress of what comes from it."""

    name = UPLINK_EXTENSIONS

    def __init__(self, stack: Stack, state: SwitchState, mode: WnvMode = "in-switch") -> None:
        self._stack = stack
        self._state = state
        self._sees_pa = mode == "in-switch"

    def outbound(self, packet: Packet) -> Verdict:
        """Egress, once for each copy that leaves. A denied one is lost, the others go on."""
        roles = self._state.roles
        if not self._stack.extensions or not roles.active:  # without a NIC nothing leaves
            return None
        if not self._sees_pa and packet.only is not None:
            return None  # it passed here before the filter found its PA neighbor unresolved
        inner = _leaving(packet)  # once: it may be a copy of 64 KB, and there may be many tunnels
        if self._sees_pa:
            packet.tunnels = tuple(
                each for each in packet.tunnels if self._tunnel_passes(packet, inner, each)
            )
        if (packet.to_wire or packet.translation) and not self._passes(
            packet, _frame(packet, inner, destination=roles.plan.primary)
        ):
            packet.to_wire, packet.translation = False, None
        return None

    def inbound(self, packet: Packet) -> Verdict:
        """Ingress, from the wire."""
        if not self._stack.extensions:
            return None
        if not self._sees_pa:
            return self._stack.ingress(packet, _frame(packet, _leaving(packet)))
        if not nvgre.carries_gre(packet.frame) or self._state.port_with_mac(0, bytes(packet.frame[:6])):
            return self._stack.ingress(packet, _frame(packet, _entered(packet)))
        try:
            outer = nvgre.parse(packet.frame)
        except MalformedFrame:  # the filter, which comes next, drops it
            return None
        packet.outer = outer  # so that a denied flow is remembered
        if self._state.ports_of(outer.vsid):  # others' VSIDs would make counters of their own
            packet.vsid = outer.vsid
        whole = _entered(packet)
        offload = _offload(packet.vnet)
        frame = Frame(
            "PA",
            whole[: outer.header],
            whole[outer.header : outer.length],
            outer.vsid,
            packet.source.name,
            offload=offload,
        )
        return self._stack.ingress(packet, frame)

    def _tunnel_passes(self, packet: Packet, inner: memoryview, tunnel: Tunnel) -> bool:
        outer = _outer(self._state, tunnel, len(inner))
        offload, team = _offload(packet.vnet), self._state.roles.plan.primary
        return self._passes(packet, Frame("PA", outer, inner, tunnel.vsid, packet.source.name, team, offload))

    def _passes(self, packet: Packet, frame: Frame) -> bool:
        reason = self._stack.egress(packet, frame)
        if reason:
            packet.lost += ((self.name, reason),)
        return not reason


def _frame(packet: Packet, inner: memoryview, *, vsid: int | None = None, destination: str = "") -> Frame:
    """A packet in CA space."""
    known = packet.vsid if vsid is None else vsid
    return Frame("CA", b"", inner, known, packet.source.name, destination, _offload(packet.vnet))


def _entered(packet: Packet) -> memoryview:
    """The whole frame as it came in."""
    return memoryview(packet.frame).toreadonly()


def _leaving(packet: Packet) -> memoryview:
    """The CA frame as it leaves; copied only if that differs from how it came."""
    whole = _entered(packet)
    if packet.outer is not None:
        whole = whole[packet.outer.header : packet.outer.length]
    turned = packet.translation if packet.translation and packet.translation.next_hop is None else None
    if not turned and (not packet.macs or whole[:12] == packet.macs):
        return whole
    changed = memoryview(bytearray(whole))
    if packet.macs:
        changed[:12] = packet.macs
    if turned:  # from the wire: what the VM will see has customer addresses
        with suppress(MalformedFrame):  # it is dropped when it is translated
            replace_addresses(changed, turned.source, turned.destination)
    return changed.toreadonly()


def _outer(state: SwitchState, tunnel: Tunnel, inner_length: int) -> bytes:
    """The outer header of a copy for a tunnel, before the team, which may rewrite its source MAC.

    A 64-KB inner frame is beyond the length's range.
    """
    next_hop = state.neighbor(tunnel.next_hop)
    assert next_hop is not None  # else the filter would have held the packet
    own = state.roles.home_mac(tunnel.source_pa)
    outer = bytearray(
        nvgre.template(next_hop, own, tunnel.source_pa, tunnel.destination_pa, tunnel.vsid, tunnel.flow_id)
    )
    length = len(outer) - 14 + inner_length
    if len(tunnel.source_pa) == 4:
        struct.pack_into("!H", outer, nvgre.LENGTH_AT, min(length, 0xFFFF))
        struct.pack_into("!H", outer, nvgre.CHECKSUM_AT, checksum(outer[14:34]))
    else:
        struct.pack_into("!H", outer, nvgre.PAYLOAD_LENGTH_AT, min(length - 40, 0xFFFF))
    return bytes(outer)


def _offload(vnet: Buffer) -> Offload:
    if len(vnet) < VNET_HEADER.size:
        return Offload()
    flags, gso_type, _, gso_size, _, _ = VNET_HEADER.unpack_from(vnet)
    return Offload(gso_size if gso_type != GSO_NONE else 0, bool(flags & NEEDS_CSUM))
