"""What a lab tells about itself: one record type for counters, one for events.

Both have the same fields, so that whatever shows, stores or joins them treats them alike.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from msgspec import Struct

EVENTS_KEPT = 1024  # per process; older ones are counted as lost


class Counter(Struct, frozen=True):
    """Running totals of one object since the host started.

    time: seconds since the epoch when they were read. kind: "port", "nic", "vsid", "stage", "drop",
    "extension" or "worker". object: the name of the port, NIC, VSID, stage, extension or worker; of a
    drop the port or NIC from which the packet came. fields: the numbers, with their units in their
    names (packets, bytes); a port has its "vsid", a drop has "stage", "vsid", "reason" and "packets".
    """

    time: float
    host: str
    kind: str
    object: str
    fields: dict[str, Any]


class Event(Struct, frozen=True):
    """Something that happened once. time: seconds since the epoch. kind: such as "policy-mismatch"."""

    time: float
    host: str
    kind: str
    object: str
    fields: dict[str, Any]


class EventLog:
    """The latest events of one process. ``lost``: how many had to make room for newer ones."""

    def __init__(self, host: str = "") -> None:
        self.host = host
        self.lost = 0
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)

    def add(self, kind: str, name: str, **fields: Any) -> None:
        """Note an event of the object ``name``; fields are plain data (addresses as text)."""
        if len(self._events) == EVENTS_KEPT:
            self.lost += 1
        self._events.append(Event(time.time(), self.host, kind, name, fields))

    def take(self) -> list[Event]:
        """All events not taken yet, oldest first."""
        events = list(self._events)
        self._events.clear()
        return events
