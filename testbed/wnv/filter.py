"""The WNV filter inside the switch, as Windows Server 2012 R2 has it (hnv.md section 6.1).

It takes every packet of a port with a VSID: ARP and ND are answered, groups flooded, all other IP
forwarded by destination CA (:mod:`testbed.wnv.forwarding`), the rest dropped. With ``learning`` it notices
on the way which addresses the VMs use.
"""

from __future__ import annotations

from testbed.packets import ethernet
from testbed.switch.drops import Drop
from testbed.switch.packet import Packet, Verdict
from testbed.switch.switching import GROUP_BIT, switch_from_vm, switch_from_wire
from testbed.wnv import neighbors
from testbed.wnv.base import Filter
from testbed.wnv.decapsulation import decapsulate, is_tunnelled
from testbed.wnv.learning import Learning
from testbed.wnv.neighbors import Flood, Inside
from testbed.wnv.tables import EVERYONE, is_multicast
from testbed.wnv.translation import from_outside, ip_addresses


class WnvFilter(Filter):
    """Encapsulates, decapsulates, answers for neighbors. ``learning``: who notices addresses, if anybody."""

    learning: Learning | None = None

    def outbound(self, packet: Packet) -> Verdict:
        """A VM's packet: find where its destination CA lives. VSID 0 is plain layer 2."""
        if packet.vsid == 0:
            switch_from_vm(self._state, packet)
            return None
        if self.learning is not None and self.learning.sent(self.tables, packet):
            return Drop.NEIGHBOR_CONSUMED
        kind = ethernet.ethertype(packet.frame)
        if kind == ethernet.TYPE_ARP:
            return self._pass_on(packet, neighbors.resolve_arp(self.tables, packet))
        if kind not in (ethernet.TYPE_IPV4, ethernet.TYPE_IPV6):
            return Drop.NOT_IP
        _, destination = ip_addresses(packet.frame)
        if not destination:
            return Drop.MALFORMED
        if kind == ethernet.TYPE_IPV6:
            answer = neighbors.resolve_nd(self.tables, packet)
            if answer is not None:
                return self._pass_on(packet, answer)
        self._forwarding.name_gateway(packet, len(destination))
        if packet.frame[0] & GROUP_BIT or is_multicast(destination) or destination == EVERYONE[4]:
            return self._forwarding.flood(packet, destination)
        return self._forwarding.unicast(packet, destination)

    def inbound(self, packet: Packet) -> Verdict:
        """A frame from the wire: for one of this host's PAs, or for a VSID-0 port."""
        if is_tunnelled(self._state, packet):
            verdict = decapsulate(self._state, self.tables, packet)
        else:
            verdict = from_outside(self._state, self.tables, packet)
        if verdict is not None or packet.ports:
            return verdict
        return switch_from_wire(self._state, packet)

    def delivered(self, packet: Packet) -> None:
        """A packet reaches its ports: it may give one of them an address."""
        if self.learning is not None and packet.vsid:
            self.learning.delivered(self.tables, packet)

    def _pass_on(self, packet: Packet, answer: neighbors.Answer) -> Verdict:
        if isinstance(answer, Flood):
            return self._forwarding.flood(packet, answer.address)
        if isinstance(answer, Inside):
            return self._forwarding.inside(packet, answer.address)
        return answer
