"""The turns of a run: what each path gave in each, and ratios between two paths of one turn.

All ratios to a baseline are taken here, by one rule: a baseline that was 0 in any turn gives none at all.
Leaving out such turns only would tell a ratio of the others, as if nothing had happened.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TypeAlias

from testbed.results.model import Run

Turns: TypeAlias = dict[int, float]
"""A value by the number of its turn."""


def turns(run: Run) -> dict[tuple[str, str], Turns]:
    """By metric and path. What is of one object or moment stays out."""
    found: dict[tuple[str, str], Turns] = defaultdict(dict)
    for sample in run.samples:
        if not sample.object and not sample.time:
            found[sample.metric, sample.path][sample.repetition] = sample.value
    return dict(found)


def ratios(ours: Turns, theirs: Turns) -> list[float]:
    """Ours / theirs in each turn in which both were measured; nothing where one of theirs is not positive."""
    both = sorted(ours.keys() & theirs.keys())
    return [ours[turn] / theirs[turn] for turn in both] if all(theirs[turn] > 0 for turn in both) else []


def median_ratio(ours: Turns, theirs: Turns) -> float | None:
    """The median of :func:`ratios`; None where there are none."""
    found = ratios(ours, theirs)
    return statistics.median(found) if found else None
