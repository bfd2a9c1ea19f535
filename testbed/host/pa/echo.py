"""ICMP echo of the PA space: answers for the PAs in use, and ping from one of them."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools

from testbed.host.pa.addresses import Addresses
from testbed.host.pa.link import TeamLink
from testbed.host.pa.neighbors import Neighbors
from testbed.packets import icmp_echo
from testbed.packets.icmp_echo import Echo

_IDENTIFIER = 0x7E57


class Echoes:
    """Answers echo requests for Preferred PAs; finds the reply to each own request."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, link: TeamLink, addresses: Addresses, neighbors: Neighbors
    ) -> None:
        self._loop, self._link = loop, link
        self._addresses, self._neighbors = addresses, neighbors
        self._sequence = itertools.count()
        self._waiting: dict[tuple[bytes, bytes, int], tuple[int, asyncio.Future[float]]] = {}

    def heard(self, echo: Echo, mac: bytes) -> None:
        """An echo that came from the machine with this MAC."""
        if not self._addresses.is_preferred(echo.destination):
            return
        if not echo.is_reply:
            source = ipaddress.ip_address(echo.source)
            if not source.is_multicast and not source.is_unspecified:
                own = self._link.mac_of(echo.destination)
                self._link.send_datagram(icmp_echo.build(echo.reply()), mac, own)
            return
        size, waiting = self._waiting.get((echo.destination, echo.source, echo.sequence), (0, None))
        whole = echo.identifier == _IDENTIFIER and len(echo.payload) == size
        if whole and waiting is not None and not waiting.done():
            waiting.set_result(self._loop.time())

    async def ping(
        self, source: bytes, destination: bytes, size: int, timeout: float, next_hop: bytes, member: str = ""
    ) -> float:
        """Seconds until the reply to one echo request with ``size`` bytes of payload. Raises TimeoutError.

        ``next_hop``: the PA of the neighbor that it goes to, the destination itself if it is on-link.
        ``member``: the NIC through which it leaves, under the NIC's own MAC; none: as the team decides.
        """
        async with asyncio.timeout(timeout):
            mac = await self._neighbors.find(next_hop)
            if mac is None:
                raise TimeoutError("the next hop does not answer")
            sequence = next(self._sequence) & 0xFFFF
            key = (source, destination, sequence)
            waiting: asyncio.Future[float] = self._loop.create_future()
            self._waiting[key] = size, waiting
            try:
                request = Echo(source, destination, False, _IDENTIFIER, sequence, bytes(size))
                start = self._loop.time()
                if member:
                    self._link.send_through(member, icmp_echo.build(request), mac)
                else:
                    self._link.send_datagram(icmp_echo.build(request), mac, self._link.mac_of(source))
                return await waiting - start
            finally:
                del self._waiting[key]
