"""Waiting for what a lab does: a state is asked for until it is there or the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

SECONDS = 10.0
PACE = 0.02

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, seconds: float = SECONDS) -> T:
    """The first true value of ``condition``. Raises AssertionError with ``what`` at the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"within {seconds:g} s: {what}")
        time.sleep(PACE)  # a poll with a deadline
    return value
