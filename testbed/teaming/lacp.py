"""The Link Aggregation Control Protocol for the ports of one system (IEEE 802.1AX-2008 clause 5.4).

Always active. Of the standard's machines, receive and periodic are whole; mux is the one of independent
control, and a port distributes only when the partner collects on it. Left out: the wait of 2 s before a port
joins (Aggregate_Wait_Time, "may be varied" by clause 5.4.14), churn detection and the marker protocol.

Selection: one aggregate, of the ports whose partner has the same system, system priority and key. Of
several partners the one with the most ports wins, then the one that has won before, then the lowest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct

from testbed.packets import lacp
from testbed.packets.checksum import Buffer
from testbed.packets.ethernet import format_mac
from testbed.packets.lacp import Lacpdu, Party
from testbed.packets.malformed import MalformedFrame

Group: TypeAlias = tuple[int, bytes, int]  # a partner's system priority, system and key

_PRIORITY = 0x8000  # of the system and of ports, where nothing else is set
_IN_A_PERIOD = 3  # LACPDUs that a port may send in one fast period (clause 5.4.16)
_NOBODY = Party(0, bytes(6), 0, 0, 0, 0)  # the partner's administrative values
_WORKING = lacp.SYNCHRONIZATION | lacp.COLLECTING | lacp.DISTRIBUTING
# what the partner is told at once if it believes something else (update_NTT, clause 5.4.9)
_TOLD_AT_ONCE = lacp.ACTIVITY | lacp.TIMEOUT | lacp.SYNCHRONIZATION | lacp.AGGREGATION


class LacpTimers(Struct, frozen=True):
    """Seconds."""

    fast_period: float  # between LACPDUs to a partner with a short timeout
    slow_period: float  # ... with a long one
    short_timeout: float
    long_timeout: float


# rfc: Fast_Periodic_Time, Slow_Periodic_Time, Short_Timeout_Time, Long_Timeout_Time (clause 5.4.4)
TIMERS = {
    "fast": LacpTimers(fast_period=0.3, slow_period=9.0, short_timeout=1.0, long_timeout=30.0),
    "rfc": LacpTimers(fast_period=1.0, slow_period=30.0, short_timeout=3.0, long_timeout=90.0),
}


class Receive(StrEnum):
    """States of the receive machine (clause 5.4.12)."""

    PORT_DISABLED = "port-disabled"
    EXPIRED = "expired"
    DEFAULTED = "defaulted"
    CURRENT = "current"


class _Port:
    """One port's state. ``standby``: why it is not in the aggregate; empty if it is."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.receive = Receive.PORT_DISABLED
        self.partner = _NOBODY
        self.standby = "down"
        self.working = 0  # of synchronization, collecting and distributing
        self.need_to_transmit = False
        self.timeout: asyncio.TimerHandle | None = None
        self.periodic: asyncio.TimerHandle | None = None
        self.period = 0.0
        self.held_back: asyncio.TimerHandle | None = None
        self.sent_at: deque[float] = deque(maxlen=_IN_A_PERIOD)
        self.counters = dict.fromkeys(("sent", "received", "refused", "malformed", "disabled"), 0)

    @property
    def group(self) -> Group:
        return self.partner.system_priority, self.partner.system, self.partner.key

    def cancel_timers(self) -> None:
        for timer in (self.timeout, self.periodic, self.held_back):
            if timer:
                timer.cancel()
        self.timeout = self.periodic = self.held_back = None
        self.period = 0.0


