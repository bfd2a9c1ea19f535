"""The worker's part of the team: roles of its NICs, flows that may move, announcements for VMs of VSID 0."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from testbed.channel import Message
from testbed.packets import rarp
from testbed.switch.buffer import VNET
from testbed.switch.port import Port
from testbed.switch.roles import Roles
from testbed.switch.state import SwitchState
from testbed.teaming.flowlets import Flowlets
from testbed.topology.plan import TeamPlan


class WorkerTeam:
    """Keeps the state's roles in step with its NICs, the plan, and what control says of the members."""

    def __init__(self, state: SwitchState, flowlets: Flowlets) -> None:
        self._state, self._flowlets = state, flowlets
        self._plan = TeamPlan("")
        self._failed: set[str] = set()
        self.balances = False
        """Whether flows are moved between members."""

    def configure(self, plan: TeamPlan) -> None:
        """Another plan; a fixed gap is taken over."""
        self._plan = plan
        if plan.flowlet_gap:
            self._flowlets.gap = plan.flowlet_gap
        self.refresh()

    def set_state(self, failed: Iterable[str], gap: float | None) -> None:
        """What control has found out: members that don't work, and how much the paths differ."""
        if gap is not None and not self._plan.flowlet_gap:
            self._flowlets.gap = gap
        if set(failed) != self._failed:
            self._failed = set(failed)
            self.refresh()

    def refresh(self) -> None:
        """NICs have come or gone, or work otherwise: who speaks for whom now."""
        state, before = self._state, self._state.roles
        macs = {name: uplink.mac for name, uplink in state.uplinks.items()}
        state.roles = roles = Roles(self._plan, macs, macs.keys() - self._failed)
        self._flowlets.use([state.uplinks[name] for name in roles.active])
        self.balances = self._plan.algorithm == "Dynamic" and len(roles.active) > 1
        state.forget_flows()
        for port in state.ports_of(0):
            if before.speaker(port.mac) not in (None, roles.speaker(port.mac)):
                self.announce(port)

    def announce(self, port: Port) -> None:
        """A VM of VSID 0 is at another place: the fabric's switches are to look for it here."""
        if (uplink := self._state.speaker(port.mac)) is not None:
            with contextlib.suppress(OSError):  # the VM's own next packet does the same
                uplink.send_parts([bytes(VNET), rarp.announcement(port.mac)])

    def counters(self) -> dict[str, int]:
        """Of a team of several NICs: flows by member, and how often one has gone to another."""
        if len(self._state.uplinks) < 2:
            return {}
        flows = {f"flows_{name}": count for name, count in self._flowlets.flows().items()}
        return flows | self._moves()

    def describe(self) -> Message:
        """What the flows are doing. gap: seconds."""
        return {
            "active": list(self._state.roles.active),
            "flows": self._flowlets.flows(),
            "gap": self._flowlets.gap,
            **self._moves(),
        }

    def _moves(self) -> dict[str, int]:
        """How often flows have taken another member."""
        return {"flowlets_moved": self._flowlets.moved, "flows_rebalanced": self._flowlets.rebalanced}
