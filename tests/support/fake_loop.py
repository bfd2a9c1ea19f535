"""The timers of an event loop, on a clock that a test turns."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Handle:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """``call_soon`` takes no time, and comes after what is under way."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Handle, Callable[..., Any], tuple[Any, ...]]] = []
        self._sequence = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, function: Callable[..., Any], *args: Any) -> Handle:
        handle = Handle()
        self._sequence += 1
        heapq.heappush(self._due, (when, self._sequence, handle, function, args))
        return handle

    def call_later(self, seconds: float, function: Callable[..., Any], *args: Any) -> Handle:
        return self.call_at(self.now + seconds, function, *args)

    def call_soon(self, function: Callable[..., Any], *args: Any) -> Handle:
        return self.call_at(self.now, function, *args)

    def run(self, seconds: float) -> None:
        """Let time pass, and everything happen that is due until then."""
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            when, _, handle, function, args = heapq.heappop(self._due)
            self.now = max(self.now, when)
            if not handle.cancelled:
                function(*args)
        self.now = end
