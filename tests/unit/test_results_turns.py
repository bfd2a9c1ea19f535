"""Ratios between two paths of one turn: one rule for bench, compare, the dashboard and Prometheus."""

from __future__ import annotations

import pytest

from testbed.results.turns import median_ratio, ratios


def test_ratios_are_taken_in_turns_that_both_have() -> None:
    assert ratios({0: 1.0, 1: 6.0, 2: 9.0}, {1: 2.0, 2: 9.0, 3: 4.0}) == [3.0, 1.0]
    assert median_ratio({0: 1.0, 1: 6.0, 2: 9.0}, {1: 2.0, 2: 9.0, 3: 4.0}) == 2.0


@pytest.mark.parametrize("theirs", [{0: 0.0, 1: 2.0}, {0: 1.0, 1: -1.0}, {2: 1.0}, {}])
def test_a_baseline_that_is_zero_in_any_turn_or_was_not_measured_gives_none(theirs: dict[int, float]) -> None:
    ours = {0: 1.0, 1: 6.0}
    assert ratios(ours, theirs) == []
    assert median_ratio(ours, theirs) is None


def test_ours_may_be_zero() -> None:
    assert ratios({0: 0.0}, {0: 2.0}) == [0.0]
