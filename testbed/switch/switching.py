"""Switching by MAC address, inside a virtual subnet: what a switch does when nobody decides for it.

A stage of its own where the WNV filter lies below the switch (Windows Server 2012, hnv.md section 6.2).
Elsewhere the filter uses the same functions for ports with VSID 0, which it leaves alone.
"""

from __future__ import annotations

from testbed.packets import datagram
from testbed.switch.drops import Drop
from testbed.switch.packet import Packet, Verdict
from testbed.switch.pipeline import SWITCHING
from testbed.switch.port import Port
from testbed.switch.state import SwitchState

GROUP_BIT = 1  # of a MAC's first byte: broadcast and multicast


class SwitchingStage:
    """A known MAC goes to its port, groups to all ports and the uplink, anything else to the uplink."""

    name = SWITCHING

    def __init__(self, state: SwitchState) -> None:
        self._state = state

    def outbound(self, packet: Packet) -> Verdict:
        """From a VM. ``to_wire`` means the filter below: it says what becomes of this copy."""
        switch_from_vm(self._state, packet)
        return None

    def inbound(self, packet: Packet) -> Verdict:
        """From the filter, decapsulated, or outside virtual subnets."""
        return None if packet.ports else switch_from_wire(self._state, packet)


def switch_from_vm(state: SwitchState, packet: Packet) -> None:
    """Find the ports of a VM's packet, and whether a copy goes to the wire, by its destination MAC."""
    if packet.directed:
        return
    destination = bytes(packet.frame[:6])
    if destination[0] & GROUP_BIT:
        if packet.only is None:
            packet.ports = other_ports(state, packet)
        packet.to_wire = True
    elif port := state.port_with_mac(packet.vsid, destination):
        packet.ports = (port,)
    else:
        packet.to_wire = True


def switch_from_wire(state: SwitchState, packet: Packet) -> Verdict:
    """Find the ports of a packet from the wire by the destination MAC of its CA frame."""
    if packet.directed:
        return None
    start = packet.outer.header if packet.outer else 0
    destination = bytes(packet.frame[start : start + 6])
    if destination[0] & GROUP_BIT:
        packet.ports = state.ports_of(packet.vsid)
    elif port := state.port_with_mac(packet.vsid, destination):
        packet.ports = (port,)
    if packet.ports or packet.vsid:
        return None  # the last stage names a virtual subnet's packet that nobody takes
    # PA space is control's, which has a socket of its own
    return Drop.NEIGHBOR_CONSUMED if datagram.is_of_pa_space(packet.frame) else Drop.NOT_NVGRE


def other_ports(state: SwitchState, packet: Packet) -> tuple[Port, ...]:
    """The ports of the packet's virtual subnet but for the one that it came from."""
    return tuple(port for port in state.ports_of(packet.vsid) if port is not packet.source)
