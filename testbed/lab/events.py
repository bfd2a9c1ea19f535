"""One time line of what hosts, VMM, teams, NICs, extensions and cables of a lab did.

Each source is asked in rounds. What a round has brought is complete up to the moment at which the last of
them was asked, since all run on this machine's clock; so events are handed on in the order of time, none
too early. A source that does not answer is told as a notice and then holds up nobody.
"""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase

from msgspec import Struct

from testbed.errors import BadInput
from testbed.lab import store
from testbed.lab.event_sources import (
    ENDED,
    NOTICE,
    PATIENCE,
    EventSource,
    HostSource,
    LabEvent,
    VmmSource,
)
from testbed.lab.lab import Lab
from testbed.topology.management import VMM

PERIOD = 0.2  # seconds between rounds, for whoever follows
HISTORY_SECONDS = 10.0  # for the answer of a host that has much to tell


class Wanted(Struct, frozen=True):
    """Which events: of any of the kinds (globs), of or about any of the hosts, not before a time; empty: all.

    Notices have no kind that could be asked for: they always belong to it.
    """

    kinds: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    since: float = 0.0

    def matches(self, event: LabEvent) -> bool:
        """Whether it is one of them."""
        if self.hosts and event.source not in self.hosts and event.host not in self.hosts:
            return False
        if event.source == NOTICE:
            return True
        return event.time >= self.since and (
            not self.kinds or any(fnmatchcase(event.kind, kind) for kind in self.kinds)
        )


class Timeline:
    """Events in the order of time, of the sources that have joined. Close it.

    until: all events before that time have been handed on. lost: how many, of hosts, will never be.
    """

    def __init__(self, wanted: Wanted) -> None:
        self.until = 0.0
        self.lost = 0
        self._wanted = wanted
        self._waiting: list[tuple[float, int, LabEvent]] = []
        self._taken = 0
        self._notices = 0
        self._sources: dict[str, EventSource] = {}

    def notify(self, kind: str, name: str, **fields: object) -> None:
        """Have a notice in it, about the source called ``name``."""
        self._notices += 1
        number = self._notices
        self.lost += int(str(fields.get("count", 0)))
        host = "" if name in (VMM, NOTICE) else name
        self._put(LabEvent(f"{NOTICE}/{number}", time.time(), NOTICE, host, kind, name, fields, number))

    @property
    def names(self) -> Sequence[str]:
        """The sources."""
        return [*self._sources]

    @property
    def is_deserted(self) -> bool:
        """Whether none of the sources is there."""
        return all(source.until == float("inf") for source in self._sources.values())

    def join(self, source: EventSource) -> None:
        """One more source."""
        self._sources[source.name] = source

    def leave(self, name: str) -> None:
        """A source is no more."""
        self._sources.pop(name).close()

    def round(self, patience: float = PATIENCE) -> list[LabEvent]:
        """Ask all; what is complete now, oldest first. patience: seconds until a source is late."""
        began = time.time()
        sources = [*self._sources.values()]
        for source in sources:
            source.ask()
        self._await(sources, patience)
        for source in sources:
            if source.fileno() < 0:
                self._take(source)  # such as the VMM, which answers while it is read
        self.until = max(self.until, min([began, *(source.until for source in sources)]))
        return self._ready(self.until)

    def rest(self) -> list[LabEvent]:
        """All that has come, complete or not."""
        return self._ready(float("inf"))

    def close(self) -> None:
        """Ask no more."""
        for source in self._sources.values():
            source.close()

    def _await(self, sources: Sequence[EventSource], patience: float) -> None:
        deadline = time.monotonic() + patience
        poll = select.poll()
        asked = {source.fileno(): source for source in sources if source.fileno() >= 0}
        for descriptor in asked:
            poll.register(descriptor, select.POLLIN)
        while asked:
            is_worth = any(source.until != float("inf") for source in asked.values())
            seconds = max(0.0, deadline - time.monotonic()) if is_worth else 0.0  # no wait for who is away
            ready = poll.poll(seconds * 1000)
            if not ready:
                break
            for descriptor, _ in ready:
                poll.unregister(descriptor)
                self._take(asked.pop(descriptor))
        for source in asked.values():
            source.is_late()

    def _take(self, source: EventSource) -> None:
        for event in source.take():
            self._put(event)

    def _put(self, event: LabEvent) -> None:
        if self._wanted.matches(event):
            self._taken += 1
            heapq.heappush(self._waiting, (event.time, self._taken, event))

    def _ready(self, until: float) -> list[LabEvent]:
        found = []
        while self._waiting and self._waiting[0][0] < until:
            found.append(heapq.heappop(self._waiting)[2])
        return found


class LabTimeline(Timeline):
    """That of a running lab, whose hosts may change meanwhile. Raises BadInput for hosts it does not have."""

    def __init__(self, lab: Lab, wanted: Wanted) -> None:
        known = [*(host.name for host in lab.plan.hosts), *([VMM] if lab.plan.vmm else [])]
        if unknown := [host for host in wanted.hosts if host not in known]:
            raise BadInput(f"{lab.record.name} has no host {unknown[0]!r}: one of {', '.join(known)}")
        self._lab = lab
        self._stamp = store.plan_stamp(lab.record.name)
        self.is_over = False
        super().__init__(wanted)
        for name in known:
            self.join(self._source(name))

    def round(self, patience: float = PATIENCE) -> list[LabEvent]:
        """As :meth:`Timeline.round`; a lab that has ended is noticed."""
        name = self._lab.record.name
        if (stamp := store.plan_stamp(name)) not in (0, self._stamp):
            self._stamp = stamp
            self._follow_plan()
        found = super().round(patience)
        if self.is_deserted and not self._is_running():
            self.is_over = True
            self.notify(ENDED, NOTICE, lab=name)
            found += self.rest()
        return found

    def _source(self, name: str) -> EventSource:
        folder = self._lab.folder(name)
        if name == VMM:
            return VmmSource(folder, self.notify, self._wanted.since)
        return HostSource(name, folder / "control.sock", self.notify, self._wanted.since)

    def _follow_plan(self) -> None:
        hosts = [host.name for host in store.load_plan(self._lab.record.name).hosts]
        for name in self.names:
            if name != VMM and name not in hosts:
                self.leave(name)
        for name in hosts:
            if name not in self.names:
                self.join(self._source(name))

    def _is_running(self) -> bool:
        try:
            return store.load(self._lab.record.name).id == self._lab.record.id
        except BadInput:
            return False


def history(lab: Lab, wanted: Wanted) -> tuple[list[LabEvent], int]:
    """What is known of the past, oldest first, and how many events of hosts are lost. Raises BadInput."""
    line = LabTimeline(lab, wanted)
    try:
        return [*line.round(HISTORY_SECONDS), *line.rest()], line.lost
    finally:
        line.close()


def follow(line: LabTimeline, asked: Callable[[float], bool]) -> Iterator[list[LabEvent]]:
    """What each round brings, until the lab has ended or ``asked(seconds)``, which waits so long, is true."""
    yield line.round(HISTORY_SECONDS)
    while not line.is_over and not asked(PERIOD):
        yield line.round()
    yield line.rest()