class Lacp:
    """The protocol on some ports, all with one key; they are down at first.

    system: 6 bytes, also the source of frames; ports: names, the first one has number 1. ``send`` (port,
    frame) says whether the frame has left; ``on_change`` gets the ports that collect and distribute whenever
    they are others. fast: whether the partner is asked for the fast period, with which its silence is
    noticed within the short timeout.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        system: bytes,
        key: int,
        ports: Sequence[str],
        send: Callable[[str, bytes], bool],
        on_change: Callable[[frozenset[str]], None],
        timers: LacpTimers = TIMERS["rfc"],
        fast: bool = True,
        system_priority: int = _PRIORITY,
    ) -> None:
        self._loop, self._send, self._on_change, self._timers = loop, send, on_change, timers
        self._system, self._key, self._priority, self._fast = system, key, system_priority, fast
        self._ports = {name: _Port(name, number) for number, name in enumerate(ports, 1)}
        self._group: Group | None = None
        self._told: frozenset[str] = frozenset()
        self._closed = False

    # ---- what happens ------------------------------------------------------------------------

    def set_up(self, name: str, up: bool) -> None:
        """A port has its carrier, or has lost it."""
        port = self._ports[name]
        if up is (port.receive != Receive.PORT_DISABLED) or self._closed:
            return
        port.partner = port.partner._replace(state=port.partner.state & ~lacp.SYNCHRONIZATION)
        if up:
            self._expire(port)
            port.need_to_transmit = True
        else:
            port.cancel_timers()
            port.receive = Receive.PORT_DISABLED
        self._settle()

    def heard(self, name: str, frame: Buffer) -> None:
        """A frame of a slow protocol has come in by a port."""
        port = self._ports[name]
        if self._closed:
            return
        if port.receive == Receive.PORT_DISABLED:
            port.counters["disabled"] += 1
            return
        try:
            pdu = lacp.parse(frame)
        except MalformedFrame:
            port.counters["malformed"] += 1
            return
        port.counters["received"] += 1
        self._take(port, pdu)
        self._settle()

    def close(self) -> None:
        """Stop, and tell the partner so: it need not wait until it hears nothing."""
        for port in self._ports.values():
            port.cancel_timers()
            if port.receive != Receive.PORT_DISABLED and not self._closed:
                port.working = 0
                self._transmit(port)
        self._closed = True

    def describe(self) -> dict[str, Any]:
        """Everything: this system, the partner of the aggregate, and each port by name."""
        return {
            "system": format_mac(self._system),
            "system_priority": self._priority,
            "key": self._key,
            "partner": self._group and _described_group(self._group),
            "ports": {port.name: self._described(port) for port in self._ports.values()},
        }

    def _described(self, port: _Port) -> dict[str, Any]:
        partner = port.partner
        return {
            "port": port.number,
            "receive": str(port.receive),
            "state": lacp.state_names(self._actor(port).state),
            "partner": {
                **_described_group(port.group),
                "port": partner.port,
                "state": lacp.state_names(partner.state),
            },
            "selected": not port.standby,
            "standby": port.standby,
            **port.counters,
        }

    # ---- receive machine (clause 5.4.12) -------------------------------------------------------

    def _expire(self, port: _Port) -> None:
        """EXPIRED: nothing has come in time. It is asked for fast answers for one more short timeout."""
        port.receive = Receive.EXPIRED
        state = port.partner.state & ~lacp.SYNCHRONIZATION | lacp.TIMEOUT
        port.partner = port.partner._replace(state=state)
        self._wait(port, self._timers.short_timeout, self._default)

    def _default(self, port: _Port) -> None:
        """DEFAULTED: there is no partner."""
        port.receive, port.partner, port.timeout = Receive.DEFAULTED, _NOBODY, None

    def _take(self, port: _Port, pdu: Lacpdu) -> None:
        """CURRENT: what the partner says of itself holds, its Synchronization if it knows us."""
        port.receive = Receive.CURRENT
        ours = self._actor(port)
        if (*port.group, port.partner.port) != (*_group(pdu.actor), pdu.actor.port):
            port.working = 0  # update_Selected: another partner, so it begins anew
        difference = ours.state ^ pdu.partner.state
        if ours[:5] != pdu.partner[:5] or difference & _TOLD_AT_ONCE:
            port.need_to_transmit = True
        # recordPDU. As we are active, it is sure that the partner hears of changes.
        known = ours[:5] == pdu.partner[:5] and not difference & lacp.AGGREGATION
        state = pdu.actor.state
        if not known and state & lacp.AGGREGATION:
            state &= ~lacp.SYNCHRONIZATION
        port.partner = pdu.actor._replace(state=state)
        timeout = self._timers.short_timeout if self._fast else self._timers.long_timeout
        self._wait(port, timeout, self._expire)

    def _wait(self, port: _Port, seconds: float, then: Callable[[_Port], None]) -> None:
        if port.timeout:
            port.timeout.cancel()
        port.timeout = self._loop.call_later(seconds, self._timed_out, port, then)

    def _timed_out(self, port: _Port, then: Callable[[_Port], None]) -> None:
        then(port)
        self._settle()

    # ---- selection and mux (clauses 5.4.14, 5.4.15) --------------------------------------------

    def _settle(self) -> None:
        """Bring everything in line with what is known of the partners, and tell."""
        self._select()
        for port in self._ports.values():
            before, port.working = port.working, self._worked_out(port)
            if (before ^ port.working) & (lacp.SYNCHRONIZATION | lacp.COLLECTING):
                port.need_to_transmit = True
        for port in self._ports.values():
            if port.receive != Receive.PORT_DISABLED:
                self._schedule(port)
                if port.need_to_transmit:
                    self._transmit_or_hold_back(port)
        working = frozenset(port.name for port in self._ports.values() if port.working & lacp.DISTRIBUTING)
        if working != self._told:
            self._told = working
            self._on_change(working)

    def _select(self) -> None:
        votes: dict[Group, int] = {}
        for port in self._ports.values():
            port.standby = self._why_not(port)
            if not port.standby and port.receive == Receive.CURRENT:
                votes[port.group] = votes.get(port.group, 0) + 1
        if votes:
            most = max(votes.values())
            best = [group for group, count in votes.items() if count == most]
            self._group = self._group if self._group in best else min(best)
        elif not any(port.group == self._group and not port.standby for port in self._ports.values()):
            self._group = None
        for port in self._ports.values():
            if not port.standby and port.group != self._group:
                port.standby = "other-partner" if port.receive == Receive.CURRENT else "no-partner"

    def _why_not(self, port: _Port) -> str:
        """Why a port can be in no aggregate; empty if it can."""
        if port.receive == Receive.PORT_DISABLED:
            return "down"
        if port.partner.system == _NOBODY.system:
            return "no-partner"
        if port.group[:2] == (self._priority, self._system):
            return "looped-back"
        if not port.partner.state & lacp.AGGREGATION:
            return "individual"
        return ""

    def _worked_out(self, port: _Port) -> int:
        """The mux: selected -> in synchronization -> the partner too: collect -> it collects: distribute."""
        if port.standby:
            return 0
        if not port.partner.state & lacp.SYNCHRONIZATION:
            return lacp.SYNCHRONIZATION
        if not port.partner.state & lacp.COLLECTING:
            return lacp.SYNCHRONIZATION | lacp.COLLECTING
        return _WORKING

    # ---- periodic and transmit machines (clauses 5.4.13, 5.4.16) -------------------------------

    def _schedule(self, port: _Port) -> None:
        """Send again and again, as often as the partner wants."""
        timers = self._timers
        period = timers.fast_period if port.partner.state & lacp.TIMEOUT else timers.slow_period
        if period == port.period:
            return
        if port.periodic:
            port.periodic.cancel()
            if period < port.period:
                port.need_to_transmit = True
        port.period = period
        port.periodic = self._loop.call_later(period, self._again, port)

    def _again(self, port: _Port) -> None:
        port.periodic = self._loop.call_later(port.period, self._again, port)
        self._transmit_or_hold_back(port)

    def _transmit_or_hold_back(self, port: _Port) -> None:
        now = self._loop.time()
        port.need_to_transmit = True
        if port.held_back:
            return
        free = port.sent_at[0] + self._timers.fast_period if len(port.sent_at) == _IN_A_PERIOD else now
        if free > now:
            port.held_back = self._loop.call_at(free, self._let_go, port)
        else:
            self._transmit(port)

    def _let_go(self, port: _Port) -> None:
        port.held_back = None
        if port.need_to_transmit:
            self._transmit_or_hold_back(port)

    def _transmit(self, port: _Port) -> None:
        port.need_to_transmit = False
        port.sent_at.append(self._loop.time())
        left = self._send(port.name, lacp.build(Lacpdu(self._actor(port), port.partner), self._system))
        port.counters["sent" if left else "refused"] += 1

    def _actor(self, port: _Port) -> Party:
        state = lacp.ACTIVITY | lacp.AGGREGATION | port.working
        if self._fast:
            state |= lacp.TIMEOUT
        if port.receive == Receive.EXPIRED:
            state |= lacp.EXPIRED
        if port.partner.system == _NOBODY.system:
            state |= lacp.DEFAULTED
        return Party(self._priority, self._system, self._key, _PRIORITY, port.number, state)


def _group(party: Party) -> Group:
    return party.system_priority, party.system, party.key


def _described_group(group: Group) -> dict[str, Any]:
    priority, system, key = group
    return {"system": format_mac(system), "system_priority": priority, "key": key}
