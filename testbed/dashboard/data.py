"""From runs to what the page is given. Nothing here reads or writes a file."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

import testbed
from testbed.dashboard import spread
from testbed.dashboard.goals import Goal
from testbed.dashboard.model import (
    Batch,
    Checked,
    Class,
    Commit,
    Detail,
    Environment,
    Index,
    Latest,
    Point,
    Runs,
    Series,
    Share,
    Status,
    Track,
    Trend,
)
from testbed.dashboard.trends import Recent, trends
from testbed.results import metrics
from testbed.results.model import OURS, Fingerprint, Metric, Run, Sample
from testbed.results.turns import ratios, turns

THRESHOLD = 5.0
"""Percent from which on a loss is called a regression."""
SHORT = 8  # characters of a run's name that the page shows
RECENT = 40  # values of a goal's small picture
_BY_OBJECT = (metrics.QUEUE_PACKETS.name, metrics.MEMBER_THROUGHPUT.name, metrics.START_PHASE.name)


class Page:
    """Takes runs, oldest first, one by one; then :meth:`index` and ``details`` (by class id) are the page's.

    names: of the runs, whole.
    """

    def __init__(self) -> None:
        self.runs = Runs()
        self.names: list[str] = []
        self.commits: dict[Commit, int] = {}
        self.batches: dict[str, int] = {}
        self.environments: dict[Environment, int] = {}
        self.classes: dict[tuple[str, str], int] = {}
        self.metrics: dict[str, Metric] = {}
        self.details: dict[str, Detail] = {}
        self._batches: list[Batch] = []
        self._classes: list[Class] = []
        self._series: list[dict[tuple[str, str, str], Series]] = []
        self._recent: list[Recent] = []

    def add(self, run: Run) -> None:
        """Take over one run. Of a metric that was described before, the first description stays."""
        mark = run.fingerprint
        made_of = Commit(mark.commit, int(mark.commit_time), mark.modified)
        commit = self.commits.setdefault(made_of, len(self.commits))
        of = self._class(run)
        number = len(self.runs.id)
        self.names.append(run.id)
        self.runs.id.append(run.id[:SHORT])
        self.runs.at.append(int(run.started))
        self.runs.commit.append(commit)
        self.runs.batch.append(self._batch(run, commit))
        self.runs.of.append(of)
        self._classes[of].runs += 1
        self._classes[of].last = number
        for metric in run.metrics:
            self.metrics.setdefault(metric.name, metric)
        for key, point in _points(number, run).items():
            series = self._series[of].setdefault(key, Series(*key))
            series.points.append(point)
        _detail(self.details[self._classes[of].id], number, run)
        self._recent[of].add(run)

    def _batch(self, run: Run, commit: int) -> int:
        if run.batch not in self.batches:
            self.batches[run.batch] = len(self._batches)
            self._batches.append(Batch(run.batch, int(run.started), run.label, run.kind, commit))
        number = self.batches[run.batch]
        self._batches[number].runs += 1
        return number

    def _class(self, run: Run) -> int:
        mark = run.fingerprint
        key = (run.kind, mark.class_id())
        if key not in self.classes:
            self.classes[key] = len(self._classes)
            name = key[1] if key[1] not in self.details else f"{key[1]}-{run.kind}"
            environment = self.environments.setdefault(_environment(mark), len(self.environments))
            self._classes.append(
                Class(name, run.kind, environment, mark.topology, mark.settings, _nvgre(mark))
            )
            self.details[name] = Detail()
            self._series.append({})
            self._recent.append(Recent())
        return self.classes[key]

    def index(self, source: str, goals: Sequence[Goal], *, served: bool) -> Index:
        """The index of all runs taken so far; completes ``details`` as well."""
        for of, each in enumerate(self._classes):
            detail = self.details[each.id]
            detail.series = [*self._series[of].values()]
            each.has = _has(detail)
        latest = [
            Latest(of, series.metric, series.path, series.baseline, series.points[-1])
            for of, all_series in enumerate(self._series)
            for series in all_series.values()
        ]
        return Index(
            source=source,
            made=int(time.time()),
            version=testbed.__version__,
            served=served,
            threshold=THRESHOLD,
            runs=self.runs,
            commits=[*self.commits],
            batches=self._batches,
            environments=[*self.environments],
            classes=self._classes,
            metrics=self.metrics,
            baselines=[*dict.fromkeys(each.baseline for each in latest if each.baseline)],
            latest=latest,
            goals=self._goals(goals),
            trends=self._trends(),
        )

    def _trends(self) -> list[Trend]:
        commits = {of: self.runs.commit[each.last] for of, each in enumerate(self._classes)}
        found: list[Trend] = []
        for environment in range(len(self.environments)):
            mine = {
                of: r for of, r in enumerate(self._recent) if self._classes[of].environment == environment
            }
            found += trends(mine, commits, THRESHOLD)
        return found

    def _goals(self, goals: Sequence[Goal]) -> list[Checked]:
        """Of each goal the newest run that it concerns, in each environment."""
        found: list[Checked] = []
        for goal in goals:
            newest: dict[int, Checked] = {}
            for of, each in enumerate(self._classes):
                series = self._series[of].get((goal.metric, OURS, goal.baseline))
                if series is None or not goal.concerns(each.settings):
                    continue
                other = newest.get(each.environment)
                if other is None or other.point[0] < series.points[-1][0]:
                    newest[each.environment] = _checked(goal, of, series)
            found += newest.values()
        return found


def _environment(mark: Fingerprint) -> Environment:
    python = ".".join(mark.python.split(".")[:2])
    cores = f"{mark.cores} core{'s' * (mark.cores != 1)}"
    name = f"{mark.cpu}, {cores}, Linux {mark.kernel} {mark.architecture}, Python {python}"
    return Environment(name, mark.kernel, mark.cpu, mark.cores)


def _nvgre(mark: Fingerprint) -> bool | None:
    told = mark.settings.get("offloads")
    return any(each.startswith("nvgre-") for each in told.split(",")) if isinstance(told, str) else None


def _has(detail: Detail) -> list[str]:
    parts = {
        "history": detail.series,
        "queues": detail.queues,
        "members": detail.members,
        "phases": detail.phases,
    }
    return [name for name, part in parts.items() if part]


def _checked(goal: Goal, of: int, series: Series) -> Checked:
    most = goal.at_most is not None
    wanted = goal.at_most if goal.at_most is not None else goal.at_least
    assert wanted is not None
    point = series.points[-1]
    recent = [each[1] for each in series.points[-RECENT:]]
    status = judge(point, wanted, most=most)
    return Checked(goal.title, of, goal.metric, goal.baseline, wanted, most, point, status, recent)


def judge(point: Point, goal: float, *, most: bool) -> Status:
    """Close: the median misses the goal, but its interval reaches it."""
    _, middle, low, high, _ = point
    sign = -1 if most else 1
    if sign * middle >= sign * goal:
        return "reached"
    return "close" if max(sign * low, sign * high) >= sign * goal else "missed"


# ---- one run ----------------------------------------------------------------------------------


def _points(number: int, run: Run) -> dict[tuple[str, str, str], Point]:
    """By metric, path and baseline: its values, and the ratio of ours to each baseline of the same turn."""
    measured = turns(run)
    found: dict[tuple[str, str, str], list[float]] = {}
    for (metric, path), values in measured.items():
        found[metric, path, ""] = [*values.values()]
        if path not in (OURS, "") and (of_ours := ratios(measured.get((metric, OURS), {}), values)):
            found[metric, OURS, path] = of_ours
    return {key: (number, *spread.spread(values), len(values)) for key, values in found.items()}


def _detail(detail: Detail, number: int, run: Run) -> None:
    """Take over what a run tells of single objects."""
    by_metric: dict[str, list[Sample]] = defaultdict(list)
    for each in run.samples:
        if each.object and each.metric in _BY_OBJECT and each.path in (OURS, ""):
            by_metric[each.metric].append(each)
    if queues := by_metric[metrics.QUEUE_PACKETS.name]:
        detail.queues_run, detail.queues = number, _shares(queues)
    if members := by_metric[metrics.MEMBER_THROUGHPUT.name]:
        detail.members_run, detail.members = number, _tracks(members)
    if phases := by_metric[metrics.START_PHASE.name]:
        shares = {each.object: each.value for each in _shares(phases)}
        detail.phase_names += [name for name in shares if name not in detail.phase_names]
        row = [spread.short(shares.get(name, 0.0)) for name in detail.phase_names]
        detail.phases.append((number, row))


def _shares(samples: Iterable[Sample]) -> list[Share]:
    """In the order of their times, then of their names."""
    ordered = sorted(samples, key=lambda each: (each.time, natural(each.object), each.repetition))
    return [Share(each.object, spread.short(each.value), each.repetition) for each in ordered]


def natural(name: str) -> list[tuple[str, int]]:
    """What sorts "queue10" after "queue9"."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def _tracks(samples: Iterable[Sample]) -> list[Track]:
    values: dict[tuple[str, int], dict[float, float]] = defaultdict(dict)
    for each in samples:
        values[each.object, each.repetition][each.time] = each.value
    return [
        Track(name, turn, [*map(spread.short, sorted(of))], [spread.short(of[at]) for at in sorted(of)])
        for (name, turn), of in sorted(values.items(), key=lambda each: (natural(each[0][0]), each[0][1]))
    ]


def to_json(value: object) -> bytes:
    """JSON that may stand within a <script> element."""
    return msgspec.json.encode(value).replace(b"<", b"\\u003c").replace(b"\xe2\x80\xa8", b"\\u2028")
