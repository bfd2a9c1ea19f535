"""Bench plans: what cells a file means, what options change, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbed.cli.bench import _plan
from testbed.errors import BadInput
from testbed.lab.bench_settings import offloads_of
from testbed.perf import plan as plans
from testbed.perf.plan import BenchPlan, Cell, Matrix
from testbed.topology.profiles import names

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "bench").glob("*.yaml"))
DOCUMENT = (ROOT / "docs" / "bench.md").read_text()


def load(tmp_path: Path, text: str) -> BenchPlan:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return plans.load(path)


def test_a_matrix_means_all_combinations(tmp_path: Path) -> None:
    plan = load(tmp_path, "matrix: {wire: [frames, aggregated], streams: [1, 8], nic: r2}")
    assert plan.cells() == [
        Cell(nic="r2", wire=wire, streams=streams)  # type: ignore[arg-type]
        for wire in ("frames", "aggregated")
        for streams in (1, 8)
    ]
    assert plan.cells()[1].name() == "nic=r2 wire=frames streams=8"
    assert BenchPlan().cells() == [Cell()]


def test_several_matrices_are_joined_and_no_cell_is_done_twice(tmp_path: Path) -> None:
    plan = load(tmp_path, "matrix: [{streams: [1, 8]}, {streams: 8, guest_lso: off}, {streams: 1}]")
    assert plan.cells() == [Cell(streams=1), Cell(streams=8), Cell(streams=8, guest_lso=False)]


def test_options_go_before_the_file(tmp_path: Path) -> None:
    plan = load(tmp_path, "{repeat: 9, label: mine, matrix: [{streams: [1, 8]}, {streams: 2, ip: 6}]}")
    changed = plan.changed({"streams": (4,), "ip": ()}, {"repeat": 2, "label": "", "seconds": None})
    assert changed.cells() == [Cell(streams=4), Cell(streams=4, ip=6)]
    assert (changed.repeat, changed.label, changed.seconds) == (2, "mine", 5)
    assert plan.changed({}, {"latency": False, "warm_up": 0}).terms() == plans.Terms(9, 0, latency=False)


def test_at_least_five_turns_by_default() -> None:
    assert BenchPlan().repeat >= 5


@pytest.mark.parametrize(
    ("cell", "version", "size"),
    [
        (Cell(), 4, 128 * 1024),
        (Cell(protocol="udp"), 4, 1458 - 52),
        (Cell(protocol="udp"), 6, 1458 - 72),
        (Cell(protocol="udp", message_size=64), 6, 64),
    ],
)
def test_message_sizes(cell: Cell, version: int, size: int) -> None:
    assert BenchPlan().load(cell, 1458, version).message_size == size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seconds: 0", r"plan.yaml: Expected `int` >= 1 - at `\$.seconds`"),
        ("repeats: 5", "unknown field `repeats`"),
        ("matrix: {wire: copper}", r"copper.*\$.matrix.wire"),
        ("matrix: {ip: 5}", "ip is 5"),
        ("matrix: {nic: []}", "no cells"),
        ("matrix: []", "no cells"),
        ("matrix: {protocol: udp, message_size: 70000}", "message_size is 70000: must be from 16 to 65507"),
        ("matrix: {streams: 129}", "<= 128"),
        ("baselines: [magic]", "magic"),
        ("x: [", r"plan.yaml:\d: YAML"),
        ("a: 1\na: 2", r"plan.yaml:2: .*line 1"),
        ("- 1", "plan.yaml:1"),
        ("", "plan.yaml"),
    ],
)
def test_a_bad_plan_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load(tmp_path, text)


def test_plans_that_are_no_files_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"none.yaml: No such file"):
        plans.load(tmp_path / "none.yaml")
    monkeypatch.setattr(plans, "_MAX_BYTES", 4)
    with pytest.raises(BadInput, match="larger than 4 bytes"):
        load(tmp_path, "seconds: 1")
    monkeypatch.undo()
    with pytest.raises(BadInput, match=r"has 1024 cells: at most 1000"):
        load(tmp_path, f"matrix: {{streams: {list(range(1, 33))}, rate: {list(range(1, 33))}}}")


@pytest.mark.parametrize("text", ["modern,nvgre", "modern,nvgre=yes", "modern,nvgr=off", "basic,lso=on", "x"])
def test_a_nic_that_can_not_be(text: str) -> None:
    with pytest.raises(BadInput, match=f"NIC '{text}'"):
        offloads_of(text)


def test_a_nic_with_tasks_switched() -> None:
    assert "nvgre" not in offloads_of("modern,nvgre=off").enabled
    assert "nvgre" in offloads_of("modern,nvgre=off").supported


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_plans(path: Path) -> None:
    for cell in plans.load(path).cells():
        if cell.nic:
            offloads_of(cell.nic)


def test_the_offload_matrix_has_every_profile_with_and_without() -> None:
    plan = plans.load(ROOT / "examples" / "bench" / "offloads.yaml")
    nics = {str(cell.nic) for cell in plan.cells()}
    assert {nic.partition(",")[0] for nic in nics} == {*names()}
    for name in names():
        if "nvgre" in offloads_of(name).enabled:
            assert f"{name},nvgre=off" in nics
    assert {cell.wire for cell in plan.cells()} == {"frames", "aggregated"}
    assert "vxlan" in plan.baselines


def test_no_options_mean_one_cell() -> None:
    chosen: dict[str, Any] = dict.fromkeys(Matrix.__struct_fields__, ())
    chosen |= dict.fromkeys(
        ("source", "target", "seconds", "warm_up", "repeat", "latency", "congestion_control")
    )
    assert _plan(None, {**chosen, "baseline": ()}) == BenchPlan(matrix=(Matrix(),))


@pytest.mark.parametrize("struct", [Matrix, BenchPlan])
def test_the_document_has_every_key(struct: type[Matrix | BenchPlan]) -> None:
    missing = [name for name in struct.__struct_encode_fields__ if f"| `{name}` |" not in DOCUMENT]
    assert missing == []
