"""Whoever notes events in a lab, asked again and again: its hosts and its VMM.

A source is asked without waiting for it, so that one that hangs holds up no other; what it was asked it
answers when it can.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from testbed.channel import Channel, Message, connect
from testbed.errors import TestbedError
from testbed.topology.management import VMM

NOTICE = "notice"  # the source of what the time line has to say itself
AWAY, BACK, LOST, ENDED = "away", "back", "events-lost", "lab-ended"  # kinds of notices
PATIENCE = 1.0  # seconds without an answer until a source counts as away
_RETRY = 0.5  # seconds between attempts to reach one that is away
_SECONDS = 2.0  # for one message, once it has begun
_PAGE = 1000  # events of the VMM at once
_OF_HOSTS = frozenset({"provider-address"})  # kinds that the VMM only repeats: the host has said it itself


class LabEvent(Struct, frozen=True):
    """An event of a lab.

    id: ``SOURCE/NUMBER``, the same wherever it is shown, as long as its source runs. time: seconds since the
    epoch. source: who noted it, a host, "vmm" or "notice". host: which host it concerns, or "". sequence:
    its number at the source; of the VMM the revision.
    """

    id: str
    time: float
    source: str
    host: str
    kind: str
    object: str
    fields: dict[str, Any]
    sequence: int


Notify = Callable[..., None]  # notify(kind, source, **fields): tell of the source itself


class EventSource(Protocol):
    """One source. until: all that it noted before that time has been handed over; inf while it is away."""

    name: str
    until: float

    def ask(self) -> None:
        """Ask for what is new, unless an answer is still to come."""

    def fileno(self) -> int:
        """Readable when the answer is there; negative when none is to come."""

    def take(self) -> list[LabEvent]:
        """What has come."""

    def is_late(self) -> None:
        """Its answer has not come in time."""

    def close(self) -> None:
        """Ask no more."""


class _Source:
    """What both kinds share: being away, and losses. since: losses before that time concern nobody."""

    def __init__(self, name: str, notify: Notify, since: float) -> None:
        self.name, self.until = name, 0.0
        self._notify, self._since = notify, since
        self._is_away = False

    def _away(self, why: str) -> None:
        self.until = float("inf")
        if not self._is_away:
            self._is_away = True
            self._notify(AWAY, self.name, why=why)

    def _heard(self, until: float, **fields: Any) -> None:
        self.until = until
        if self._is_away or fields:
            self._is_away = False
            self._notify(BACK, self.name, **fields)

    def _lost(self, count: int, found: list[LabEvent], unit: str) -> None:
        """Lost are always the oldest: none that is wanted, where the oldest found is older than those."""
        if count > 0 and not (found and found[0].time < self._since):
            self._notify(LOST, self.name, **{unit: count})


class HostSource(_Source):
    """The events of a host, by its control socket at ``path``."""

    def __init__(self, name: str, path: Path, notify: Notify, since: float = 0.0) -> None:
        super().__init__(name, notify, since)
        self._path = path
        self._channel: Channel | None = None
        self._asked: float | None = None  # when, since the epoch; None: no answer is to come
        self._after: int | None = None
        self._began: float | None = None  # the host that the numbers are of
        self._retry_at = 0.0

    def ask(self) -> None:
        """Ask for what is new, unless an answer is still to come."""
        if self._asked is not None or (self._channel is None and time.monotonic() < self._retry_at):
            return
        try:
            if self._channel is None:
                self._channel = connect(self._path, timeout=0)
                self._channel.socket.settimeout(_SECONDS)
            now = time.time()
            self._channel.send({"op": "events", "after": self._after})
            self._asked = now
        except (TestbedError, OSError) as error:
            self._broken(_why(error))

    def fileno(self) -> int:
        """Readable when the answer is there; negative when none is to come."""
        return -1 if self._channel is None or self._asked is None else self._channel.socket.fileno()

    def take(self) -> list[LabEvent]:
        """What has come."""
        if self._channel is None or self._asked is None:
            return []
        try:
            received = self._channel.receive()
        except (TestbedError, OSError) as error:
            self._broken(_why(error))
            return []
        if received is None or "error" in received[0]:
            self._broken(received[0]["error"] if received else "it has ended")
            return []
        asked, self._asked = self._asked, None
        return self._read(received[0], asked)

    def _read(self, told: Message, asked: float) -> list[LabEvent]:
        if self._began not in (None, told["began"]):  # another host of that name: all of its events are new
            self._began, self._after = told["began"], None
            self._heard(asked, restarted=True)
            self.until = 0.0  # nothing of it has been handed over
            return []
        self._heard(asked)
        found = [
            LabEvent(id=f"{self.name}/{event['sequence']}", source=self.name, **event)
            for event in told["events"]
        ]
        self._lost(told["lost"], found, "count")
        self._began, self._after = told["began"], told["next"]
        return found

    def is_late(self) -> None:
        """Its answer has not come in time."""
        self._away("it does not answer")

    def _broken(self, why: str) -> None:
        self.close()
        self._retry_at = time.monotonic() + _RETRY
        self._away(why)

    def close(self) -> None:
        """Ask no more."""
        if self._channel is not None:
            self._channel.close()
        self._channel = self._asked = None


class VmmSource(_Source):
    """The events of the VMM whose folder this is; it is asked for them page by page."""

    def __init__(self, folder: Path, notify: Notify, since: float = 0.0) -> None:
        from testbed.lab.vmm_client import VmmClient  # an HTTP client, which few verbs need

        super().__init__(VMM, notify, since)
        self._client = VmmClient(folder, timeout=_SECONDS)
        self._after = 0
        self._retry_at = 0.0

    def ask(self) -> None:
        """It is asked when it is read."""

    def fileno(self) -> int:
        """There is nothing to wait for."""
        return -1

    def take(self) -> list[LabEvent]:
        """What is new."""
        if time.monotonic() < self._retry_at:
            return []
        asked, found = time.time(), []
        try:
            while True:
                told = self._client.get("/events", after=self._after, limit=_PAGE)
                page = number_events(told["events"])
                # revision 1 is the Plan that it was given at its start, which is no event
                self._lost(told["first"] - 1 - max(self._after, 1), page, "revisions")
                self._after = told["revision"]
                found += page
                if len(page) < _PAGE:
                    break
        except (TestbedError, OSError) as error:
            self._retry_at = time.monotonic() + _RETRY
            self._away(str(error))
        else:
            self._heard(asked)
        return [event for event in found if event.kind not in _OF_HOSTS]

    def is_late(self) -> None:
        """It is not waited for."""

    def close(self) -> None:
        """Ask no more."""
        self._client.close()


def number_events(events: list[dict[str, Any]]) -> list[LabEvent]:
    """The VMM's, as it tells them. Those of one revision come together, so their place in it is known."""
    found: list[LabEvent] = []
    revision = place = 0
    for event in events:
        place = place + 1 if event["revision"] == revision else 1
        revision = event.pop("revision")
        number = f"{VMM}/{revision}.{place}"
        found.append(LabEvent(id=number, source=VMM, sequence=revision, **event))
    return found


def _why(error: Exception) -> str:
    return "it has ended" if isinstance(error, BrokenPipeError | ConnectionResetError) else str(error)
