"""testbed.results.compare on made-up runs: real losses are seen, noise is not, unlike runs are left out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from support.results import mark, run
from testbed.errors import BadInput
from testbed.results.compare import COLUMNS, Comparison, Row, cells, compare, markdown, summary
from testbed.results.model import Metric, Run, Sample, new_id
from testbed.results.statistics import chance_of_increase, change, corrected, interval, student

NAMES = ("before", "after")


def compared(base: Run | Sequence[Run], new: Run | Sequence[Run], **more: Any) -> Comparison:
    sides = [[each] if isinstance(each, Run) else each for each in (base, new)]
    return compare(sides[0], sides[1], NAMES, **more)


def row(found: Comparison, metric: str = "throughput") -> Row:
    (only,) = [each for each in found.rows if each.metric == metric]
    return only


# ---- what is a regression ---------------------------------------------------------------------

CASES = {
    # (loss of throughput, noise, threshold): verdict
    "10 % in little noise": (0.10, 0.01, 5, "regression"),
    "10 % in much noise": (0.10, 0.30, 5, "same"),
    "2 % within the threshold": (0.02, 0.003, 5, "worse"),
    "2 % beyond a lower threshold": (0.02, 0.003, 1, "regression"),
    "2 % in noise": (0.02, 0.05, 1, "same"),
    "nothing": (0.0, 0.01, 0, "same"),
    "a gain": (-0.10, 0.01, 5, "better"),
}


@pytest.mark.parametrize("name", CASES)
def test_verdicts(name: str) -> None:
    loss, noise, threshold, verdict = CASES[name]
    found = compared(run(noise=noise, seed=3), run(noise=noise, ratio=1 - loss, seed=4), threshold=threshold)
    seen = row(found)
    assert (seen.verdict, seen.path, seen.baseline, seen.unit) == (verdict, "wnv", "vxlan", "")
    assert (len(found.regressions) == 1) is (verdict == "regression")
    assert seen.low is not None
    assert seen.high is not None
    assert seen.change is not None
    assert seen.low <= seen.change <= seen.high


def test_a_machine_of_another_speed_is_no_regression() -> None:
    """The ratio to the baseline of the same turn is what counts: the values differ by far more."""
    seen = row(compared(run(seed=3), run(speed=2.0, seed=4)))
    assert seen.verdict == "same"
    assert seen.high is not None
    assert seen.high < 2


def test_more_cpu_is_a_regression() -> None:
    seen = row(compared(run(cpu=0.2, seed=3), run(cpu=0.25, seed=4)), "switch_cpu_per_gigabit")
    assert (seen.verdict, seen.baseline, seen.unit) == ("regression", "", "s/Gbit")
    assert seen.change == pytest.approx(25, abs=2)
    assert row(compared(run(cpu=0.25), run(cpu=0.2)), "switch_cpu_per_gigabit").verdict == "better"


def test_without_a_baseline_values_are_compared() -> None:
    base, new = (run(baseline=False, seed=seed) for seed in (3, 4))
    assert (row(compared(base, new)).baseline, row(compared(base, new)).unit) == ("", "Gbit/s")
    mixed = compared(base, run(seed=5))
    assert [each.metric for each in mixed.rows] == ["switch_cpu_per_gigabit"]
    assert sorted(mixed.left_out) == [
        "bench: throughput wnv / vxlan: in NEW only",
        "bench: throughput wnv: in BASE only",
    ]


def test_too_few_values_are_not_judged() -> None:
    seen = row(compared(run(turns=4), run(turns=10, ratio=0.5)))
    assert (seen.verdict, seen.base_values, seen.new_values) == ("too few", 4, 10)
    assert row(compared(run(turns=5), run(turns=5, ratio=0.5))).verdict == "regression"
    runs = [run(turns=1, seed=seed) for seed in range(5)]
    assert row(compared(runs, [run(turns=1, seed=seed, ratio=0.5) for seed in range(5)])).verdict == (
        "regression"
    )


def test_what_is_neither_good_nor_bad_or_zero_is_not_judged() -> None:
    def lossy(share: float) -> Run:
        from testbed.results.metrics import LOSS, RETRANSMITS

        samples = [Sample("loss", share, "wnv", turn) for turn in range(6)]
        samples += [Sample("retransmits", 100 * share + 1, "wnv", turn) for turn in range(6)]
        return msgspec.structs.replace(run(), metrics=(LOSS, RETRANSMITS), samples=tuple(samples))

    found = compared(lossy(0.0), lossy(5.0))
    assert {each.metric: each.verdict for each in found.rows} == {
        "loss": "undecided",
        "retransmits": "not judged",
    }
    assert found.judged == []
    assert "1 not decided" in summary(found)


def test_a_baseline_that_is_zero_once_is_left_out_on_both_sides() -> None:
    """One run of BASE has it: the values are compared then, not a ratio here and values there."""
    base, new = run(seed=3), [run(seed=4), run(seed=5)]
    zero = tuple(
        msgspec.structs.replace(each, value=0.0) if (each.path, each.repetition) == ("vxlan", 2) else each
        for each in base.samples
    )
    found = compared([run(seed=6), msgspec.structs.replace(base, samples=zero)], new)
    assert (row(found).baseline, row(found).base_values, row(found).new_values) == ("", 20, 20)
    assert found.left_out == []


def test_metrics_that_one_side_lacks_are_told_in_one_line() -> None:
    base = run(seed=3)
    more = [Sample(name, 1.0, "wnv", turn) for name in ("m0", "m1") for turn in range(5)]
    richer = msgspec.structs.replace(
        base, samples=(*base.samples, *more), metrics=(*base.metrics, *METRICS[:2])
    )
    assert compared(richer, run(seed=4)).left_out == ["bench: m0, m1 wnv: in BASE only"]


def test_a_profile_tells_its_offloads() -> None:
    marks = [mark({"nic": nic, "offloads": off}) for nic, off in (("r2", "lso"), ("modern", "lso,nvgre"))]
    base, new = ([run(fingerprint=each, seed=seed) for each in marks] for seed in (3, 4))
    assert {each.settings for each in compared(base, new).rows} == {"nic=r2", "nic=modern"}
    third = mark({"nic": "r2", "offloads": "none"})
    base, new = ([*side, run(fingerprint=third)] for side in (base, new))
    assert "nic=r2 offloads=none" in {each.settings for each in compared(base, new).rows}


def test_single_objects_and_moments_stay_out() -> None:
    base = run()
    more = [Sample("throughput", 1.0, "wnv", 0, "queue0"), Sample("throughput", 1.0, "wnv", 0, "", 2.5)]
    assert row(compared(base, msgspec.structs.replace(run(), samples=(*base.samples, *more)))).change == 0


# ---- like with like ---------------------------------------------------------------------------

UNLIKE = {
    "kernel": mark(kernel="6.6"),
    "cpu": mark(cpu="Another CPU"),
    "cores": mark(cores=2),
    "python": mark(python="3.12.0"),
    "topology": mark(topology_hash="ffff"),
    "wire": mark({"wire": "aggregated"}),
    "mtu": mark({"mtu": 1458}),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_unlike_runs_are_not_compared(name: str) -> None:
    slow = run(ratio=0.5, fingerprint=UNLIKE[name])
    with pytest.raises(BadInput, match=rf"nothing alike.*\n.*nearest differs in {name} \("):
        compared(run(), slow)
    found = compared(run(), [run(seed=2), slow])
    assert found.regressions == []
    (told,) = found.left_out
    assert told.startswith("1 run (bench) of after: nothing alike in before; nearest differs in " + name)


def test_another_commit_is_alike() -> None:
    new = run(ratio=0.5, fingerprint=mark(commit="f" * 40, version="0.2.0", python="3.11.9"))
    assert row(compared(run(), new)).verdict == "regression"


def test_classes_are_compared_by_themselves() -> None:
    slow = mark({"wire": "aggregated"})
    base = [run(), run(fingerprint=slow, ratio=2)]
    found = compared(base, [run(seed=2), run(fingerprint=slow, ratio=1)])
    verdicts = {each.settings: each.verdict for each in found.rows if each.metric == "throughput"}
    assert verdicts == {"wire=frames": "same", "wire=aggregated": "regression"}


def test_kinds_are_compared_by_themselves() -> None:
    with pytest.raises(BadInput, match="before has none of this kind"):
        compared(run(), run(kind="start"))


def test_a_run_is_not_compared_with_itself() -> None:
    one = run()
    with pytest.raises(BadInput, match=f"1 runs in common: {one.id}"):
        compared(one, [one, run()])


# ---- how often it is wrong --------------------------------------------------------------------


def test_false_alarms_are_rare_and_real_losses_found() -> None:
    """60 comparisons of ten turns each with a noise of 3 %: of equals, and of a loss of 10 %."""
    alarms = losses = 0
    for seed in range(60):
        base, new, slow = (
            run(noise=0.03, seed=10 * seed + each, ratio=ratio) for each, ratio in enumerate((1.0, 1.0, 0.9))
        )
        alarms += row(compared(base, new)).verdict == "regression"
        losses += row(compared(base, slow)).verdict == "regression"
    assert alarms <= 2
    assert losses >= 57


METRICS = tuple(Metric(f"m{number}", "ms", "lower", "made up") for number in range(100))
LEVEL = 0.025  # of a regression, at a confidence of 95 %


def noisy(seed: int, slower: float = 1.0) -> Run:
    """A hundred metrics in five turns, with a noise of 5 %; the first is ``slower``."""
    chooser = random.Random(seed)
    samples = [
        Sample(
            metric.name,
            chooser.lognormvariate(0, 0.05) * (slower if metric is METRICS[0] else 1),
            "wnv",
            turn,
        )
        for metric in METRICS
        for turn in range(5)
    ]
    return msgspec.structs.replace(run(), id=new_id(), metrics=METRICS, samples=tuple(samples))


def test_chance_among_a_hundred_metrics_is_no_regression() -> None:
    found = compared(noisy(1), noisy(2))
    by_itself = [
        each for each in found.rows if each.low is not None and each.low > 0 and (each.change or 0) > 5
    ]
    assert len(by_itself) >= 2  # so many would have been called regressions
    assert {each.verdict for each in by_itself} == {"worse"}
    assert found.regressions == []


def test_a_real_loss_among_a_hundred_metrics_is_found() -> None:
    (only,) = compared(noisy(1), noisy(2, slower=1.5)).regressions
    assert only.metric == "m0"
    assert only.chance is not None
    assert only.chance < LEVEL


@pytest.mark.parametrize(("runs", "turns", "most"), [(1, 5, 10), (1, 10, 10), (5, 5, 10)])
def test_families_without_a_change_seldom_have_an_alarm(runs: int, turns: int, most: int) -> None:
    """Of 100 families of 100, where each by itself would have alarms in nearly all."""
    chooser = random.Random(7)

    def side() -> list[list[float]]:
        shifts = [chooser.lognormvariate(0, 0.03) if runs > 1 else 1.0 for _ in range(runs)]
        return [[shift * chooser.lognormvariate(0, 0.05) for _ in range(turns)] for shift in shifts]

    families = [[chance_of_increase(side(), side()) for _ in range(100)] for _ in range(100)]
    assert sum(min(family) <= LEVEL for family in families) > 80
    assert sum(min(corrected(family)) <= LEVEL for family in families) <= most


def test_correction_is_that_of_benjamini_and_hochberg() -> None:
    """The example of their paper, table 1: at 5 % its first four are found, Bonferroni's three."""
    told = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
    told += [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    assert [at for at, chance in enumerate(corrected(told)) if chance <= 0.05] == [0, 1, 2, 3]
    mixed = random.Random(1).sample(range(len(told)), len(told))
    assert corrected([told[at] for at in mixed]) == [corrected(told)[at] for at in mixed]
    assert corrected([]) == []


QUANTILES = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 8: 2.306, 9: 2.262, 18: 2.101}
"""Of Student's t, by degrees of freedom: what it exceeds in 2.5 % of all cases (any table has them)."""


