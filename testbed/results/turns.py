"""The turns of a run: what each path gave in each, and ratios between two paths of one turn."""

from __future__ import annotations

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
