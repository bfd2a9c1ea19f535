"""The events of a host: control's own and the worker's, in one numbered sequence."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import msgspec

from testbed.errors import LabError
from testbed.host.droprate import DropWatch
from testbed.host.orders import WorkerLink
from testbed.telemetry import Event, EventLog

LOOK = 1.0  # seconds between looks at the counters of drops, and at what the worker has noted
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


class HostEvents:
    """Gathers what both processes of a host note, and tells of losses by the counters of drops.

    ``log``: control's own events.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, link: WorkerLink, log: EventLog) -> None:
        self._loop, self._link, self._log = loop, link, log
        self._ring = EventRing()
        self._drops = DropWatch(loop.time())
        self._worker_lost = 0
        self._began = time.time()  # tells this host from an earlier one of its name, and of the same numbers
        self._tick: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on."""
        if self._tick is None:
            self._tick = self._loop.call_later(LOOK, self._look)

    def close(self) -> None:
        """Look no more."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def since(self, after: int | None) -> dict[str, Any]:
        """As :meth:`EventRing.since`, with "began": another value is another host's sequence of numbers."""
        self._gather()
        return {**self._ring.since(after), "began": self._began}

    def _look(self) -> None:
        try:
            drops = self._link.order("drops")
            for fields in self._drops.look(self._loop.time(), drops):
                self._log.add("drops", fields.pop("object"), **fields)
            self._gather()
        except (LabError, OSError):
            return  # the worker has died, and with it this host
        self._tick = self._loop.call_later(LOOK, self._look)

    def _gather(self) -> None:
        told = self._link.order("events")
        lost = told["lost"] - self._worker_lost + self._log.lost
        self._worker_lost, self._log.lost = told["lost"], 0
        worker = msgspec.convert(told["events"], list[Event])
        self._ring.add([*self._log.take(), *worker], lost)
