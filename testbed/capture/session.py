"""A capture from its beginning to its end: all points of it, one order, one output."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from testbed.capture.merge import WINDOW_NS, Merge
from testbed.capture.records import Record
from testbed.capture.source import Reader

BATCH = 64  # packets of a point in turn
_IDLE = 1.0  # seconds until the next look when nothing comes and nothing waits
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Closed(Exception):
    """The reader of the output has gone."""


class Output(Protocol):
    """Where packets go. Each method may raise Closed."""

    def packet(self, record: Record) -> None:
        """One more, in order."""

    def flush(self) -> None:
        """What has come so far is to be seen."""

    def finish(self, sources: Sequence[Reader]) -> None:
        """Nothing comes any more; what points have received and lost is known."""


class Limits(Struct, frozen=True):
    """When it ends by itself; None: not by that."""

    seconds: float | None = None
    packets: int | None = None


class Interrupt:
    """Ctrl-C and SIGTERM end a capture in good order: in the ``with`` block they only set ``asked``.

    A second one ends it as it would end anything else.
    """

    def __init__(self) -> None:
        self.asked = False
        self._stack = contextlib.ExitStack()
        self._ours, self._kernels = socket.socketpair()

    def fileno(self) -> int:
        """Readable from the first signal on."""
        return self._ours.fileno()

    def __enter__(self) -> Interrupt:
        self._kernels.setblocking(False)
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                signal.signal(number, self._ask)
                self._stack.callback(signal.signal, number, before)
        before_descriptor = signal.set_wakeup_fd(self._kernels.fileno(), warn_on_full_buffer=False)
        self._stack.callback(signal.set_wakeup_fd, before_descriptor)
        return self

    def _ask(self, number: int, _: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._ours.close()
        self._kernels.close()


class Session:
    """``nodes``: descriptors that become readable when a node has ended, with the points it had.

    packets, events: those that have gone to the output. is_closed: the output's reader has gone.
    """

    def __init__(
        self, sources: Sequence[Reader], nodes: Mapping[int, Sequence[Reader]], output: Output
    ) -> None:
        self.packets = self.events = 0
        self.is_closed = False
        self.merge = Merge()
        self._sources = {source.socket.fileno(): source for source in sources}
        self._beside = {source.number for source in sources if source.is_beside}
        self._nodes = dict(nodes)
        self._output = output
        self._poll = select.epoll()
        for descriptor in [*self._sources, *self._nodes]:
            self._poll.register(descriptor, select.EPOLLIN)

    def run(self, limits: Limits, interrupt: Interrupt) -> None:
        """Until a limit, a signal, the end of all points, or of the output's reader."""
        sources = list(self._sources.values())
        deadline = None if limits.seconds is None else time.monotonic() + limits.seconds
        self._poll.register(interrupt.fileno(), select.EPOLLIN)
        try:
            while self._sees() and not interrupt.asked and not self._full(limits):
                patience = self._patience(deadline)
                if patience <= 0:
                    break
                self._turn(patience)
                self._put(self.merge.ready(self._read_until()), limits)
            if not self._full(limits):
                self._drain(limits)
            for source in sources:
                source.count()
            self._output.finish(sources)
        except Closed:
            self.is_closed = True
            for source in sources:
                source.count()
        finally:
            self._poll.close()

    def _sees(self) -> bool:
        return any(not source.is_beside for source in self._sources.values())

    def _full(self, limits: Limits) -> bool:
        return limits.packets is not None and self.packets >= limits.packets

    def _patience(self, deadline: float | None) -> float:
        wait = WINDOW_NS / 2e9 if len(self.merge) else _IDLE
        return wait if deadline is None else min(wait, deadline - time.monotonic())

    def _turn(self, patience: float) -> None:
        """Read what is there, a batch of each point."""
        asked = time.time_ns()
        events = self._poll.poll(patience)
        ready = {descriptor for descriptor, _ in events}
        for descriptor, source in list(self._sources.items()):
            if descriptor not in ready:
                source.idle(asked)
            else:
                for record in source.read(BATCH):
                    self.merge.add(record)
            if source.ended:
                self._forget(descriptor)
        for descriptor in ready & self._nodes.keys():
            for source in self._nodes.pop(descriptor):
                source.ended = source.ended or "its node has ended"
                if source.socket.fileno() in self._sources:
                    self._forget(source.socket.fileno())
            self._poll.unregister(descriptor)

    def _forget(self, descriptor: int) -> None:
        source = self._sources.pop(descriptor)
        self._poll.unregister(descriptor)
        source.close()

    def _read_until(self) -> int:
        return min((source.read_until for source in self._sources.values()), default=time.time_ns())

    def _drain(self, limits: Limits) -> None:
        """What has reached the sockets until now; no more than once what they can hold."""
        end = time.time_ns()
        for source in self._sources.values():
            source.settle()
        for source in self._sources.values():
            while source.read_until < end:
                last = 0
                for record in source.read(BATCH):
                    self.merge.add(record)
                    last = record.time
                if last > end or source.ended:
                    break
        self._put(self.merge.rest(), limits)

    def _put(self, records: Iterator[Record], limits: Limits) -> None:
        for record in records:
            self._output.packet(record)
            if record.point in self._beside:
                self.events += 1
            else:
                self.packets += 1
            if self._full(limits):
                break
        self._output.flush()
