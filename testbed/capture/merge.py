"""One order of time over all points: packets wait until none that is older can come any more."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from testbed.capture.records import Record

WINDOW_NS = 100_000_000  # how much later than its stamp a packet may reach its socket
MAXIMUM_BYTES = 64 << 20  # that wait; above, the oldest go at once
_OVERHEAD = 256  # of a record


class Merge:
    """disordered: packets that came after younger ones had gone on."""

    def __init__(self, maximum: int = MAXIMUM_BYTES) -> None:
        self.disordered = 0
        self._maximum = maximum
        self._waiting: list[tuple[int, int, Record]] = []
        self._number = 0
        self._bytes = 0
        self._latest = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, record: Record) -> None:
        """One more packet, of whatever time."""
        self._number += 1
        heapq.heappush(self._waiting, (record.time, self._number, record))
        self._bytes += len(record.data) + _OVERHEAD

    def ready(self, read_until: int) -> Iterator[Record]:
        """Those before which nothing can come, oldest first, when all points are read up to that time."""
        while self._waiting and (
            self._waiting[0][0] <= read_until - WINDOW_NS or self._bytes > self._maximum
        ):
            yield self._next()

    def rest(self) -> Iterator[Record]:
        """All that wait: nothing comes any more."""
        while self._waiting:
            yield self._next()

    def _next(self) -> Record:
        when, _, record = heapq.heappop(self._waiting)
        self._bytes -= len(record.data) + _OVERHEAD
        if when < self._latest:
            self.disordered += 1
        self._latest = max(self._latest, when)
        return record
