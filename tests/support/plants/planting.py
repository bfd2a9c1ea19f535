"""The list of deliberate faults, and how to make one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PLANTS: dict[str, Callable[[], None]] = {}
FOUND_BY: dict[str, int] = {}  # fault -> number of the statement


def plant(statement: int) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a fault."""

    def register(function: Callable[[], None]) -> Callable[[], None]:
        PLANTS[function.__name__] = function
        FOUND_BY[function.__name__] = statement
        return function

    return register


def around(owner: Any, name: str, change: Callable[..., Any]) -> None:
    """Replace ``owner.name``; ``change`` gets what was there, then the arguments."""
    before = getattr(owner, name)
    setattr(owner, name, lambda *args, **more: change(before, *args, **more))


def answering(owner: Any, name: str, value: Any) -> None:
    around(owner, name, lambda before, *args, **more: value)
