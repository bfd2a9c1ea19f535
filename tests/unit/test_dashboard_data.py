"""What the dashboard's page is given."""

from __future__ import annotations

import json
import random

import pytest

from support.made_up_results import CELLS, bench, history, run, settings, values
from testbed.dashboard import spread, trends
from testbed.dashboard.data import Page, judge, to_json
from testbed.dashboard.goals import Goal
from testbed.dashboard.model import Detail, Index, Series
from testbed.results import metrics
from testbed.results.model import Run, Sample, Setting
from testbed.results.statistics import interval

MODERN = settings("modern", "frames", 1, True)
GOAL = Goal("fast", "throughput", "vxlan", {"nic": "modern"}, at_least=0.9)


def page_of(*runs: Run, goals: tuple[Goal, ...] = ()) -> tuple[Index, dict[str, Detail]]:
    page = Page()
    for each in runs:
        page.add(each)
    return page.index("results.db", goals, served=False), page.details


def measured(ours: list[float], theirs: list[float]) -> list[Sample]:
    return [*values(metrics.THROUGHPUT, "wnv", ours), *values(metrics.THROUGHPUT, "vxlan", theirs)]


def series_of(detail: Detail, metric: str, path: str, baseline: str = "") -> Series:
    (found,) = [
        each for each in detail.series if (each.metric, each.path, each.baseline) == (metric, path, baseline)
    ]
    return found


@pytest.mark.parametrize("count", [1, 3, 5, 7, 11, 25])
def test_spread_is_the_bootstrap_of_results(count: int) -> None:
    chance = random.Random(count)
    ordered = sorted(float(f"{chance.random():.4g}") for _ in range(count))
    assert spread.spread(chance.sample(ordered, count)) == interval(ordered)


def test_spread_of_an_even_number_lies_between_values() -> None:
    middle, low, high = spread.spread([1.0, 2.0, 4.0, 8.0])
    assert (middle, low < middle < high) == (3.0, True)
    assert 1 <= low <= 8 >= high


def test_ratio_is_taken_within_the_turn() -> None:
    samples = [*measured([2.0, 9.0, 30.0], [1.0, 3.0]), Sample("throughput", 5.0, "vxlan", 7)]
    _, details = page_of(run(1, samples, MODERN))
    (detail,) = details.values()
    (point,) = series_of(detail, "throughput", "wnv", "vxlan").points
    assert (point[1], point[4]) == (2.5, 2)
    assert series_of(detail, "throughput", "wnv").points[0][1] == 9.0


def test_no_ratio_to_a_baseline_that_measured_nothing() -> None:
    _, details = page_of(run(1, measured([2.0], [0.0]), MODERN))
    (detail,) = details.values()
    assert [each.baseline for each in detail.series] == ["", ""]


@pytest.mark.parametrize(
    ("low", "middle", "high", "most", "status"),
    [
        (0.95, 1.0, 1.1, False, "reached"),
        (0.7, 0.9, 1.1, False, "reached"),
        (0.7, 0.8, 0.9, False, "close"),
        (0.7, 0.8, 0.89, False, "missed"),
        (0.7, 0.8, 0.95, True, "reached"),
        (0.9, 1.0, 1.1, True, "close"),
        (0.91, 1.0, 1.1, True, "missed"),
    ],
)
def test_status_of_a_goal(low: float, middle: float, high: float, most: bool, status: str) -> None:
    assert judge((0, middle, low, high, 5), 0.9, most=most) == status


def test_goal_takes_the_newest_run_of_each_environment() -> None:
    old = run(1, measured([5.0] * 5, [10.0] * 5), MODERN)
    new = run(2, measured([9.5] * 5, [10.0] * 5), MODERN, commit=1)
    elsewhere = run(3, measured([6.0] * 5, [10.0] * 5), MODERN, commit=2, kernel="6.12.0")
    index, _ = page_of(old, new, elsewhere, goals=(GOAL,))
    assert [(each.point[1], each.status) for each in index.goals] == [(0.95, "reached"), (0.6, "missed")]
    assert index.goals[0].recent == [0.5, 0.95]


@pytest.mark.parametrize("other", [{"nic": "r2"}, {}])
def test_goal_is_not_about_other_settings(other: dict[str, Setting]) -> None:
    chosen = {name: value for name, value in MODERN.items() if name != "nic"} | other
    index, _ = page_of(run(1, measured([9.0], [10.0]), chosen), goals=(GOAL,))
    assert index.goals == []


def test_trend_finds_what_became_slower() -> None:
    chance = random.Random(1)
    cell = CELLS[0]
    runs = [run(number, bench(chance, cell), settings(*cell), commit=number) for number in range(6)]
    slow = [run(9, bench(chance, cell, slower=1.3), settings(*cell), commit=7)]
    (still,) = page_of(*runs)[0].trends
    assert {row.verdict for row in still.rows} <= {"same", "better"}
    (trend,) = page_of(*runs, *slow)[0].trends
    by_metric = {row.metric: row.verdict for row in trend.rows}
    assert by_metric["throughput"] == "regression"
    assert (trend.base, trend.new, trend.commit) == (trends.BEFORE, 1, 6)
    assert set(by_metric) <= {*trends.HEADLINES}


