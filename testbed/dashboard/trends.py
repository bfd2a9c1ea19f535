"""Is it getting slower? The newest commit of each class beside the runs before it."""

from __future__ import annotations

import msgspec

from testbed.dashboard.model import Trend
from testbed.results import metrics
from testbed.results.compare import compare
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

    def trend(self, of: int, commit: int, threshold: float) -> Trend | None:
        """None where there is nothing before the newest commit."""
        if not self._before:
            return None
        found = compare(self._before, self._newest, ("before", "newest"), threshold=threshold)
        return Trend(of, commit, len(self._before), len(self._newest), found.rows)


def code(run: Run) -> tuple[str, str]:
    """What tells the code of two runs apart: the commit; where that does not tell, the batch."""
    mark = run.fingerprint
    clean = mark.commit and not mark.modified
    return mark.commit, "" if clean else run.batch
