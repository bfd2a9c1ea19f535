"""Waiting for what another process does, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 15.0
PACE = 0.02


def until(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    """Return once the condition holds; fail with the words otherwise."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(PACE)
