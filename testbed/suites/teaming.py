"""A host's NICs as one: flows use all members, go on when one fails, and use it again when it is back."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import pytest

from testbed.testing import journey, teams
from testbed.testing.connection import connected
from testbed.testing.pairs import are_apart, kernels_know_a_way
from testbed.testing.vm import token
from testbed.testing.waiting import until

if TYPE_CHECKING:
    from testbed.testing.lab import LiveLab
    from testbed.testing.teams import Failure
    from testbed.testing.vm import Vm

pytestmark = pytest.mark.topology(exclusive=True)
FLOWS = 40
PAYLOAD = 1200  # bytes, so that a flow is worth another member
SPREAD = ("Dynamic", "TransportPorts")  # by which flows of two VMs differ
SECONDS = 60.0
FAILURES = pytest.mark.parametrize("how", teams.FAILURES)


class Team(NamedTuple):
    """A host with a team, a VM on it and one on another host. active: members that are to carry."""

    lab: LiveLab
    one: Vm
    other: Vm
    active: tuple[str, ...]
    algorithm: str

    @property
    def host(self) -> str:
        """Whose team it is."""
        return self.one.host

    def wait_for(self, state: str, *members: str) -> None:
        """Until members of the team are in a state."""
        teams.wait_for(self.lab.lab, state, *members, host=self.host, seconds=SECONDS)

    def send(self) -> dict[str, int]:
        """Flows from the one VM to the other: how many frames left through each member; all arrive, once."""
        journey.take(self.lab, self.one, self.other, lambda mark: self.one.frame(self.other, mark))
        mark = token()
        size = min(PAYLOAD, self.one.mtu() - 40 - len(mark))
        frames = [
            self.one.frame(self.other, mark + bytes(size - len(mark)), ports=(port, 9))
            for port in range(20000, 20000 + FLOWS)
        ]
        with self.lab.capture(*journey.points(self.lab, self.one, self.other)) as seen:
            self.one.send(*frames)
            until(
                lambda: seen.count(self.other.point, mark, outgoing=False) >= FLOWS,
                f"{FLOWS} flows of {self.one} reach {self.other}",
            )
            trip = journey.of(self.lab, seen, self.one, self.other, mark)
        assert len(trip.left) == len(trip.from_host) == len(trip.arrived) == FLOWS, trip
        assert all(each.nvgre for each in trip.from_host), f"not all in NVGRE: {trip}"
        points = [each.point for each in trip.from_host]
        members = teams.members(self.lab.lab, self.host)
        return {name: points.count(f"cable:{self.host}/{name}") for name in members}

    def check(self, *members: str) -> None:
        """Flows use just these members: all of them, if the algorithm tells the flows of two VMs apart."""
        found = self.send()
        used = {name for name, count in found.items() if count}
        assert used <= {*members}, f"flows left through {found}, {', '.join(members)} is to carry"
        if self.algorithm in SPREAD:
            assert used == {*members}, f"flows left through {found}, all of {', '.join(members)} are to carry"
        else:
            assert len(used) == 1, f"{self.algorithm}: flows of two VMs left through {found}"

    def receives(self) -> None:
        """What comes for the VM arrives, whichever member speaks for its host's PA."""
        trip = journey.take(self.lab, self.other, self.one, lambda mark: self.other.frame(self.one, mark))
        assert trip.left, trip
        assert trip.from_host, trip
        assert trip.to_host, trip
        assert len(trip.arrived) == 1, trip


def team(lab: LiveLab, *, kernels: bool = False) -> Team:
    """The first. Skips the test where no host with a VM that fits has two NICs that are to carry."""
    pairs = lab.pairs(are_apart, "two VMs of one virtual subnet on different hosts")
    for one, other in pairs:
        plan = lab.host(one.host).plan
        active = tuple(nic.name for nic in plan.nics if nic.name != plan.team.standby)
        if plan.wnv == "below-switch":
            active = tuple(nic.name for nic in plan.nics if nic.name in active and nic.wnv_binding) or active
        if len(active) > 1 and (not kernels or kernels_know_a_way(one, other, 4)):
            found = Team(lab, one, other, active, plan.team.algorithm)
            found.wait_for("Active", *active)
            return found
    lab.require(None, "no host with two NICs that carry, and a VM with a partner on another host")
    raise AssertionError


def test_flows_use_all_members(lab: LiveLab) -> None:
    """Each flow leaves through one cable; under an algorithm that looks at ports all cables have some."""
    found = team(lab)
    found.check(*found.active)
    found.receives()


@FAILURES
def test_a_member_fails_and_comes_back(lab: LiveLab, how: Failure) -> None:
    """For each in turn: flows use the others alone, both ways; then this one again."""
    found = team(lab)
    for member in found.active[:2]:
        others = [name for name in found.active if name != member]
        with teams.failing(lab.lab, how, member, found.host):
            found.wait_for("Failed", member)
            found.check(*others)
            found.receives()
        found.wait_for("Active", *found.active)
        found.check(*found.active)
        found.receives()


def test_a_connection_goes_on(lab: LiveLab) -> None:
    """TCP between the kernels, while one member after the other fails in each way and comes back."""
    found = team(lab, kernels=True)
    with connected(found.one, found.other) as connection:
        connection.exchange()
        for how, member in itertools.product(teams.FAILURES, found.active[:2]):
            with teams.failing(lab.lab, how, member, found.host):
                connection.exchange()
            found.wait_for("Active", *found.active)
        connection.exchange()
