"""Is NEW as good as BASE? Like with like only, each by its ratio to the baselines of its own runs."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from testbed.errors import BadInput
from testbed.results.model import OURS, Better, Metric, Run, Setting
from testbed.results.statistics import Groups, chance_of_increase, change, corrected
from testbed.results.turns import Turns, ratios, turns

FEWEST = 5
"""Values on either side below which nothing is judged: a bootstrap of fewer is too narrow."""

Verdict = Literal["regression", "worse", "same", "better", "not judged", "too few", "undecided"]


class Row(Struct, frozen=True):
    """One metric of one class. base, new: medians, of ratios to ``baseline`` or, where it is "", of values.

    change, low, high: NEW / BASE - 1 in percent, with the bounds of its interval; None where there is none.
    chance: p that it is worse by chance only, corrected for the number of rows; None where it is not judged.
    """

    kind: str
    class_id: str
    settings: str
    metric: str
    unit: str
    better: Better
    path: str
    baseline: str
    base: float
    new: float
    base_values: int
    new_values: int
    change: float | None
    low: float | None
    high: float | None
    chance: float | None
    verdict: Verdict


class Comparison(Struct, frozen=True):
    """threshold, confidence: percent. left_out: what was not compared, and why."""

    base: str
    new: str
    threshold: float
    confidence: float
    rows: list[Row]
    left_out: list[str]

    @property
    def regressions(self) -> list[Row]:
        """The rows because of which NEW is worse."""
        return [row for row in self.rows if row.verdict == "regression"]

    @property
    def judged(self) -> list[Row]:
        """The rows that could have been regressions."""
        return [row for row in self.rows if row.verdict not in ("not judged", "too few", "undecided")]


Class = tuple[str, str]  # kind, class id


def compare(
    base: Sequence[Run],
    new: Sequence[Run],
    names: tuple[str, str],
    *,
    threshold: float = 5,
    confidence: float = 95,
) -> Comparison:
    """Compare two sets of runs. Raises BadInput where they share a run or have no class in common."""
    if shared := {run.id for run in base} & {run.id for run in new}:
        raise BadInput(f"{names[0]} and {names[1]} have {len(shared)} runs in common: {min(shared)}")
    sides = (_by_class(base), _by_class(new))
    common = sorted(sides[0].keys() & sides[1].keys())
    left_out = [*_left_out(sides[0], sides[1], names), *_left_out(sides[1], sides[0], names[::-1])]
    if not common:
        told = "".join(f"\n  {line}" for line in left_out)
        raise BadInput(f"{names[0]} and {names[1]} have nothing alike to compare:{told}")
    varying = _varying([sides[0][each][0] for each in common])
    rows = []
    for each in common:
        settings = " ".join(f"{name}={sides[0][each][0].fingerprint.settings.get(name)}" for name in varying)
        found, unlike = _rows(sides[0][each], sides[1][each], settings, threshold, confidence)
        rows += found
        left_out += [f"{settings or each[0]}: {line}" for line in unlike]
    return Comparison(*names, threshold, confidence, _corrected(rows, confidence), left_out)


def _by_class(runs: Iterable[Run]) -> dict[Class, list[Run]]:
    found: dict[Class, list[Run]] = defaultdict(list)
    for run in runs:
        found[run.kind, run.fingerprint.class_id()].append(run)
    return dict(found)


def _varying(runs: Sequence[Run]) -> list[str]:
    """The settings in which the compared classes differ from each other."""
    every = sorted({name for run in runs for name in run.fingerprint.settings})
    found = [name for name in every if _variety(runs, name) > 1]
    told = _variety(runs, "nic") == _variety(runs, "nic", "offloads")  # a profile's name tells its offloads
    return [name for name in found if name != "offloads" or not told]


def _variety(runs: Sequence[Run], *names: str) -> int:
    """How many values of these settings there are."""
    return len({repr([run.fingerprint.settings.get(name) for name in names]) for run in runs})


# ---- what is not alike ------------------------------------------------------------------------


def _left_out(here: dict[Class, list[Run]], there: dict[Class, list[Run]], names: Sequence[str]) -> list[str]:
    """A line for each class that the other side lacks: in what it differs from the nearest one there."""
    told = []
    for each in sorted(here.keys() - there.keys()):
        runs = here[each]
        ours = runs[0].fingerprint.comparable()
        others = [others[0].fingerprint.comparable() for kind, others in _of_kind(there, each[0])]
        count = f"{len(runs)} run{'s' * (len(runs) > 1)} ({runs[0].kind}) of {names[0]}"
        if not others:
            told.append(f"{count}: {names[1]} has none of this kind")
            continue
        nearest = min((_differences(ours, other) for other in others), key=len)
        told.append(f"{count}: nothing alike in {names[1]}; nearest differs in {', '.join(nearest)}")
    return told


def _of_kind(side: dict[Class, list[Run]], kind: str) -> list[tuple[str, list[Run]]]:
    return [(name, runs) for (name, _), runs in side.items() if name == kind]


def _differences(ours: dict[str, Setting], other: dict[str, Setting]) -> list[str]:
    return [
        f"{name.removeprefix('settings.')} ({_word(ours, name)}, there {_word(other, name)})"
        for name in sorted({*ours, *other})
        if _word(ours, name) != _word(other, name)
    ]


def _word(values: dict[str, Setting], name: str) -> str:
    return str(values[name]) if name in values else "not told"


# ---- numbers ----------------------------------------------------------------------------------

What = tuple[str, str, str]  # metric, path, baseline


def _rows(
    base: Sequence[Run], new: Sequence[Run], settings: str, threshold: float, confidence: float
) -> tuple[list[Row], list[str]]:
    """The rows of one class, and what only one side has measured or measured otherwise."""
    without = _without_ratio([*base, *new])
    sides = (_values(base, without), _values(new, without))
    metrics = ({each.name: each for run in runs for each in run.metrics} for runs in (base, new))
    base_metrics, new_metrics = metrics
    rows, unlike = [], []
    alone: dict[str, list[str]] = defaultdict(list)
    for what in sorted(sides[0].keys() | sides[1].keys()):
        name, path, baseline = what
        if not (what in sides[0] and what in sides[1]):
            side = "BASE" if what in sides[0] else "NEW"
            told = f"{path} / {baseline}" if baseline else path
            alone[f"{told}: in {side} only"].append(name)
            continue
        metric, other = base_metrics[name], new_metrics[name]
        if (metric.unit, metric.better) != (other.unit, other.better):
            unlike.append(f"{name}: in {metric.unit} in BASE, in {other.unit} in NEW")
            continue
        found = _judge(metric, sides[0][what], sides[1][what], threshold, confidence)
        first = base[0]
        rows.append(_row(first.kind, first.fingerprint.class_id(), settings, metric, what, found))
    return rows, [*(f"{', '.join(names)} {told}" for told, names in alone.items()), *unlike]


class _Judged(Struct, frozen=True):
    base: Groups
    new: Groups
    change: tuple[float, float, float] | None
    verdict: Verdict
    chance: float | None = None


def _row(kind: str, class_id: str, settings: str, metric: Metric, what: What, found: _Judged) -> Row:
    base, new = ([value for group in side for value in group] for side in (found.base, found.new))
    moved = [round(100 * (each - 1), 2) for each in found.change] if found.change else [None, None, None]
    return Row(
        kind=kind,
        class_id=class_id,
        settings=settings,
        metric=metric.name,
        unit="" if what[2] else metric.unit,
        better=metric.better,
        path=what[1],
        baseline=what[2],
        base=statistics.median(base),
        new=statistics.median(new),
        base_values=len(base),
        new_values=len(new),
        change=moved[0],
        low=moved[1],
        high=moved[2],
        chance=found.chance,
        verdict=found.verdict,
    )


def _judge(metric: Metric, base: Groups, new: Groups, threshold: float, confidence: float) -> _Judged:
    if any(value <= 0 for side in (base, new) for group in side for value in group):
        return _Judged(base, new, None, "not judged" if metric.better == "neither" else "undecided")
    found = change(base, new, confidence)
    few = min(sum(len(group) for group in side) for side in (base, new)) < FEWEST
    if few or metric.better == "neither":
        return _Judged(base, new, found, "too few" if few else "not judged")
    sides = (base, new) if metric.better == "lower" else (new, base)
    return _Judged(base, new, found, _verdict(metric.better, found, threshold), chance_of_increase(*sides))


def _verdict(better: Better, found: tuple[float, float, float], threshold: float) -> Verdict:
    """A regression is worse by more than the threshold, and its interval does not contain "no change"."""
    middle, low, high = found
    if low <= 1 <= high:
        return "same"
    if (middle > 1) == (better == "higher"):
        return "better"
    return "regression" if abs(middle - 1) > threshold / 100 else "worse"


def _corrected(rows: Sequence[Row], confidence: float) -> list[Row]:
    """The rows with their chances corrected: what may be chance among so many is no regression."""
    judged = [row.chance for row in rows if row.chance is not None]
    chances = iter(corrected(judged))
    level = (1 - confidence / 100) / 2  # a regression is on one side of the interval
    found = []
    for row in rows:
        if row.chance is not None:
            chance = next(chances)
            verdict = "worse" if row.verdict == "regression" and chance > level else row.verdict
            row = msgspec.structs.replace(row, chance=float(f"{chance:.3g}"), verdict=verdict)
        found.append(row)
    return found


Without = set[tuple[str, str]]  # metric, baseline


def _without_ratio(runs: Sequence[Run]) -> Without:
    """Those whose baseline gives no ratio in one of the runs: then in none of them it is taken."""
    return {
        (metric, path)
        for run in runs
        for (metric, path), values in turns(run).items()
        if path not in (OURS, "") and not ratios(values, values)
    }


def _values(runs: Sequence[Run], without: Without) -> dict[What, list[list[float]]]:
    """Values by metric, path and baseline, grouped by run."""
    found: dict[What, list[list[float]]] = defaultdict(list)
    for run in runs:
        measured = turns(run)
        for (metric, path), ours in measured.items():
            if path not in (OURS, ""):
                continue
            for baseline, values in _against(metric, path, ours, measured, without).items():
                found[metric, path, baseline].append(values)
    return dict(found)


def _against(
    metric: str, path: str, ours: Turns, measured: dict[tuple[str, str], Turns], without: Without
) -> dict[str, list[float]]:
    """By baseline: the ratio of each turn in which both were measured. Without any: "" and the values."""
    found = {
        other: values
        for (name, other), theirs in measured.items()
        if path == OURS and name == metric and other not in (OURS, "") and (name, other) not in without
        if (values := ratios(ours, theirs))
    }
    return found or {"": [ours[turn] for turn in sorted(ours)]}


# ---- as text ----------------------------------------------------------------------------------

COLUMNS = ("settings", "metric", "path", "BASE", "NEW", "change", "verdict")


def cells(row: Row) -> list[str]:
    """A row for people, in :data:`COLUMNS`."""
    path = f"{row.path} / {row.baseline}" if row.baseline else row.path
    unit = f" {row.unit}" if row.unit not in ("", "1") else ""
    moved = "" if row.change is None else f"{row.change:+.1f} % ({row.low:+.1f} to {row.high:+.1f})"
    return [
        row.settings,
        row.metric,
        path,
        f"{row.base:.4g}{unit}",
        f"{row.new:.4g}{unit}",
        moved,
        row.verdict,
    ]


def summary(found: Comparison) -> str:
    """One sentence."""
    count = len(found.regressions)
    told = f"{count} regression{'s' * (count != 1)}" if count else "No regression"
    open_ones = sum(row.verdict in ("too few", "undecided") for row in found.rows)
    return (
        f"{told} beyond {found.threshold:g} % among {len(found.judged)} comparisons"
        f" ({found.confidence:g} % bootstrap intervals, corrected for their number)"
        + f"; {open_ones} not decided"
        * bool(open_ones)
    )


def markdown(found: Comparison) -> str:
    """A comment for a pull request."""
    text = [f"### {summary(found)}", "", f"BASE: {_code(found.base)}, NEW: {_code(found.new)}", ""]
    text += ["| " + " | ".join(COLUMNS) + " |", "|---|---|---|---:|---:|---:|---|"]
    for row in found.rows:
        shown = [each.replace("|", "\\|") for each in cells(row)]
        if row.verdict == "regression":
            shown[-1] = f"**{shown[-1]}**"
        text.append("| " + " | ".join(shown) + " |")
    if found.left_out:
        text += ["", "Not compared:", "", *(f"- {line}" for line in found.left_out)]
    return "\n".join(text)


def _code(text: str) -> str:
    return "`" + text.replace("`", "'") + "`"
