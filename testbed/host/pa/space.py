"""The PA space of a host on its team: PAs, neighbors, groups and ping behind one socket."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable

from testbed.host.pa import wire
from testbed.host.pa.addresses import Addresses, AddressState, text
from testbed.host.pa.echo import Echoes
from testbed.host.pa.groups import Groups, link_local
from testbed.host.pa.link import TeamLink
from testbed.host.pa.neighbors import Neighbors
from testbed.host.pa.timers import PaTimers
from testbed.packets import datagram, ethernet, icmp_echo, igmp, mld, ndp, redirect
from testbed.packets.datagram import Datagram
from testbed.packets.malformed import MalformedFrame
from testbed.switch.roles import Roles
from testbed.telemetry import EventLog


class PaSpace:
    """``on_neighbor(pa, mac or None)`` and ``on_state()`` report changes; PAs are 4 or 16 bytes there.

    ``on_state`` comes once for all states that changed in one turn of the loop. Events: kinds
    "provider-address" (state, mac of the other owner of a duplicate), "address-conflict" (mac) and
    "redirect" (new_pa, router, vsid, ca; it is not obeyed), all of the PA in question.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        roles: Roles,
        timers: PaTimers,
        on_neighbor: Callable[[bytes, bytes | None], None],
        on_state: Callable[[], None],
        events: EventLog | None = None,
    ) -> None:
        self._loop, self._on_state, self._roles = loop, on_state, roles
        self._events = EventLog() if events is None else events
        self._reporting: asyncio.Handle | None = None
        self._link = link = TeamLink(loop, roles, self._receive)
        self._addresses = Addresses(loop, link, timers, self._events, self._state_changed)
        self._neighbors = Neighbors(loop, link, timers, self._addresses.preferred, on_neighbor)
        self._echoes = Echoes(loop, link, self._addresses, self._neighbors)
        self._igmp = Groups(loop, link, timers, 4, lambda: self._addresses.preferred(4) or igmp.ANY)
        self._mld = Groups(loop, link, timers, 6, lambda: link_local(link.mac))
        self._groups: set[bytes] = set()

    def use(self, roles: Roles) -> None:
        """Members of the team have failed, or work again: what has moved is announced."""
        before, self._roles = self._roles, roles
        self._link.use(roles)
        self._addresses.announce(lambda address: before.speaker(address) != roles.speaker(address))
        if before.carrier(before.homes[0]) != roles.carrier(roles.homes[0]):
            self._igmp.tell()
            self._mld.tell()

    def close(self) -> None:
        """Leave the PA network; its neighbors are reported as gone, so that nothing waits for them."""
        if self._reporting:
            self._reporting.cancel()
        self._igmp.close()
        self._mld.close()
        self._addresses.close()
        self._link.close()
        self._neighbors.close()

    def set_addresses(self, addresses: set[str]) -> None:
        """Make these the host's PAs: new ones start Tentative, missing ones are given up."""
        wanted = _packed(addresses)
        self._join(wanted)  # a solicitation for a PA must find its way here before DAD asks
        self._addresses.set(wanted)

    def set_groups(self, groups: set[str]) -> None:
        """Be a member of these PA multicast groups and no others."""
        self._groups = _packed(groups)
        self._join(set(self._addresses.states))

    def states(self) -> dict[str, AddressState]:
        """State of each PA, by its text."""
        return {text(address): state for address, state in self._addresses.states.items()}

    def preferred(self) -> list[str]:
        """The PAs in use."""
        return [pa for pa, state in self.states().items() if state is AddressState.PREFERRED]

    def resolve(self, address: bytes) -> None:
        """Ask for the MAC of a PA; the answer comes through ``on_neighbor``."""
        self._neighbors.resolve(address)

    async def ping(
        self,
        source: str,
        destination: str,
        size: int,
        timeout: float,
        next_hop: str | None = None,
        member: str = "",
    ) -> float:
        """Seconds of one round trip from an own PA, ``size`` bytes of payload. Raises TimeoutError.

        ``next_hop``: a neighbor's PA where the destination is not on-link. ``member``: the NIC through
        which the request leaves, under the NIC's own MAC; where another one speaks for that, it says so
        again afterwards.
        """
        own, other, hop = (
            ipaddress.ip_address(each).packed for each in (source, destination, next_hop or destination)
        )
        if not member:
            return await self._echoes.ping(own, other, size, timeout, hop)
        try:
            with self._link.listening(member):
                return await self._echoes.ping(own, other, size, timeout, hop, member)
        finally:
            roles = self._roles
            if roles.carrier(member) != member:  # the fabric may have learned the MAC there
                self._addresses.announce(lambda address: roles.home(address) == member)

    def _join(self, addresses: set[bytes]) -> None:
        """Be a member of the groups that are wanted and of those at which the IPv6 PAs are asked for."""
        self._igmp.set({group for group in self._groups if len(group) == 4})
        asked = {ndp.solicited_node(address) for address in addresses if len(address) == 16}
        self._mld.set({group for group in self._groups if len(group) == 16} | asked)

    def _state_changed(self) -> None:
        if self._reporting is None:
            self._reporting = self._loop.call_soon(self._report_states)

    def _report_states(self) -> None:
        self._reporting = None
        self._on_state()

    # ---- the wire -------------------------------------------------------------------------

    def _receive(self, frame: bytes) -> None:
        try:
            if ethernet.ethertype(frame) == ethernet.TYPE_ARP:
                self._heard(wire.read(frame))
                return
            packet = datagram.parse(frame)
            if packet.protocol == datagram.IGMP:
                if query := igmp.parse_query(packet):
                    self._igmp.heard(query)
            elif packet.protocol == datagram.ICMPV6 and packet.payload[:1] in _NEIGHBOR_TYPES:
                self._heard(wire.read(frame))
            elif packet.protocol == datagram.ICMPV6 and packet.payload[:1] == bytes((mld.QUERY,)):
                if query := mld.parse_query(packet):
                    self._mld.heard(query)
            elif packet.protocol in (datagram.ICMP, datagram.ICMPV6):
                self._heard_icmp(packet, frame)
        except MalformedFrame:
            return  # what breaks the rules of its protocol is not heard

    def _heard(self, message: wire.Message) -> None:
        if self._link.is_own(message.mac):
            return
        self._addresses.heard(message)
        self._neighbors.heard(message)

    def _heard_icmp(self, packet: Datagram, frame: bytes) -> None:
        if frame[0] & 1:
            return  # RFC 1122 section 3.2.2: nothing is said to what came by broadcast
        if echo := icmp_echo.parse(packet):
            self._echoes.heard(echo, frame[6:12])
        elif (found := redirect.parse(packet)) and self._addresses.is_preferred(found.source):
            self._events.add(
                "redirect",
                text(found.destination),
                new_pa=text(found.better),
                router=text(found.router),
                vsid=found.vsid,
                ca=text(found.customer_address) if found.customer_address else "",
            )


_NEIGHBOR_TYPES = (bytes((ndp.NEIGHBOR_SOLICITATION,)), bytes((ndp.NEIGHBOR_ADVERTISEMENT,)))


def _packed(addresses: set[str]) -> set[bytes]:
    return {ipaddress.ip_address(address).packed for address in addresses}
