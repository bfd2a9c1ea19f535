"""A host's provider side: the PA space of its team, kept in step with policy, ports and worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from testbed.errors import BadInput
from testbed.host.orders import WorkerLink
from testbed.host.pa.addresses import AddressState
from testbed.host.pa.space import PaSpace
from testbed.host.pa.timers import TIMERS
from testbed.switch.roles import Roles
from testbed.telemetry import EventLog
from testbed.topology.plan import HostPlan


class ProviderSide:
    """Owns the PaSpace. The worker is told which PAs may be used and where PA neighbors are."""

    def __init__(self, loop: asyncio.AbstractEventLoop, link: WorkerLink, events: EventLog) -> None:
        self._loop = loop
        self._link = link
        self._events = events
        self._space: PaSpace | None = None
        self.on_state: Callable[[], None] = lambda: None  # called when a PA has another state
        link.on_unresolved = self.resolve

    def join(self, plan: HostPlan, roles: Roles) -> None:
        """Join the PA network with the NICs; a network joined before is left."""
        if self._space:
            self._space.close()
        self._space = PaSpace(
            self._loop,
            roles,
            TIMERS[plan.timers],
            self._neighbor,
            self._state_changed,
            self._events,
        )

    def use(self, roles: Roles) -> None:
        """Members of the team have failed, or work again."""
        if self._space:
            self._space.use(roles)

    @property
    def joined(self) -> bool:
        """Whether there is a PA network."""
        return self._space is not None

    def states(self) -> dict[str, AddressState]:
        """State of each PA by its text."""
        return self._space.states() if self._space else {}

    def preferred(self) -> list[str]:
        """The PAs in use."""
        return self._space.preferred() if self._space else []

    def set_addresses(self, addresses: set[str]) -> None:
        """Make these the host's PAs: new ones start Tentative, missing ones are given up."""
        if self._space and addresses != self._space.states().keys():
            self._space.set_addresses(addresses)

    def set_groups(self, groups: Iterable[str]) -> None:
        """Be a member of these PA multicast groups and no others."""
        if self._space:
            self._space.set_groups(set(groups))

    @property
    def space(self) -> PaSpace:
        """The PA network. Raises BadInput while there is none."""
        if self._space is None:
            raise BadInput("the host has no PA network yet")
        return self._space

    def resolve(self, next_hop: bytes) -> None:
        """The worker needs the MAC of a PA next hop."""
        if self._space:
            self._space.resolve(next_hop)

    def _neighbor(self, next_hop: bytes, mac: bytes | None) -> None:
        self._link.order("neighbor", next_hop=next_hop, mac=mac)

    def _state_changed(self) -> None:
        self.set_groups(self._link.order("preferred", addresses=self.preferred()))
        self.on_state()
