"""What comes from the wire: whether it is for this host's virtual subnets, and from one who may send."""

from __future__ import annotations

from testbed.packets import ethernet, nvgre
from testbed.switch.drops import Drop
from testbed.switch.packet import Packet, Verdict
from testbed.switch.state import SwitchState
from testbed.wnv import mismatch
from testbed.wnv.tables import Tables

_TAGGED = (ethernet.TYPE_VLAN, ethernet.TYPE_QINQ)
_CARRIED = (ethernet.TYPE_IPV4, ethernet.TYPE_IPV6, ethernet.TYPE_ARP)


def is_tunnelled(state: SwitchState, packet: Packet) -> bool:
    """Whether a frame from the wire is GRE for the filter; GRE for a VSID-0 port is the VM's own affair."""
    if not nvgre.carries_gre(packet.frame):
        return False
    return state.port_with_mac(0, bytes(packet.frame[:6])) is None


def decapsulate(state: SwitchState, tables: Tables, packet: Packet) -> Verdict:
    """Give an NVGRE packet its ``outer`` and VSID, or refuse it. Raises MalformedFrame."""
    outer = packet.outer = nvgre.parse(packet.frame)
    if outer.vsid in tables.rdid_of:  # else anybody could make counters of any VSID
        packet.vsid = outer.vsid
    if not _is_for_us(state, tables, outer):
        return Drop.PA_NOT_LOCAL
    if outer.source_pa in tables.own_pas:
        return Drop.OWN_PACKET
    inner = packet.frame[outer.header : outer.length]
    if not tables.knows_sender(outer.vsid, outer.source_pa):
        ca = mismatch.inner_source(inner)
        mismatch.report(state, packet.source.name, outer.vsid, ca, outer.source_pa)
        return Drop.POLICY_MISMATCH
    kind = ethernet.ethertype(inner)
    if kind in _TAGGED:
        return Drop.INNER_TAGGED
    return None if kind in _CARRIED else Drop.NOT_IP


def _is_for_us(state: SwitchState, tables: Tables, outer: nvgre.Outer) -> bool:
    if outer.destination_pa in tables.local_pas:
        return True
    return tables.is_group(outer.vsid, outer.destination_pa) and bool(state.ports_of(outer.vsid))