@pytest.mark.parametrize("freedom", QUANTILES)
def test_student(freedom: int) -> None:
    assert student(QUANTILES[freedom], freedom) == pytest.approx(0.025, rel=0.001)
    assert student(-QUANTILES[freedom], freedom) == pytest.approx(0.975, rel=0.001)
    assert student(0, freedom) == 0.5


def test_values_without_any_noise_are_as_sure_as_can_be() -> None:
    same, more = [[1.0] * 5], [[2.0] * 5]
    assert [chance_of_increase(*sides) for sides in ((same, more), (more, same), (same, same))] == [0, 1, 0.5]


def test_differences_between_runs_widen_the_interval() -> None:
    chooser = random.Random(5)
    shifts = [chooser.gauss(1, 0.1) for _ in range(6)]
    groups = [[shift * chooser.gauss(1, 0.01) for _ in range(10)] for shift in shifts]
    flat = [[value for group in groups for value in group]]
    by_run, pooled = change(groups, groups), change(flat, flat)
    assert by_run[0] == pooled[0] == 1
    assert by_run[2] - by_run[1] > 1.5 * (pooled[2] - pooled[1])
    assert change(groups, groups) == by_run  # always the same


def test_interval_of_one_sample() -> None:
    middle, low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (middle, low, high) == (3.0, 1.0, 5.0)
    assert interval([2.0] * 9) == (2.0, 2.0, 2.0)


