"""Is it getting slower? The newest commit of each class beside the runs before it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import msgspec

from testbed.dashboard.model import Trend
from testbed.results import metrics
from testbed.results.compare import Row, compare
from testbed.results.model import Run

HEADLINES = (
    metrics.THROUGHPUT.name,
    metrics.SWITCH_CPU_PER_GIGABIT.name,
    metrics.RTT_LOAD_P50.name,
    metrics.START_TOTAL.name,
)
"""What the first page judges; the comparison of two plans has all metrics."""
BEFORE = 5  # runs before the newest commit that it is compared with
_NEWEST = 10  # runs of the newest commit that are taken


class Recent:
    """The last runs of one class."""

    def __init__(self) -> None:
        self._before: list[Run] = []
        self._newest: list[Run] = []

    def add(self, run: Run) -> None:
        """Take the next run: a younger one."""
        if self._newest and code(run) != code(self._newest[-1]):
            self._before = [*self._before, *self._newest][-BEFORE:]
            self._newest = []
        samples = tuple(each for each in run.samples if each.metric in HEADLINES)
        self._newest = [*self._newest, msgspec.structs.replace(run, samples=samples)][-_NEWEST:]

    @property
    def comparable(self) -> bool:
        """Whether there is anything before the newest commit."""
        return bool(self._before)

    def sides(self) -> tuple[list[Run], list[Run]]:
        """The runs before the newest commit, and those of it."""
        return self._before, self._newest


def trends(recent: Mapping[int, Recent], commits: Mapping[int, int], threshold: float) -> list[Trend]:
    """The trends of classes that all were measured in one environment; both mappings are by class.

    They are compared at once, since a false alarm becomes likelier with each that is looked at.
    """
    sides = {of: each.sides() for of, each in recent.items() if each.comparable}
    if not sides:
        return []
    before, newest = ([run for pair in sides.values() for run in pair[side]] for side in (0, 1))
    rows: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in compare(before, newest, ("before", "newest"), threshold=threshold).rows:
        rows[row.kind, row.class_id].append(row)
    return [
        Trend(of, commits[of], len(pair[0]), len(pair[1]), rows[_class(pair[1][0])])
        for of, pair in sides.items()
    ]


def _class(run: Run) -> tuple[str, str]:
    return run.kind, run.fingerprint.class_id()


def code(run: Run) -> tuple[str, str]:
    """What tells the code of two runs apart: the commit; where that does not tell, the batch."""
    mark = run.fingerprint
    clean = mark.commit and not mark.modified
    return mark.commit, "" if clean else run.batch
