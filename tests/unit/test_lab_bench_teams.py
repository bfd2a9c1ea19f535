"""Teams in a bench: the order of cells, what is refused, and that a lab gets its own back whatever fails."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.cli import TOPOLOGIES
from testbed.errors import BadInput, LabError
from testbed.lab import bench_teams, store
from testbed.lab.bench_teams import NotPutBack, Teams, grouped, plan_of
from testbed.perf.plan import Cell
from testbed.topology import plan_from_file
from testbed.topology.diff import PlanDiff
from testbed.topology.plan import Plan
from testbed.topology.reteam import name_of

PLAN = plan_from_file(TOPOLOGIES / "team.yaml", {})
HOSTS = ["host1", "host2"]
OWN, LACP = "SwitchIndependent/Dynamic", "Lacp/Dynamic"


def test_cells_of_one_team_are_next_to_each_other_the_labs_own_first() -> None:
    teams = [LACP, "none", OWN, LACP, None, "what", "none"]
    cells = [Cell(team=team, streams=number) for number, team in enumerate(teams, 1)]
    found = [(cell.team, cell.streams) for cell in grouped(PLAN, HOSTS, cells)]
    assert found == [(OWN, 3), (None, 5), ("what", 6), (LACP, 1), (LACP, 4), ("none", 2), ("none", 7)]


def test_one_nic_is_no_team_for_the_first_host_and_stays_at_the_other(tmp_path: Path) -> None:
    path = tmp_path / "uneven.yaml"
    text = (TOPOLOGIES / "team.yaml").read_text()
    path.write_text(text.replace("range(1, nics + 1)", "range(1, nics + 2 - host)"))
    plan = plan_from_file(path, {})
    assert [len(host.nics) for host in plan.hosts] == [2, 1]
    assert [name_of(host) for host in plan_of(plan, HOSTS, LACP).hosts] == [LACP, "none"]
    with pytest.raises(BadInput, match="host2 has one NIC, so its team is none, not Lacp/Dynamic"):
        plan_of(plan, HOSTS[::-1], LACP)
    assert plan_of(plan, HOSTS[::-1], "none").hosts[0].nics == plan.hosts[0].nics[:1]
    assert plan_of(plan, HOSTS, None) is plan


class _Switched:
    """Stands for what needs a lab: what was carried out, and what is to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
        monkeypatch.setenv("TESTBED_STATE_DIR", str(state))
        (store.state_dir() / "labs" / "lab").mkdir()
        self.lab: Any = SimpleNamespace(record=SimpleNamespace(name="lab"), plan=PLAN)
        store.save_plan("lab", PLAN)
        self.done: list[str] = []
        self.fails: list[str] = []
        self.on_record: list[str] = []
        self.meanwhile = lambda: None
        monkeypatch.setattr(bench_teams, "carry_out", self.carry_out)
        monkeypatch.setattr(bench_teams, "_ByHand", _Nothing)
        monkeypatch.setattr(bench_teams, "_wait_active", lambda *_: None)
        monkeypatch.setattr(bench_teams.team_of, "uninstall", lambda *_: None)

    def carry_out(self, lab: Any, new: Plan, changes: PlanDiff, _progress: Any, *, save: bool) -> None:
        assert [*changes.hosts.changed] == HOSTS
        assert not save
        team = name_of(new.hosts[0])
        self.on_record.append(name_of(store.load_plan("lab").hosts[0]))
        self.done.append(team)
        self.meanwhile()
        if team in self.fails:
            self.fails.remove(team)
            raise LabError(f"no {team}")
        lab.plan = new

    def is_its_own(self) -> bool:
        return bool(self.lab.plan == PLAN and store.load_plan("lab") == PLAN)


class _Nothing:
    failed = frozenset[tuple[str, str]]()

    def __init__(self, *_: object) -> None:
        pass

    def repeat(self, _lab: Any) -> None:
        pass


@pytest.fixture
def switched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> _Switched:
    return _Switched(monkeypatch, tmp_path / "state")


def quiet(_: str) -> None:
    pass


def test_a_team_is_switched_once_and_put_back_at_the_end(switched: _Switched) -> None:
    with Teams(switched.lab, HOSTS) as teams:
        for team in (None, OWN, LACP, LACP, "none"):
            teams.switch(team, quiet)
        assert switched.done == [LACP, "none"]
    assert switched.done == [LACP, "none", OWN]
    # until the lab is complete again its record has another team than its file: `apply` builds it anew
    assert switched.on_record == [LACP, "none", "none"]
    assert switched.is_its_own()


def test_nothing_is_done_for_the_labs_own_team_nor_for_a_refused_one(switched: _Switched) -> None:
    with Teams(switched.lab, HOSTS) as teams:
        teams.switch(OWN, quiet)
        with pytest.raises(BadInput):
            teams.switch("what", quiet)
    assert switched.done == []


def test_a_team_that_fails_leaves_the_labs_own_and_the_next_one_is_tried(switched: _Switched) -> None:
    switched.fails = ["none"]
    with Teams(switched.lab, HOSTS) as teams:
        teams.switch(LACP, quiet)
        with pytest.raises(LabError, match="no none"):
            teams.switch("none", quiet)
        assert switched.is_its_own()
        teams.switch(LACP, quiet)
    assert switched.done == [LACP, "none", OWN, LACP, OWN]
    assert switched.is_its_own()


def test_a_lab_that_can_not_be_put_back_says_how(switched: _Switched) -> None:
    switched.fails = [OWN]
    teams = Teams(switched.lab, HOSTS)
    teams.switch(LACP, quiet)
    with pytest.raises(NotPutBack, match="no SwitchIndependent/Dynamic; `testbed apply lab FILE`"):
        teams.close()
    assert name_of(store.load_plan("lab").hosts[0]) == LACP


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_while_switching_waits_for_its_end(switched: _Switched, number: int) -> None:
    def end(*_: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(number, end)
    try:
        switched.meanwhile = lambda: signal.raise_signal(number)
        teams = Teams(switched.lab, HOSTS)
        for step in (lambda: teams.switch(LACP, quiet), teams.close):
            with pytest.raises(SystemExit):
                step()
            assert name_of(switched.lab.plan.hosts[0]) == switched.done[-1]  # carried out to its end
        assert switched.done == [LACP, OWN]
        assert switched.is_its_own()
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, before)
