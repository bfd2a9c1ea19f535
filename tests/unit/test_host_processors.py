"""Emulated processors: what is done is charged, who has used his share waits, queues move where room is."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from testbed.host import processors as module
from testbed.host.processors import Job, Processor, Scheduler


class Source:
    """Something that can always be read; each batch costs ``cost`` seconds of a core."""

    def __init__(self, cost: float) -> None:
        self.read, write = os.pipe()
        os.write(write, b"x")
        os.close(write)
        self.cost, self.spent = cost, 0.0

    def drain(self) -> None:
        self.spent += self.cost


@contextmanager
def scheduled(count: int, *jobs: tuple[Source, int, bool, bool], share: float = 0.1) -> Iterator[Scheduler]:
    """Jobs: source, processor, movable, anywhere."""
    poll = select.epoll()
    scheduler = Scheduler(poll, [Processor(share) for _ in range(count)])
    handlers = {}
    for source, processor, movable, anywhere in jobs:
        job = Job(
            source.read,
            source.drain,
            lambda source=source: source.spent,  # type: ignore[misc]
            scheduler.processors[processor],
            movable=lambda movable=movable: movable,  # type: ignore[misc]
            anywhere=anywhere,
        )
        handlers[source.read] = scheduler.add(job)
        poll.register(source.read, select.EPOLLIN)
    scheduler.handlers = handlers  # type: ignore[attr-defined]
    scheduler.poll_for_test = poll  # type: ignore[attr-defined]
    try:
        yield scheduler
    finally:
        poll.close()
        for source, *_ in jobs:
            os.close(source.read)


def run(scheduler: Scheduler, seconds: float) -> None:
    """As the worker's loop does."""
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        wait = scheduler.timeout()
        for descriptor, _ in scheduler.poll_for_test.poll(min(end - now, 1.0 if wait is None else wait)):  # type: ignore[attr-defined]
            scheduler.handlers[descriptor]()  # type: ignore[attr-defined]
        scheduler.resume()


def test_a_share_is_kept() -> None:
    source = Source(0.001)
    with scheduled(1, (source, 0, False, False)) as scheduler:
        run(scheduler, 0.5)
    assert 0.03 <= source.spent <= 0.06  # a tenth of half a second, and what may be made up for


def test_processors_do_not_share() -> None:
    one, other = Source(0.001), Source(0.001)
    with scheduled(2, (one, 0, False, False), (other, 1, False, False)) as scheduler:
        run(scheduler, 0.5)
    assert all(0.03 <= each.spent <= 0.06 for each in (one, other))
    one, other = Source(0.001), Source(0.001)
    with scheduled(2, (one, 0, False, False), (other, 0, False, False)) as scheduler:
        run(scheduler, 0.5)
    assert 0.03 <= one.spent + other.spent <= 0.06


def test_what_can_be_done_anywhere_takes_what_is_left() -> None:
    pinned, free = Source(0.001), Source(0.001)
    with scheduled(3, (pinned, 0, False, False), (free, 0, False, True)) as scheduler:
        run(scheduler, 0.5)
    assert free.spent > 1.5 * pinned.spent


def test_queues_move_to_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BALANCE", 0.1)
    one, other = Source(0.001), Source(0.001)
    with scheduled(2, (one, 0, True, False), (other, 0, True, False)) as scheduler:
        run(scheduler, 0.8)
    assert one.spent + other.spent > 0.1  # more than one processor could do


def test_queues_that_may_not_move_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BALANCE", 0.1)
    one, other = Source(0.001), Source(0.001)
    with scheduled(2, (one, 0, False, False), (other, 0, False, False)) as scheduler:
        run(scheduler, 0.5)
    assert one.spent + other.spent <= 0.06


def test_a_job_that_is_gone_is_not_resumed() -> None:
    source = Source(0.01)
    with scheduled(1, (source, 0, False, False)) as scheduler:
        scheduler.handlers[source.read]()  # type: ignore[attr-defined]
        assert scheduler.timeout() is not None
        scheduler.remove(source.read)
        time.sleep(0.11)
        scheduler.resume()
        assert scheduler.timeout() is None
