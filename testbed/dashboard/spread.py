"""Medians with intervals for thousands of runs: the bootstrap of testbed.results, once for each count."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence

from testbed.results.statistics import interval

DIGITS = 4  # that count, in what the page is given


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and 95 % bounds of ``values``, rounded.

    A bootstrap draws places in a list, and the median of what it draws is the value at one of these
    places: so its bounds are the same places of every sorted list with as many values. (For an even
    number a median lies between two places; then a bound is interpolated.)
    """
    ordered = sorted(values)
    low, high = _places(len(ordered))
    return short(statistics.median(ordered)), short(_at(ordered, low)), short(_at(ordered, high))


@functools.cache
def _places(count: int) -> tuple[float, float]:
    _, low, high = interval(range(count))
    return low, high


def _at(ordered: Sequence[float], place: float) -> float:
    below = math.floor(place)
    above = math.ceil(place)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def short(value: float) -> float:
    """A number with the digits that count."""
    return float(f"{value:.{DIGITS}g}")
