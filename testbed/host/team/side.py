"""Control's part of the team: judges its members, tells the worker and the PA space which of them work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from testbed.channel import Message
from testbed.errors import BadInput
from testbed.host.orders import WorkerLink
from testbed.host.team.health import TIMERS, Health
from testbed.host.team.loopback import LoopbackSocket
from testbed.linkwatch import LinkState
from testbed.packets.ethernet import parse_mac
from testbed.switch.roles import Roles
from testbed.teaming.flowlets import SHORTEST_GAP
from testbed.telemetry import EventLog
from testbed.topology.plan import HostPlan, TeamPlan, Timers

_KEY = 1  # of the host's one aggregate
_GAP_CHANGE = 0.2  # part by which the paths' difference has to change to be told

if TYPE_CHECKING:
    from testbed.host.team.partner import Partner
    from testbed.teaming.lacp import Lacp


class TeamSide:
    """``roles``: who does what now. ``on_roles(roles)`` is called with each change, after the worker knows.

    A host with one NIC has no team: nothing is watched, and its NIC always counts as one that works.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: WorkerLink,
        events: EventLog,
        on_roles: Callable[[Roles], None],
    ) -> None:
        self._loop, self._link, self._events, self._on_roles = loop, link, events, on_roles
        self.roles = Roles(TeamPlan(""), {}, ())
        self._members: dict[str, Health] = {}
        self._sockets: dict[str, LoopbackSocket] = {}
        self._asked: dict[str, bool] = {}
        self._lacp: Lacp | None = None
        self._partner: Partner | None = None
        self._timers = TIMERS["fast"]
        self._tick: asyncio.TimerHandle | None = None
        self._received: dict[str, int] = {}
        self._gap = SHORTEST_GAP

    def configure(self, plan: HostPlan) -> Roles:
        """Take over a plan: watch its NICs from now on. The roles, in which all of them work at first."""
        self.close()
        macs = {nic.name: parse_mac(nic.mac) for nic in plan.nics}
        self._timers = TIMERS[plan.timers]
        self._members = {name: Health(self._timers) for name in macs}
        lacp = plan.team.mode == "Lacp"
        if len(macs) > 1 or lacp:
            self._start(macs)
        if lacp:
            self._speak_lacp(plan.team, macs, plan.timers)
        self.roles = Roles(plan.team, macs, [name for name, each in self._members.items() if each.usable])
        self._tell_worker()
        if self._sockets:
            self._ask()
        return self.roles

    def set_administrative(self, name: str, *, failed: bool) -> None:
        """Give a member up, or let it work again. Raises BadInput."""
        if name not in self._members:
            known = ", ".join(self._members)
            raise BadInput(f"the team has no member {name!r}: one of {known or 'none'}")
        if len(self._members) == 1:
            raise BadInput("a team of one NIC has none to spare: take the cable down with `testbed link`")
        member = self._members[name]
        member.administrative = failed
        if self._lacp:
            self._lacp.set_up(name, member.carrier and not failed)
        self._look()

    def describe(self) -> Message:
        """The team as it is now; of each member also why it does not work, and seconds of a round trip."""
        roles = self.roles
        partners = self._lacp.describe()["ports"] if self._lacp else {}
        return {
            **self.summary(),
            "partner": self._partner.describe() if self._partner else None,
            "members": [
                {
                    "name": name,
                    "mac": roles.macs[name].hex(":"),
                    "state": self._state(name),
                    "fault": each.fault() or ("" if each.usable else "holding"),
                    "primary": name == roles.homes[0],
                    "speaks_for": [other for other in roles.macs if roles.carrier(other) == name],
                    "round_trip": each.round_trip,
                    **({"lacp": partners.get(name, {})} if self._lacp else {}),
                }
                for name, each in self._members.items()
            ],
        }

    def summary(self) -> Message:
        """What it is, and each member's state."""
        plan = self.roles.plan
        return {
            "mode": plan.mode,
            "algorithm": plan.algorithm,
            "queues": self.roles.queue_mode,
            "states": {name: self._state(name) for name in self._members},
        }

    def install_partner(self, message: Message, descriptors: list[int]) -> None:
        """The switch takes the cables for one, too: its side is driven from here. Owns the descriptors."""
        from testbed.host.team.partner import Partner  # a host whose team has none saves this

        if self._partner:
            self._partner.close()
        self._partner = Partner(self._loop, message["mode"], message["parts"], descriptors)

    def close(self) -> None:
        """Watch no more."""
        if self._partner:
            self._partner.close()
            self._partner = None
        if self._tick:
            self._tick.cancel()
            self._tick = None
        if self._lacp:
            self._lacp.close()
            self._lacp = None
        for each in self._sockets.values():
            each.close()
        self._sockets.clear()

    # ---- watching ---------------------------------------------------------------------------

    def _start(self, macs: Mapping[str, bytes]) -> None:
        for name, mac in macs.items():
            self._sockets[name] = LoopbackSocket(
                self._loop, name, mac, partial(self._answered, name), partial(self._slow, name)
            )
        self._asked = dict.fromkeys(macs, False)
        self._received = dict.fromkeys(macs, 0)

    def _speak_lacp(self, plan: TeamPlan, macs: Mapping[str, bytes], timers: Timers) -> None:
        from testbed.teaming.lacp import TIMERS as LACP_TIMERS  # a host without it saves this
        from testbed.teaming.lacp import Lacp

        for each in self._members.values():
            each.partnered = each.usable = False
        self._lacp = Lacp(
            self._loop,
            macs[plan.primary],
            _KEY,
            list(macs),
            lambda port, frame: self._sockets[port].send(frame),
            self._distributing,
            LACP_TIMERS[timers],
            fast=plan.lacp_timer == "Fast",
        )
        for name in macs:
            self._lacp.set_up(name, True)

    def links_changed(self, states: Iterable[LinkState]) -> None:
        """Carriers as they are now. All of them are to be told after each ``configure``."""
        if not self._sockets:
            return
        for state in states:
            if (member := self._members.get(state.name)) and member.carrier != state.running:
                member.set_carrier(state.running)
                if self._lacp:
                    self._lacp.set_up(state.name, state.running and not member.administrative)
        self._look()

    def _distributing(self, ports: frozenset[str]) -> None:
        for name, member in self._members.items():
            if name in ports and not member.partnered and not member.fault_but_partner():
                member.usable = True  # the partner has taken its time already
            member.partnered = name in ports
        self._look()

    def _slow(self, name: str, frame: bytes) -> None:
        if self._lacp:
            self._lacp.heard(name, frame)

    def _answered(self, name: str, round_trip: float) -> None:
        self._members[name].answered(round_trip)

    def _ask(self) -> None:
        """One round of loopback messages."""
        for name, each in self._sockets.items():
            member = self._members[name]
            if not each.ask() and self._asked[name] and member.carrier:
                member.unanswered()
            self._asked[name] = True
        if any(member.suspicious() for member in self._members.values()):
            self._judge()
        self._look()
        self._measure_paths()
        self._tick = self._loop.call_later(self._timers.interval, self._ask)

    def _judge(self) -> None:
        """Whether members that don't answer receive anything else."""
        received: dict[str, int] = self._link.order("received")
        for name, member in self._members.items():
            if member.suspicious() and received.get(name, 0) == self._received.get(name):
                member.silent()
        self._received = received

    # ---- telling ----------------------------------------------------------------------------

    def _look(self) -> None:
        now = self._loop.time()
        before = {name: self._state(name) for name in self._members}
        up = [name for name, member in self._members.items() if member.look(now)]
        if sorted(up) == sorted(name for name in self._members if name in self._working):
            return
        self.roles = Roles(self.roles.plan, self.roles.macs, up)
        self._tell_worker()
        self._on_roles(self.roles)
        for name, member in self._members.items():
            if (state := self._state(name)) != before[name]:
                self._events.add("team-member", name, state=state, fault=member.fault())

    def _state(self, name: str) -> str:
        if name in self.roles.active:
            return "Active"
        return "Standby" if name in self._working else "Failed"

    @property
    def _working(self) -> frozenset[str]:
        return self.roles.working

    def _tell_worker(self, gap: float | None = None) -> None:
        failed = [name for name in self._members if name not in self._working]
        self._link.order("team-state", failed=failed, gap=gap)

    def _measure_paths(self) -> None:
        """How much the cables' round trips differ: a flow's gap has to be longer for it to move."""
        trips = [self._members[name].round_trip for name in self.roles.active]
        if len(trips) < 2 or not all(trips):
            return
        gap = max(SHORTEST_GAP, max(trips) - min(trips))
        if abs(gap - self._gap) > _GAP_CHANGE * self._gap:
            self._gap = gap
            self._tell_worker(gap)
