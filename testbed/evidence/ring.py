"""The last packets at every cable and every VM's adapter, while a test runs.

A thread reads the packet sockets and keeps what fits: 128 bytes of each packet, so many of each point. What
comes faster than it reads is lost in the kernel, which counts it.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from testbed.capture import pcapng
from testbed.capture.filters import criteria
from testbed.capture.points import Point, known
from testbed.capture.records import Record
from testbed.capture.session import Interrupt, Limits, Session
from testbed.capture.source import Reader
from testbed.lab import capture
from testbed.lab.lab import Lab

SNAPLEN = 128
PACKETS = 4096  # that are kept of each point
POINTS = ("cable:*", "vm:*")
STOP_SECONDS = 10.0
_UNSAFE = re.compile(r"[^a-z0-9-]+")


class Ring:
    """An output of a capture that keeps the last packets of each point."""

    def __init__(self, points: int) -> None:
        self.kept: list[deque[Record]] = [deque(maxlen=PACKETS) for _ in range(points)]
        self.passed = [0] * points

    def packet(self, record: Record) -> None:
        """One more; the oldest of its point goes if there is no room."""
        self.kept[record.point].append(record)
        self.passed[record.point] += 1

    def flush(self) -> None:
        """Nothing waits here."""

    def finish(self, sources: Sequence[Reader]) -> None:
        """Counts are read when the files are made."""


class _Stop(Interrupt):
    """Ends a session from another thread; no signal is touched."""

    def ask(self) -> None:
        self.asked = True
        self._kernels.send(b"\0")


class Recorder:
    """Records from the moment it is made. Stop it before the lab ends."""

    def __init__(self, lab: Lab) -> None:
        names = {point.name for point in known(lab.plan)}
        patterns = [each for each in POINTS if any(name.startswith(each[:-1]) for name in names)]
        self._points: list[Point] = capture.choose(lab, patterns)
        self._ring = Ring(len(self._points))
        self._stop = _Stop()
        self._stack = contextlib.ExitStack()
        self._readers: list[Reader] = []
        opened = capture.opened(lab, self._points, criteria(None, None, None, None), SNAPLEN)
        self._readers = self._stack.enter_context(opened)
        self._stack.callback(self._stop.__exit__)
        nodes: dict[int, list[Reader]] = {}
        for point, reader in zip(self._points, self._readers, strict=True):
            nodes.setdefault(lab.node(point.node).pidfd, []).append(reader)
        session = Session(self._readers, nodes, self._ring)
        self._thread = threading.Thread(target=session.run, args=(Limits(), self._stop), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """What has reached the sockets until now is kept. May be called more than once."""
        if self._thread.is_alive():
            self._stop.ask()
            self._thread.join(STOP_SECONDS)
            # the kernel waits for all readers (RCU) when a packet socket is closed: once, not once for each
            with ThreadPoolExecutor(len(self._readers) or 1) as closing:
                list(closing.map(Reader.close, self._readers))
        self._stack.close()

    def files(self) -> dict[str, bytes]:
        """A capture file of each point, by its name in a bundle. Call it after :meth:`stop`."""
        return {
            f"captures/{_UNSAFE.sub('-', point.name.lower())}.pcapng": self._file(number)
            for number, point in enumerate(self._points)
        }

    def _file(self, number: int) -> bytes:
        point, reader = self._points[number], self._readers[number]
        parts = [pcapng.section("testbed"), pcapng.interface(point.name, point.description, SNAPLEN)]
        for record in self._ring.kept[number]:
            _, moment, data, length, flags, comments = record[1], record[0], *record[2:]
            parts.append(pcapng.packet(0, moment, data, length, flags, comments))
        parts.append(pcapng.statistics(0, time.time_ns(), self._ring.passed[number], reader.lost))
        return b"".join(parts)