def test_one_commit_has_no_trend() -> None:
    twice = [run(number, measured([9.0] * 5, [10.0] * 5), MODERN) for number in (1, 2)]
    assert page_of(*twice)[0].trends == []


def test_code_that_no_commit_names_is_told_apart_by_its_batch() -> None:
    samples = measured([9.0] * 5, [10.0] * 5)
    runs = [run(number, samples, MODERN, batch=number // 2, modified=True) for number in range(4)]
    (trend,) = page_of(*runs)[0].trends
    assert (trend.base, trend.new) == (2, 2)


def test_index_numbers_runs_batches_commits_and_classes() -> None:
    index, details = page_of(*history(70))
    assert (len(index.runs.id), len(index.batches), len(index.commits)) == (70, 3, 3)
    assert [each.runs for each in index.batches] == [34, 34, 2]
    assert sum(each.runs for each in index.classes) == 70
    assert {*details} == {each.id for each in index.classes}
    assert index.runs.at == sorted(index.runs.at)
    assert index.baselines == ["vxlan"]
    newest = max(each.point[0] for each in index.latest)
    assert newest == 69


@pytest.mark.parametrize(
    ("offloads", "known"), [("lso,nvgre-lso", True), ("lso", False), ("", False), (None, None)]
)
def test_nvgre_offload_is_read_from_the_settings(offloads: str | None, known: bool | None) -> None:
    chosen = {name: value for name, value in MODERN.items() if name != "offloads"}
    if offloads is not None:
        chosen["offloads"] = offloads
    index, _ = page_of(run(1, measured([9.0], [10.0]), chosen))
    assert index.classes[0].nvgre is known


def test_objects_of_the_newest_run_that_has_them() -> None:
    chance = random.Random(1)
    rich = run(1, bench(chance, CELLS[0], rich=True), settings(*CELLS[0]))
    plain = run(2, bench(chance, CELLS[0]), settings(*CELLS[0]), commit=1)
    index, details = page_of(rich, plain)
    (detail,) = details.values()
    assert (detail.queues_run, len(detail.queues)) == (0, 8)
    assert {each.turn for each in detail.queues} == {0}
    assert [(each.object, len(each.times)) for each in detail.members] == [
        ("host1/nic1", 40),
        ("host1/nic2", 40),
    ]
    assert index.classes[0].has == ["history", "queues", "members"]
    assert not any(each.metric == "queue_packets" for each in detail.series)


def test_phases_that_come_later_get_a_place_of_their_own() -> None:
    chosen: dict[str, Setting] = {"engine": "docker"}
    first = [Sample("start_total", 2.0), Sample("start_phase", 2.0, object="nodes")]
    second = [
        Sample("start_total", 3.0),
        *(Sample("start_phase", 1.5, object=name) for name in ("links", "nodes")),
    ]
    _, details = page_of(run(1, first, chosen, kind="start"), run(2, second, chosen, commit=1, kind="start"))
    (detail,) = details.values()
    assert detail.phase_names == ["nodes", "links"]
    assert detail.phases == [(0, [2.0]), (1, [1.5, 1.5])]


def test_phases_are_in_the_order_in_which_they_began() -> None:
    began = {"nodes": 0.0, "wiring": 0.5, "hosts": 1.5}
    samples = [Sample("start_phase", 0.5, object=name, time=at) for name, at in sorted(began.items())]
    _, details = page_of(run(1, samples, {"engine": "docker"}, kind="start"))
    (detail,) = details.values()
    assert detail.phase_names == [*began]


def test_queues_and_members_are_in_the_order_of_their_numbers() -> None:
    names = [f"host1/nic1/queue{number}" for number in range(12)]
    samples = [Sample("queue_packets", 1.0, "wnv", turn, name) for name in sorted(names) for turn in (0, 1)]
    samples += [Sample("member_throughput", 1.0, "wnv", 0, f"host1/nic{number}", 0.5) for number in (10, 9)]
    _, details = page_of(run(1, samples, MODERN))
    (detail,) = details.values()
    assert [(each.object, each.turn) for each in detail.queues] == [
        (name, turn) for name in names for turn in (0, 1)
    ]
    assert [each.object for each in detail.members] == ["host1/nic9", "host1/nic10"]


def test_kinds_with_one_fingerprint_have_files_of_their_own() -> None:
    samples = measured([9.0], [10.0])
    index, details = page_of(run(1, samples, MODERN), run(2, samples, MODERN, kind="start"))
    assert len(details) == 2 == len({each.id for each in index.classes})


def test_empty_results_are_a_page_too() -> None:
    index, details = page_of()
    assert (index.runs.id, index.goals, index.trends, details) == ([], [], [], {})


def test_text_cannot_leave_the_script() -> None:
    text = "</script><!-- \u2028"
    encoded = to_json({"label": text})
    assert b"<" not in encoded
    assert "\u2028".encode() not in encoded
    assert json.loads(encoded) == {"label": text}
