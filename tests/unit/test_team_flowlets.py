"""Dynamic distribution: flows move at gaps, never inside a flowlet, but for rare moves between full NICs."""

from __future__ import annotations

import random
from typing import Any

import pytest

from testbed.teaming import flowlets as module
from testbed.teaming.flowlets import REBALANCE, SHORTEST_GAP, Flowlets, balanced

SIZE = 1500


class Nic:
    """A NIC that only counts; it has a backlog if the test says so."""

    def __init__(self, name: str) -> None:
        self.name, self.tx_bytes, self.waiting = name, 0, 0

    def backlog(self) -> int:
        return self.waiting


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Team:
    """Flows of a team of some NICs, with a clock of the test's own. ``sent``: flow and NIC of each packet."""

    def __init__(self, clock: Clock, count: int = 2) -> None:
        self.clock = clock
        self.nics = [Nic(f"nic{n}") for n in range(count)]
        self.flowlets = Flowlets()
        self.use(*self.nics)
        self.sent: list[tuple[int, str]] = []
        self._actions: dict[int, Any] = {}

    def use(self, *nics: Nic) -> None:
        self.flowlets.use(nics)  # type: ignore[arg-type]

    def send(self, flow: int, packets: int = 1, every: float = 0.0, size: int = SIZE) -> list[str]:
        """Packets of a flow; by which NIC each went."""
        action = self._actions.setdefault(flow, self._action(flow))
        for _ in range(packets):
            self.clock.now += every
            action(size)
            self.flowlets.look(self.clock.now)
        return [nic for _, nic in self.sent[-packets:]]

    def _action(self, flow: int) -> Any:
        def make(nic: Any) -> Any:
            def act(size: int) -> None:
                nic.tx_bytes += size
                self.sent.append((flow, nic.name))

            return act

        return balanced(self.flowlets, self.flowlets.bucket(flow), make)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "_monotonic", made)
    return made


def test_new_flows_take_the_nic_with_least_to_do(clock: Clock) -> None:
    team = Team(clock, 3)
    took = [team.send(flow, 20)[0] for flow in range(3)]
    assert sorted(took) == ["nic0", "nic1", "nic2"]


def test_a_flow_without_gaps_stays_where_it_is(clock: Clock) -> None:
    team = Team(clock)
    (first,) = team.send(1)
    for _ in range(200):  # the other NIC idles, and there is nothing to win by a move
        assert set(team.send(1, 10, every=SHORTEST_GAP * 0.9)) == {first}
    assert (team.flowlets.moved, team.flowlets.rebalanced) == (0, 0)


def test_bursts_go_by_turns(clock: Clock) -> None:
    team = Team(clock)
    took = []
    for _ in range(20):
        burst = team.send(1, 30, every=SHORTEST_GAP / 100)
        assert len(set(burst)) == 1  # no flowlet is torn apart
        took.append(burst[0])
        clock.now += 2 * SHORTEST_GAP
    assert took.count("nic0") == took.count("nic1")
    assert team.flowlets.moved >= 9


def test_a_gap_is_measured_from_the_last_packet_and_may_be_set(clock: Clock) -> None:
    team = Team(clock)
    team.flowlets.gap = 0.010
    first = team.send(1, 30)[0]
    clock.now += 0.009
    assert team.send(1, 30)[0] == first
    clock.now += 0.011
    assert team.send(1, 1)[0] != first


def test_it_does_not_move_while_its_last_packets_may_still_wait(clock: Clock) -> None:
    team = Team(clock)
    first = team.send(1, 100)[0]
    own = next(nic for nic in team.nics if nic.name == first)
    own.waiting = 100 * SIZE  # all of it, which takes the 20 ms in which it came, at least
    clock.now += 0.005
    assert team.send(1)[0] == first
    own.waiting = 0
    clock.now += 0.005
    assert team.send(1)[0] != first


def test_a_lone_packet_now_and_then_is_not_worth_a_move(clock: Clock) -> None:
    team = Team(clock)
    took = {nic for _ in range(50) for nic in team.send(1, 1, every=1.0, size=100)}
    assert len(took) == 1


def test_flows_without_gaps_are_shared_out_now_and_then(clock: Clock) -> None:
    team = Team(clock)
    for flow in range(4):
        team.flowlets.bucket(flow).uplink = team.nics[0]  # type: ignore[assignment]
        team.flowlets.bucket(flow).last = clock.now
    for _ in range(int(4 * REBALANCE / 0.0001)):
        for flow in range(4):
            team.send(flow, 1, every=0.000025)
    assert sorted(team.flowlets.flows().values()) == [2, 2]
    assert team.flowlets.moved == 0
    assert 1 <= team.flowlets.rebalanced <= 3


def test_a_single_flow_is_never_thrown_about(clock: Clock) -> None:
    team = Team(clock)
    took = {nic for _ in range(100) for nic in team.send(1, 100, every=0.0001)}
    assert len(took) == 1
    assert team.flowlets.rebalanced == 0


def test_full_nics_get_as_many_flows_each(clock: Clock) -> None:
    team = Team(clock)
    for flow in range(9):  # an elephant's company of eight, and one that has a NIC for itself
        team.flowlets.bucket(flow).uplink = team.nics[flow == 8]  # type: ignore[assignment]
        team.flowlets.bucket(flow).last = clock.now
    for nic in team.nics:
        nic.waiting = 200_000
    for _ in range(int(5 * REBALANCE / 0.0008)):
        for flow in range(9):  # both NICs send as much
            team.send(flow, 1, every=0.0008 / 9, size=8 * SIZE if flow == 8 else SIZE)
    assert sorted(team.flowlets.flows().values()) == [4, 5]


def test_what_was_on_a_nic_that_is_gone_is_placed_anew(clock: Clock) -> None:
    team = Team(clock)
    team.send(1, 10)
    team.send(2, 10)
    team.use(team.nics[1])
    assert {*team.send(1), *team.send(2)} == {"nic1"}
    assert team.flowlets.flows() == {"nic1": 2}


def test_no_flowlet_is_ever_torn_apart_without_a_rebalance(clock: Clock) -> None:
    """Random flows: each change of NIC comes after a gap (statement 38)."""
    dice = random.Random(3)
    team = Team(clock, 4)
    last: dict[int, tuple[float, str]] = {}
    moved = 0
    for _ in range(20_000):
        flow = dice.randrange(30)
        clock.now += dice.choice((0.00001, 0.00001, 0.0002, 0.002))
        before = team.flowlets.rebalanced
        (took,) = team.send(flow)
        when, where = last.get(flow, (0.0, took))
        if where != took and team.flowlets.rebalanced == before == 0:
            assert clock.now - when > team.flowlets.gap
            moved += 1
        last[flow] = clock.now, took
    assert team.flowlets.rebalanced or moved > 100
