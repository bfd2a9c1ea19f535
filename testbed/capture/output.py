"""Outputs: a capture file, a pipe that somebody follows, lines for people."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import time
from collections.abc import Callable, Sequence

from testbed.capture import pcapng
from testbed.capture.events import EVENTS
from testbed.capture.points import Point
from testbed.capture.records import Record
from testbed.capture.session import Closed
from testbed.capture.source import Reader
from testbed.capture.summary import event_line, line
from testbed.errors import LabError

_PIPE = 4096  # PIPE_BUF: a pipe that is ready takes as much at once
_PIPE_BYTES = 1 << 20  # that a pipe may hold
_LATE_SECONDS = 2.0  # for a reader that does not read, once the capture is to end
_LOOK = 0.2  # seconds between looks whether it is


class PcapngOutput:
    """A capture file at an open descriptor, which stays the caller's.

    A pipe whose reader is slow makes the capture wait; what the kernel then cannot keep is lost and
    counted. ``ending``: whether the capture is to end, so that it does not wait for ever.
    """

    def __init__(
        self, descriptor: int, points: Sequence[Point], snaplen: int, ending: Callable[[], bool]
    ) -> None:
        self._descriptor = descriptor
        self._ending = ending
        self._pending = bytearray(pcapng.section("testbed"))
        for point in points:
            kind = (0, pcapng.UPPER_PDU) if point == EVENTS else (snaplen, pcapng.ETHERNET)
            self._pending += pcapng.interface(point.name, point.description, *kind)
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        if not self._is_file:
            with contextlib.suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.flush()

    def packet(self, record: Record) -> None:
        """One more packet block."""
        self._pending += pcapng.packet(
            record.point, record.time, record.data, record.length, record.flags, record.comments
        )
        if len(self._pending) >= _PIPE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what has come so far. Raises Closed, LabError."""
        if not self._pending:
            return
        try:
            with memoryview(self._pending) as view:
                self._write(view)
        except BrokenPipeError:
            raise Closed from None
        except OSError as error:
            raise LabError(f"the capture cannot be written: {error.strerror}") from error
        finally:
            self._pending = bytearray()

    def finish(self, sources: Sequence[Reader]) -> None:
        """A statistics block for each point."""
        now = time.time_ns()
        for source in sources:
            self._pending += pcapng.statistics(source.number, now, source.received, source.lost)
        self.flush()

    def _write(self, view: memoryview) -> None:
        while view:
            if not self._is_file:
                self._wait()
            view = view[os.write(self._descriptor, view if self._is_file else view[:_PIPE]) :]

    def _wait(self) -> None:
        """Until the reader takes more, or has no more time. Raises Closed."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        deadline = None
        while not poll.poll(_LOOK * 1000):
            if self._ending():
                deadline = deadline or time.monotonic() + _LATE_SECONDS
                if time.monotonic() > deadline:
                    raise Closed


class LinesOutput:
    """A line for each packet, by ``write``."""

    def __init__(self, points: Sequence[Point], write: Callable[[str], object]) -> None:
        width = max(len(point.name) for point in points)
        self._names = [point.name.ljust(width) for point in points]
        self._events = points.index(EVENTS) if EVENTS in points else None
        self._write = write

    def packet(self, record: Record) -> None:
        """Time, point, direction, what it is, comments."""
        try:
            told = event_line if record.point == self._events else line
            self._write(told(record, self._names[record.point]))
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise Closed from None
            raise

    def flush(self) -> None:
        """Lines are written at once."""

    def finish(self, sources: Sequence[Reader]) -> None:
        """There is nothing to add."""
