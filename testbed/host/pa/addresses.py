"""The PAs of a host: duplicate detection, announcements, answers and defence.

IPv4 by RFC 5227. IPv6 by RFC 4862, which leaves open what becomes of an address in use that somebody
else claims: here it is announced again, at most once per defend interval, and kept.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from enum import StrEnum

from testbed.host.pa import wire
from testbed.host.pa.link import TeamLink
from testbed.host.pa.timers import PaTimers
from testbed.packets.ethernet import format_mac
from testbed.telemetry import EventLog


class AddressState(StrEnum):
    """State of a PA, as Get-NetVirtualizationProviderAddress names it.

    Invalid: no longer the host's; only events have it. Deprecated PAs do not occur.
    """

    TENTATIVE = "Tentative"
    PREFERRED = "Preferred"
    DUPLICATE = "Duplicate"
    INVALID = "Invalid"


def text(address: bytes) -> str:
    """An address of 4 or 16 bytes as it is written."""
    return str(ipaddress.ip_address(address))


class Addresses:
    """PAs by their bytes. ``on_state()``: some PA has become Preferred or Duplicate."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: TeamLink,
        timers: PaTimers,
        events: EventLog,
        on_state: Callable[[], None],
    ) -> None:
        self._loop, self._link, self._timers = loop, link, timers
        self._events, self._on_state = events, on_state
        self.states: dict[bytes, AddressState] = {}
        self._due: dict[bytes, asyncio.TimerHandle] = {}  # the next probe or announcement
        self._conflicts: dict[bytes, float] = {}  # when the latest one was

    def set(self, wanted: set[bytes]) -> None:
        """Make these the PAs: new ones start Tentative, missing ones are given up."""
        for address in set(self.states) - wanted:
            self._forget(address)
            del self.states[address]
            self._tell(address, AddressState.INVALID)
        for address in wanted - set(self.states):
            self._enter(address, AddressState.TENTATIVE)
            self._probe(address, self._timers.probes if len(address) == 4 else self._timers.solicitations)

    def close(self) -> None:
        """Give all up without a word."""
        for address in self.states:
            self._forget(address)
        self.states.clear()

    def preferred(self, size: int) -> bytes | None:
        """A PA of ``size`` bytes that may be used as a source, if there is one."""
        usable = (address for address, state in self.states.items() if state is AddressState.PREFERRED)
        return next((address for address in usable if len(address) == size), None)

    def announce(self, homes: Callable[[bytes], bool]) -> None:
        """Tell once more where PAs are: those in use for which ``homes`` holds."""
        for address, state in self.states.items():
            if state is AddressState.PREFERRED and homes(address):
                self._link.send(wire.announcement(self._link.mac_of(address), address))

    def is_preferred(self, address: bytes) -> bool:
        """Whether it is a PA in use."""
        return self.states.get(address) is AddressState.PREFERRED

    def heard(self, message: wire.Message) -> None:
        """An ARP or ND message of another machine."""
        claimed = message.asked if message.is_probe else message.claimed
        if claimed is not None and self.states.get(claimed) is AddressState.TENTATIVE:
            self._lose(claimed, message.mac)
        elif claimed is not None and self.is_preferred(claimed) and not message.is_probe:
            self._defend(claimed, message.mac)
        if message.asked is not None and self.is_preferred(message.asked):
            self._link.send(wire.answer(self._link.mac_of(message.asked), message, message.asked))

    # ---- changes of state -----------------------------------------------------------------

    def _probe(self, address: bytes, left: int) -> None:
        """Ask ``left`` more times, then use the address."""
        interval = self._timers.probe_interval if len(address) == 4 else self._timers.retransmit
        if left == 0:
            self._enter(address, AddressState.PREFERRED)
            self._announce(address, self._timers.announcements)
            self._on_state()
            return
        if not self._link.send(wire.probe(self._link.mac_of(address), address)):
            left += 1  # the NIC is not up yet: a probe that did not leave proves nothing
        self._due[address] = self._loop.call_later(interval, self._probe, address, left - 1)

    def _announce(self, address: bytes, left: int) -> None:
        self._link.send(wire.announcement(self._link.mac_of(address), address))
        if left > 1:
            self._due[address] = self._loop.call_later(
                self._timers.announce_interval, self._announce, address, left - 1
            )

    def _defend(self, address: bytes, mac: bytes) -> None:
        """Another machine uses the address as well (RFC 5227 section 2.4, case b)."""
        now = self._loop.time()
        recent = now - self._conflicts.get(address, float("-inf")) < self._timers.defend_interval
        if recent and len(address) == 4:
            self._lose(address, mac)
        elif not recent:
            self._conflicts[address] = now
            self._events.add("address-conflict", text(address), mac=format_mac(mac))
            self._link.send(wire.announcement(self._link.mac_of(address), address))

    def _lose(self, address: bytes, mac: bytes) -> None:
        self._forget(address)
        self._enter(address, AddressState.DUPLICATE, mac)
        self._on_state()

    def _forget(self, address: bytes) -> None:
        if timer := self._due.pop(address, None):
            timer.cancel()
        self._conflicts.pop(address, None)

    def _enter(self, address: bytes, state: AddressState, mac: bytes = b"") -> None:
        self.states[address] = state
        self._tell(address, state, mac)

    def _tell(self, address: bytes, state: AddressState, mac: bytes = b"") -> None:
        self._events.add("provider-address", text(address), state=str(state), mac=format_mac(mac))