# ---- as text ----------------------------------------------------------------------------------


def test_markdown_is_one_table_with_the_regression_in_bold() -> None:
    pipe = mark({"nic": "a|b"})
    base = [run(), run(fingerprint=pipe), run(kind="start")]
    found = compared(base, [run(seed=2), run(fingerprint=pipe, ratio=0.5)])
    lines = markdown(found).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert lines[0].startswith("### 1 regression beyond 5 % among 4 comparisons")
    cells_of = [line.replace("\\|", "").count("|") for line in table]
    assert cells_of == [len(COLUMNS) + 1] * len(table)
    assert sum("**regression**" in line for line in table) == 1
    assert "- 1 run (start) of before: after has none of this kind" in lines


def test_cells_tell_unit_and_interval() -> None:
    found = compared(run(cpu=0.2, seed=3), run(cpu=0.25, seed=4))
    shown = dict(zip(COLUMNS, cells(row(found, "switch_cpu_per_gigabit")), strict=True))
    assert shown["BASE"].endswith(" s/Gbit")
    assert shown["change"].startswith("+2")
    assert " to +" in shown["change"]
    assert dict(zip(COLUMNS, cells(row(found)), strict=True))["path"] == "wnv / vxlan"


def test_ids_are_new_each_time() -> None:
    assert new_id() != new_id()
