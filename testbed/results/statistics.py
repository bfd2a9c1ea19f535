"""Medians with intervals by the bootstrap, and what many comparisons give by chance.

Always the same for the same numbers.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

ROUNDS = 2000
_RUNS = 5  # on both sides together, from which on runs tell their own spread
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


# ---- many comparisons -------------------------------------------------------------------------


def chance_of_increase(base: Groups, new: Groups) -> float:
    """How likely ``new`` would exceed ``base`` so clearly by chance: the one-sided p of Student's t-test.

    It is taken of the values' logarithms. From five runs on both sides together on, a run counts as one
    value, its mean; of fewer, each value counts. The bootstrap cannot say it: of five values on either
    side, all of one are above the other's once in 252 times, and then it is as sure as it can be. A hundred
    comparisons need smaller chances than that. All values must be above 0.
    """
    sides = [[[math.log(value) for value in run] for run in groups] for groups in (base, new)]
    if len(base) + len(new) >= _RUNS:
        sides = [[[statistics.fmean(run)] for run in groups] for groups in sides]
    ours, theirs = _flat(sides[1]), _flat(sides[0])
    freedom = len(ours) + len(theirs) - 2
    shift = statistics.fmean(ours) - statistics.fmean(theirs)
    squares = sum((value - statistics.fmean(of)) ** 2 for of in (ours, theirs) for value in of)
    error = math.sqrt(squares / freedom * (1 / len(ours) + 1 / len(theirs)))
    if error == 0:
        return 0.5 if shift == 0 else float(shift < 0)
    return student(shift / error, freedom)


def student(t: float, freedom: int) -> float:
    """The chance that Student's t with so many degrees of freedom exceeds ``t``.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for below in range(2 + odd, freedom + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (below - 1) / below
    inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return max(0.0, (1 - inside) / 2)


def corrected(chances: Sequence[float]) -> list[float]:
    """p-values of one family, adjusted by the procedure of Benjamini and Hochberg (1995), in their order.

    Where what is adjusted is at most L, at most that share of what is found is chance; where nothing has
    changed at all, anything is found in at most that share of families.
    """
    order = sorted(range(len(chances)), key=lambda place: chances[place], reverse=True)
    found, least = [1.0] * len(chances), 1.0
    for rank, place in zip(range(len(chances), 0, -1), order, strict=True):
        least = min(least, chances[place] * len(chances) / rank)
        found[place] = least
    return found
