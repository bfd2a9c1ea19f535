"""A median with its 95 % interval, as text."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.results.statistics import interval


def shown(values: Sequence[float]) -> str:
    """The median of ``values`` and the bounds of its 95 % bootstrap interval."""
    middle, low, high = interval(values)
    return f"{middle:.3f} (95 %: {low:.3f} to {high:.3f}, {len(values)} pairs)"
