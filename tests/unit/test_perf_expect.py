"""What a plan expects: which cells are compared, how they are judged, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbed.cli.bench import _print
from testbed.errors import BadInput
from testbed.perf import plan as plans
from testbed.perf.bench import Measured, Turn
from testbed.perf.expect import Outcome, judge
from testbed.perf.plan import BenchPlan, Cell
from testbed.results.model import Sample

MATRIX = "matrix: {nic: [r2, modern], wire: [frames, aggregated]}\n"


def load(folder: Path, expect: str, matrix: str = MATRIX) -> BenchPlan:
    path = folder / "plan.yaml"
    path.write_text(f"{matrix}\nexpect: [{expect}]")
    return plans.load(path)


def turns(*values: float, metric: str = "throughput") -> list[Turn]:
    """One turn for each value of ours, beside a baseline that must not count."""
    return [
        [
            Measured("wnv", turn, (Sample(metric, value, "wnv", turn),)),
            Measured("vxlan", turn, (Sample(metric, 1000.0, "vxlan", turn),)),
        ]
        for turn, value in enumerate(values)
    ]


def test_cells_that_differ_by_what_is_said_alone_are_compared(tmp_path: Path) -> None:
    plan = load(
        tmp_path,
        "{of: {nic: modern}, against: {nic: r2}, at_least: 2}, "
        "{of: {nic: modern, wire: frames}, against: {nic: r2, wire: aggregated}, at_most: 9}",
    )
    cells = plan.cells()
    assert plan.expect[0].pairs(cells) == [
        (Cell(nic="modern", wire="frames"), Cell(nic="r2", wire="frames")),
        (Cell(nic="modern", wire="aggregated"), Cell(nic="r2", wire="aggregated")),
    ]
    assert plan.expect[1].pairs(cells) == [
        (Cell(nic="modern", wire="frames"), Cell(nic="r2", wire="aggregated"))
    ]


def test_null_is_as_the_lab_is_and_no_cell_is_compared_with_itself(tmp_path: Path) -> None:
    matrix = "matrix: [{streams: 1}, {nic: r2, streams: 1}]"
    plan = load(tmp_path, "{of: {}, against: {nic: null}, at_most: 1}", matrix)
    assert plan.expect[0].pairs(plan.cells()) == [(Cell(nic="r2"), Cell())]


@pytest.mark.parametrize(
    ("bounds", "met"),
    [
        ("at_least: 2.5", True),
        ("at_least: 2.51", False),
        ("at_most: 2.5", True),
        ("at_most: 2.49", False),
        ("at_least: 2, at_most: 3", True),
        ("at_least: 3, at_most: 4", False),
    ],
)
def test_the_medians_of_the_turns_are_judged(tmp_path: Path, bounds: str, met: bool) -> None:
    matrix = "matrix: {nic: [r2, modern]}"
    plan = load(tmp_path, f"{{of: {{nic: modern}}, against: {{nic: r2}}, {bounds}}}", matrix)
    # means 4 and 4; ratio of turns 5, 2.5, 0.75
    measured = {Cell(nic="modern"): turns(5, 5, 3), Cell(nic="r2"): turns(1, 2, 4)}
    (outcome,) = judge(plan.expect, plan.cells(), measured)
    assert (outcome.ratio, outcome.met, outcome.why) == (2.5, met, "")
    assert (outcome.cell, outcome.against) == ("nic=modern", "nic=r2")


@pytest.mark.parametrize(
    ("measured", "why"),
    [
        ({"modern": turns(5)}, "not measured: nic=r2"),
        ({}, "not measured: nic=modern, nic=r2"),
        ({"modern": turns(5), "r2": turns(5, metric="loss")}, "not measured: nic=r2"),
        ({"modern": turns(5), "r2": turns(0)}, "throughput is 0: nic=r2"),
    ],
)
def test_without_a_ratio_it_is_not_met(tmp_path: Path, measured: dict[str, Any], why: str) -> None:
    matrix = "matrix: {nic: [r2, modern]}"
    plan = load(tmp_path, "{of: {nic: modern}, against: {nic: r2}, at_most: 9}", matrix)
    (outcome,) = judge(plan.expect, plan.cells(), {Cell(nic=nic): of for nic, of in measured.items()})
    assert (outcome.ratio, outcome.met, outcome.why) == (None, False, why)


PAIR = "of: {nic: modern}, against: {nic: r2}"


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        (f"{{{PAIR}}}", r"expect\[0\]: give it a number at_least, or at_most"),
        (f"{{{PAIR}, at_least: 1}}, {{{PAIR}, at_least: 3, at_most: 2}}", r"expect\[1\]: give it a number"),
        (f"{{{PAIR}, at_least: -1}}", r"Expected `float` >= 0.0 - at `\$.expect\[0\].at_least`"),
        (f"{{{PAIR}, at_least: 1, metric: speed}}", r"expect\[0\].metric: 'speed' is none of throughput, "),
        (f"{{{PAIR}, at_least: 1, metric: queue_packets}}", "'queue_packets' is none of"),
        (f"{{{PAIR}, at_least: 1, metric: loss}}", "loss is not measured with TCP: nic=modern"),
        (
            "{of: {nics: r2}, against: {nic: r2}, at_least: 1}",
            r"unknown field `nics` - at `\$.expect\[0\].of`",
        ),
        (
            "{of: {nic: basic}, against: {nic: r2}, at_least: 1}",
            r"\[0\].of: nic is basic in no cell of the plan",
        ),
        (
            "{of: {}, against: {nic: r2-nvgre}, at_least: 1}",
            "nic is r2-nvgre in no cell of the plan, but r2, mod",
        ),
        ("{of: {}, against: {team: none}, at_least: 1}", "team is none in no cell of the plan, but null"),
        ("{of: {nic: r2}, against: {}, at_least: 1}", r"expect\[0\].against: says nothing"),
        ("{of: {nic: r2}, against: {nic: r2}, at_least: 1}", r"expect\[0\]: names no two cells"),
        ("{of: {nic: r2}, at_least: 1}", "missing required field `against`"),
    ],
)
def test_what_can_not_be_judged_is_refused_with_its_place(tmp_path: Path, expect: str, message: str) -> None:
    with pytest.raises(BadInput, match=rf"plan.yaml: .*{message}"):
        load(tmp_path, expect)


def test_round_trips_and_retransmits_that_are_not_measured(tmp_path: Path) -> None:
    matrix = "latency: false\nmatrix: {protocol: udp, streams: [1, 2]}"
    for metric, why in (("rtt_load_p50", "without latency"), ("retransmits", "with UDP")):
        with pytest.raises(BadInput, match=f"{metric} is not measured {why}: streams=2 protocol=udp"):
            load(
                tmp_path,
                f"{{of: {{streams: 2}}, against: {{streams: 1}}, at_most: 1, metric: {metric}}}",
                matrix,
            )


def test_an_option_that_leaves_no_cell_to_compare_is_refused(tmp_path: Path) -> None:
    plan = load(tmp_path, f"{{{PAIR}, at_least: 1}}")
    with pytest.raises(BadInput, match="nic is modern in no cell of the plan, but r2"):
        plan.changed({"nic": ("r2",)}, {}).cells()


def outcome(ratio: float | None, *, met: bool, why: str = "") -> Outcome:
    return Outcome(
        metric="throughput",
        cell="nic=modern",
        against="nic=r2",
        ratio=ratio,
        at_least=2.5,
        at_most=None,
        met=met,
        why=why,
    )


@pytest.mark.parametrize("output", ["table", "markdown"])
def test_outcomes_are_told(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = [outcome(2.75, met=True), outcome(None, met=False, why="not measured: nic=r2")]
    _print(BenchPlan(), [], [], outcomes, output, {}, alone=False)
    said = capsys.readouterr().out
    words = [" ".join(line.replace("|", " ").split()) for line in said.splitlines()]
    assert "throughput nic=modern nic=r2 2.75 at least 2.5 yes" in words
    assert "throughput nic=modern nic=r2 at least 2.5 no: not measured: nic=r2" in words
