"""Emulated logical processors: each does a modelled amount of work per second, the same on any machine.

A processor is charged for what is done on it (the costs below), not for the time that it took: that would
measure the machine and its other load. One that has used its share of time waits; what arrives for it
meanwhile stays in its queues, and is lost there when they are full, as on a real host.
"""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable
from dataclasses import dataclass

# Seconds of a core. Chosen so that ten per cent of one takes some 15,000 frames of 1,500 bytes per second,
# which every machine that can run a lab can emulate for several processors at once.
PER_PACKET = 2e-6
PER_BYTE_RECEIVED = 3e-9  # it is copied into the VM
PER_BYTE_SENT = 0.5e-9
PER_SEGMENT = 2e-6  # of segmentation by the switch
PER_CHECKSUM = 1.5e-6  # completed by the switch
_SLACK = 0.005  # seconds by which a processor may make up for having been woken late
_BALANCE = 1.0  # seconds between looks at how the queues share the processors
_WORTH_IT = 0.8  # a queue moves when the busiest processor gets below this part of its load


@dataclass
class Processor:
    """One logical processor. ``share``: of a core; 0: it does whatever it is given at once."""

    share: float
    free_at: float = 0.0  # on the monotonic clock
    busy: float = 0.0  # seconds of work done

    def charge(self, seconds: float, now: float) -> None:
        """Work that would have taken a whole core so long."""
        self.busy += seconds
        self.free_at = max(self.free_at, now - _SLACK) + seconds / self.share


@dataclass
class Job:
    """Something to be read: what reads a batch of it, what that has cost so far, and where it is done."""

    descriptor: int
    drain: Callable[[], None]
    spent: Callable[[], float]
    processor: Processor
    movable: Callable[[], bool] = lambda: False
    anywhere: bool = False  # each batch is done by the processor that has time first
    load: float = 0.0  # since the last look
    parked: bool = False


class Scheduler:
    """Runs jobs on processors with a budget. ``poll``: the worker's."""

    def __init__(self, poll: select.epoll, processors: list[Processor]) -> None:
        self.processors = processors
        self._poll = poll
        self._jobs: dict[int, Job] = {}
        self._parked: list[tuple[float, int]] = []  # when, descriptor
        self._look_at = 0.0

    def add(self, job: Job) -> Callable[[], None]:
        """What the worker is to call when the job's descriptor is readable."""
        self._jobs[job.descriptor] = job
        return lambda: self._run(job)

    def remove(self, descriptor: int) -> None:
        """Forget a job; an unknown one is no error."""
        self._jobs.pop(descriptor, None)

    def timeout(self) -> float | None:
        """Seconds until a waiting job may go on."""
        return max(0.0, self._parked[0][0] - time.monotonic()) if self._parked else None

    def resume(self) -> None:
        """Have those jobs go on whose processor has time again."""
        now = time.monotonic()
        while self._parked and self._parked[0][0] <= now:
            _, descriptor = heapq.heappop(self._parked)
            job = self._jobs.get(descriptor)
            if job is not None and job.parked:
                job.parked = False
                self._poll.modify(descriptor, select.EPOLLIN)
        if now >= self._look_at:
            self._balance()
            self._look_at = now + _BALANCE

    def _run(self, job: Job) -> None:
        if job.anywhere:
            job.processor = min(self.processors, key=lambda each: each.free_at)
        processor, now = job.processor, time.monotonic()
        if processor.free_at <= now:
            before = job.spent()
            job.drain()
            cost = job.spent() - before
            job.load += cost
            processor.charge(cost, now)
        if processor.free_at > now and job.descriptor in self._jobs:
            job.parked = True
            self._poll.modify(job.descriptor, 0)
            heapq.heappush(self._parked, (processor.free_at, job.descriptor))

    def _balance(self) -> None:
        """Dynamic VMQ: when one processor is full and another is not, queues move to where there is room."""
        jobs = list(self._jobs.values())
        movable = sorted((job for job in jobs if job.movable()), key=lambda job: job.load, reverse=True)
        before = self._loads(jobs)
        after = self._loads([job for job in jobs if not job.movable()])
        places: list[int] = []
        for job in movable:
            place = min(range(len(after)), key=after.__getitem__)
            after[place] += job.load
            places.append(place)
        if max(after) < _WORTH_IT * max(before):
            for job, place in zip(movable, places, strict=True):
                job.processor = self.processors[place]
        for job in jobs:
            job.load = 0.0

    def _loads(self, jobs: list[Job]) -> list[float]:
        """What the jobs have cost, by processor."""
        return [sum(job.load for job in jobs if job.processor is each) for each in self.processors]
