"""The loop of the live view: it waits for keys, for readings and for the time of the next one."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from testbed.lab.activity import Activity, activity
from testbed.lab.sample import Sample
from testbed.lab.watch import Watch
from testbed.top.choice import Choice
from testbed.top.keys import Keyboard
from testbed.top.screen import draw


def run(watch: Watch, choice: Choice, interval: float, count: int | None) -> None:
    """Show a lab until the user has enough, or so many readings were shown. Seconds."""
    console = Console(highlight=False, markup=False)
    with (
        _bell() as bell,
        ThreadPoolExecutor(1, thread_name_prefix="top") as pool,  # ends before what it rings is closed
        Keyboard() as keyboard,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        _Loop(watch, choice, interval, count, pool, bell, keyboard, live).run()


@contextmanager
def _bell() -> Iterator[int]:
    """A descriptor that is readable when there is something new: a reading, another size of the terminal."""
    descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    before = signal.signal(signal.SIGWINCH, lambda *_: os.eventfd_write(descriptor, 1))
    try:
        yield descriptor
    finally:
        signal.signal(signal.SIGWINCH, before)
        os.close(descriptor)


class _Loop:
    def __init__(
        self,
        watch: Watch,
        choice: Choice,
        interval: float,
        count: int | None,
        pool: ThreadPoolExecutor,
        bell: int,
        keyboard: Keyboard,
        live: Live,
    ) -> None:
        self._watch, self._choice, self._interval, self._left = watch, choice, interval, count
        self._pool, self._bell, self._keyboard, self._live = pool, bell, keyboard, live
        self._before: Sample | None = None
        self._shown: Activity | None = None
        self._reading: Future[Sample] | None = None
        self._next = time.monotonic()

    def run(self) -> None:
        while not (self._choice.done or self._keyboard.closed or self._left == 0):
            self._begin_reading()
            ready, _, _ = select.select([self._keyboard.descriptor, self._bell], [], [], self._patience())
            if self._keyboard.descriptor in ready:
                for key in self._keyboard.read():
                    self._choice.press(key)
            if self._bell in ready:
                os.eventfd_read(self._bell)
                self._take_reading()
            if ready and self._shown:
                self._live.update(draw(self._shown, self._choice, self._live.console), refresh=True)

    def _patience(self) -> float | None:
        """Seconds until the next reading is due; None while one is on its way, or none is wanted."""
        if self._reading or self._choice.paused:
            return None
        return max(0.0, self._next - time.monotonic())

    def _begin_reading(self) -> None:
        now = time.monotonic()
        if self._reading or self._choice.paused or now < self._next:
            return
        self._next += self._interval
        if self._next <= now:  # it was paused, or the lab was slow
            self._next = now + self._interval
        self._reading = self._pool.submit(self._watch.sample)
        self._reading.add_done_callback(lambda _: os.eventfd_write(self._bell, 1))

    def _take_reading(self) -> None:
        if self._reading is None or not self._reading.done():
            return
        sample = self._reading.result()
        self._reading = None
        self._shown = activity(self._before, sample)
        self._before = sample
        if self._left is not None:
            self._left -= 1
