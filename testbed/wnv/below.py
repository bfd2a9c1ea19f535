"""The WNV filter below the switch, as Windows Server 2012 has it (hnv.md section 6.2).

The switch has switched by MAC address already; the filter takes what goes to the uplink, on the NICs
that it is bound to. It answers every ARP request from the records, routes IP by destination CA as the
filter inside the switch does, and drops the rest: flooded frames, unknown MACs, what is not IP. It
learns nothing and uses no PA groups. Multicast neighbor solicitations are answered as ARP is (chosen).
What it drops or answers is the uplink's copy; ports of this host have got theirs from the switch.
"""

from __future__ import annotations

from testbed.packets import arp, ethernet, ndp
from testbed.switch.drops import Drop
from testbed.switch.packet import Packet, Reply, Verdict
from testbed.switch.switching import GROUP_BIT
from testbed.switch.uplink import Uplink
from testbed.wnv import neighbors
from testbed.wnv.base import Filter
from testbed.wnv.decapsulation import decapsulate, is_tunnelled
from testbed.wnv.tables import Record
from testbed.wnv.translation import from_outside, ip_addresses


class FilterBelow(Filter):
    """Between the switch and the team. ``to_wire`` of a packet with a VSID means: for this filter."""

    def outbound(self, packet: Packet) -> Verdict:
        """The uplink's copy of a VM's packet, if an extension has left it. VSID 0 passes untouched."""
        if packet.vsid == 0 or not packet.to_wire:
            return None
        packet.to_wire = False
        return self._decide(packet)

    def inbound(self, packet: Packet) -> Verdict:
        """A frame from the wire: what is for a virtual subnet is decapsulated; the switch finds the port."""
        if is_tunnelled(self._state, packet):
            if not _is_bound(packet.source):
                return Drop.WNV_UNBOUND
            return decapsulate(self._state, self.tables, packet)
        return from_outside(self._state, self.tables, packet) if _is_bound(packet.source) else None

    def _decide(self, packet: Packet) -> Verdict:
        active = [self._state.uplinks[name] for name in self._state.roles.active]
        if not active:
            return Drop.NO_UPLINK
        if not any(uplink.wnv_binding for uplink in active):
            return Drop.WNV_UNBOUND
        kind = ethernet.ethertype(packet.frame)
        if kind == ethernet.TYPE_ARP:
            return self._arp(packet)
        if kind == ethernet.TYPE_IPV6:
            verdict = self._nd(packet)
            if verdict is not None:
                return verdict
        if packet.frame[0] & GROUP_BIT:
            return Drop.FLOODED
        if kind not in (ethernet.TYPE_IPV4, ethernet.TYPE_IPV6):
            return Drop.NOT_IP
        if not self.tables.knows_mac(packet.vsid, bytes(packet.frame[:6])):
            return Drop.UNKNOWN_MAC
        _, destination = ip_addresses(packet.frame)
        if not destination:
            return Drop.MALFORMED
        self._forwarding.name_gateway(packet, len(destination))
        return self._forwarding.unicast(packet, destination)

    def _arp(self, packet: Packet) -> Reply | Drop:
        message = arp.parse(packet.frame)
        record = self.tables.records.get((packet.vsid, message.target_ip))
        return (
            Drop.NEIGHBOR_CONSUMED if self._hears(packet, record) else neighbors.answer_arp(message, record)
        )

    def _nd(self, packet: Packet) -> Reply | Drop | None:
        kind = ndp.icmpv6_type(packet.frame)
        if kind not in (ndp.NEIGHBOR_SOLICITATION, ndp.NEIGHBOR_ADVERTISEMENT):
            return None
        message = ndp.parse(packet.frame)
        record = self.tables.records.get((packet.vsid, message.target))
        if self._hears(packet, record):
            return Drop.NEIGHBOR_CONSUMED
        return neighbors.answer_nd(message, record, packet.frame)

    def _hears(self, packet: Packet, record: Record | None) -> bool:
        """Whether the record's VM is among the local ports that got the packet: it answers by itself."""
        return record is not None and any(port.mac == record.mac for port in packet.ports)


def _is_bound(nic: object) -> bool:
    return isinstance(nic, Uplink) and nic.wnv_binding
