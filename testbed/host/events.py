"""The events of a host: control's own and the worker's, in one numbered sequence."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import msgspec

from testbed.telemetry import Event

KEPT = 4096  # events; older ones make room and count as lost for whoever had not seen them


class EventRing:
    """The latest events, numbered from 1 as they came in. A lost event has a number too."""

    def __init__(self, kept: int = KEPT) -> None:
        self._events: deque[tuple[int, Event]] = deque(maxlen=kept)
        self._last = 0

    def add(self, events: Iterable[Event], lost: int = 0) -> None:
        """Take events of all processes in, oldest first; ``lost`` more were dropped before they got here."""
        self._last += lost
        for event in sorted(events, key=attrgetter("time")):
            self._last += 1
            self._events.append((self._last, event))

    def since(self, after: int | None) -> dict[str, Any]:
        """What came after event number ``after`` (None: since the start), as the control socket answers it.

        ``{"events": [Event and "sequence"], "lost", "next"}``: ``next`` is the ``after`` of the next
        question, ``lost`` how many events since ``after`` are no longer known.
        """
        start = after or 0
        known = [
            {"sequence": number, **msgspec.to_builtins(event)}
            for number, event in self._events
            if number > start
        ]
        return {"events": known, "lost": max(0, self._last - start - len(known)), "next": self._last}
