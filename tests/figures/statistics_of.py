"""A median with its 95 % interval, by the bootstrap."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence


def interval(values: Sequence[float], rounds: int = 4000) -> tuple[float, float, float]:
    """Median of ``values`` and the bounds of its 95 % bootstrap interval."""
    chooser = random.Random(1)
    medians = sorted(statistics.median(chooser.choices(values, k=len(values))) for _ in range(rounds))
    return statistics.median(values), medians[int(rounds * 0.025)], medians[int(rounds * 0.975)]


def shown(values: Sequence[float]) -> str:
    """The interval as text."""
    middle, low, high = interval(values)
    return f"{middle:.3f} (95 %: {low:.3f} to {high:.3f}, {len(values)} pairs)"
