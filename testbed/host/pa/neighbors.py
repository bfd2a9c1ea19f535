"""Other machines' PAs: asking for their MACs, asking again before they are too old, noticing changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from testbed.host.pa import wire
from testbed.host.pa.link import TeamLink
from testbed.host.pa.timers import PaTimers


class Neighbors:
    """MACs by PA (4 or 16 bytes).

    ``source(size)`` is an own PA of the family, None while there is none in use; ``on_neighbor(pa,
    mac or None)`` tells what was found, has changed or is gone.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: TeamLink,
        timers: PaTimers,
        source: Callable[[int], bytes | None],
        on_neighbor: Callable[[bytes, bytes | None], None],
    ) -> None:
        self._loop, self._link, self._timers = loop, link, timers
        self._source, self._on_neighbor = source, on_neighbor
        self._macs: dict[bytes, bytes] = {}
        self._asking: dict[bytes, asyncio.TimerHandle] = {}  # the next question
        self._waiting: dict[bytes, list[asyncio.Future[bytes | None]]] = {}

    def resolve(self, address: bytes) -> None:
        """Ask for the MAC of a PA; the answer comes through ``on_neighbor``."""
        if mac := self._macs.get(address):
            self._on_neighbor(address, mac)
        elif address not in self._asking:
            self._ask(address, self._timers.resolve_attempts)

    async def find(self, address: bytes) -> bytes | None:
        """The MAC of a PA, or None when it does not answer."""
        if mac := self._macs.get(address):
            return mac
        found: asyncio.Future[bytes | None] = self._loop.create_future()
        self._waiting.setdefault(address, []).append(found)
        self.resolve(address)
        return await found

    def heard(self, message: wire.Message) -> None:
        """An ARP or ND message of another machine; only neighbors that are needed here are noted."""
        address = message.claimed
        if address is None or address not in self._asking:
            return
        known = self._macs.get(address)
        if known not in (None, message.mac) and not message.overrides:
            return  # RFC 4861 section 7.2.5: what is known stays, and is not confirmed
        self._asking.pop(address).cancel()
        self._asking[address] = self._loop.call_later(
            self._timers.reachable, self._ask, address, self._timers.resolve_attempts
        )
        if known != message.mac:
            self._macs[address] = message.mac
            self._report(address, message.mac)

    def close(self) -> None:
        """Ask no more; all neighbors are reported as gone, so that nothing waits for them."""
        for address, timer in list(self._asking.items()):
            timer.cancel()
            self._report(address, None)
        self._asking.clear()
        self._macs.clear()

    def _ask(self, address: bytes, left: int) -> None:
        if left == 0:
            del self._asking[address]
            self._macs.pop(address, None)
            self._report(address, None)
            return
        source = self._source(len(address))
        if source is not None:  # otherwise there may be one by the next time
            self._link.send(wire.request(self._link.mac_of(source), source, address, self._macs.get(address)))
        self._asking[address] = self._loop.call_later(
            self._timers.resolve_interval, self._ask, address, left - 1
        )

    def _report(self, address: bytes, mac: bytes | None) -> None:
        for found in self._waiting.pop(address, []):
            if not found.done():
                found.set_result(mac)
        self._on_neighbor(address, mac)
