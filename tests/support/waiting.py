"""Waiting for what another process does, with a deadline: the product's own loop, with more patience."""

from __future__ import annotations

from collections.abc import Callable

from testbed.testing import waiting

SECONDS = 15.0


def until(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Return once the condition holds; fail with the words otherwise."""
    waiting.until(condition, what, seconds)
