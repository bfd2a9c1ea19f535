"""Medians with intervals by the bootstrap. Always the same for the same numbers."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

ROUNDS = 2000
Groups = Sequence[Sequence[float]]
"""Values by run: those of one run have more in common than those of two."""


def interval(values: Sequence[float], rounds: int = 4000) -> tuple[float, float, float]:
    """Median of ``values`` and the bounds of its 95 % bootstrap interval."""
    chooser = random.Random(1)
    drawn = [statistics.median(chooser.choices(values, k=len(values))) for _ in range(rounds)]
    return (statistics.median(values), *_bounds(drawn, 95))


def change(base: Groups, new: Groups, confidence: float = 95) -> tuple[float, float, float]:
    """The median of ``new`` divided by that of ``base``, with the bounds of its bootstrap interval.

    Drawn are runs first and then values within them, so that what differs from run to run (the machine's
    state, the scheduling of a lab) widens the interval where there are several. All values must be above 0.
    confidence: percent.
    """
    chooser = random.Random(1)
    drawn = [_median(chooser, new) / _median(chooser, base) for _ in range(ROUNDS)]
    middle = statistics.median(_flat(new)) / statistics.median(_flat(base))
    return (middle, *_bounds(drawn, confidence))


def _median(chooser: random.Random, groups: Groups) -> float:
    runs = groups if len(groups) == 1 else chooser.choices(groups, k=len(groups))
    return statistics.median([value for run in runs for value in chooser.choices(run, k=len(run))])


def _flat(groups: Groups) -> list[float]:
    return [value for group in groups for value in group]


def _bounds(drawn: list[float], confidence: float) -> tuple[float, float]:
    drawn.sort()
    tail = (1 - confidence / 100) / 2
    return drawn[int(len(drawn) * tail)], drawn[min(int(len(drawn) * (1 - tail)), len(drawn) - 1)]
