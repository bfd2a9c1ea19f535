"""A plan's cells in a lab: those that fail are named and the others go on; runs that are recorded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from support.cli import TOPOLOGIES
from testbed.errors import BadInput, LabError, MachineLacks
from testbed.lab import bench as lab_bench
from testbed.lab import bench_settings
from testbed.lab.bench import CellResult, failed, run_plan
from testbed.perf.plan import BenchPlan, Cell, Matrix
from testbed.topology import plan_from_file

PLAN = plan_from_file(TOPOLOGIES / "team.yaml", {})
LAB: Any = SimpleNamespace(record=SimpleNamespace(name="lab"), plan=PLAN)


def planned(*streams: int) -> BenchPlan:
    return BenchPlan(matrix=Matrix(streams=streams))


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """Cells that were run: one of two streams fails midway, one of three is refused."""
    run: list[Cell] = []

    def run_cell(_lab: Any, _plan: BenchPlan, cell: Cell, progress: Any, batch: str) -> Any:
        progress(0, 1, "wnv")
        run.append(cell)
        if cell.streams == 2:
            raise LabError("wnv: iperf3 client: the server is gone")
        return (cell, batch)

    monkeypatch.setattr(lab_bench, "run_cell", run_cell)
    monkeypatch.setattr(
        lab_bench, "_refused", lambda _lab, _hosts, _server, cell: "not here" * (cell.streams == 3)
    )
    return run


def test_a_cell_that_fails_is_named_and_the_others_go_on(cells: list[Cell]) -> None:
    done: list[Any] = []
    said: list[str] = []
    failures = run_plan(LAB, planned(1, 2, 3, 4), lambda *state: said.append(state[2]), done.append)
    assert [cell.streams for cell, _ in done] == [1, 4]
    assert len({batch for _, batch in done}) == 1
    assert [cell.streams for cell in cells] == [1, 2, 4]
    assert [(each.cell, each.error) for each in failures] == [
        ("streams=2", "wnv: iperf3 client: the server is gone"),
        ("streams=3", "not here"),
    ]
    assert said[0] == "cell 1/4: wnv"
    error = failed(failures, 4)
    assert error.exit_code == 3
    assert "2 of 4 cells" in str(error)
    assert "streams=2: wnv: iperf3 client: the server is gone" in str(error)


@pytest.mark.usefixtures("cells")
@pytest.mark.parametrize(("streams", "error"), [(2, LabError), (3, BadInput)])
def test_a_single_cell_ends_with_its_own_error(streams: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        run_plan(LAB, planned(streams), lambda *_: None, lambda _: None)


def test_what_can_not_be_recorded_ends_the_plan(cells: list[Cell]) -> None:
    def full(_: CellResult) -> None:
        raise MachineLacks("the disk is full")

    with pytest.raises(MachineLacks):
        run_plan(LAB, planned(1, 4), lambda *_: None, full)
    assert len(cells) == 1


def test_nics_are_put_back_when_switching_them_fails_halfway(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = bench_settings.offloads_of("modern")
    now = {"host1": wanted, "host2": wanted}
    asked: list[str] = []

    def show(_lab: Any, host: str) -> list[Any]:
        offloads = {"supported": now[host].supported, "enabled": now[host].enabled}
        return [{"name": "nic1", "offloads": offloads}]

    def replace(_lab: Any, host: str, _name: str, offloads: Any) -> None:
        asked.append(host)
        now[host] = offloads
        if len(asked) == 2:
            raise LabError("host2 is gone")

    monkeypatch.setattr(bench_settings.nics, "show", show)
    monkeypatch.setattr(bench_settings.nics, "replace", replace)
    with pytest.raises(LabError), bench_settings.of_nics(LAB, {"host1", "host2"}, "basic"):
        pytest.fail("entered")
    assert now == {"host1": wanted, "host2": wanted}
