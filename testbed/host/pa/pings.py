"""Pings that somebody has asked for: each a task, while its asker looks for what has come of it."""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import Protocol

import msgspec

from testbed.errors import BadInput

KEPT = 16  # pings that run, or whose result nobody has fetched
ATTEMPTS = 2  # requests of a size until it counts as too large (chosen)
HEADERS = {4: 28, 6: 48}  # bytes of IP and ICMP around a payload


class Order(msgspec.Struct, frozen=True):
    """What to ping. count 0: find the largest payload that passes, up to size. member: a NIC, or ""."""

    source: str
    destination: str
    next_hop: str
    count: int
    size: int
    timeout: float
    member: str = ""


class Result(msgspec.Struct):
    """What has come of it: seconds of each round trip, None for a request without an answer.

    largest: of a search, the largest payload that passes unfragmented; None: none does.
    """

    done: bool = False
    round_trips: list[float | None] = []
    largest: int | None = None


class Space(Protocol):
    """The PA network, as far as a ping needs it."""

    async def ping(
        self,
        source: str,
        destination: str,
        size: int,
        timeout: float,
        next_hop: str | None = None,
        member: str = "",
    ) -> float:
        """Seconds of one round trip. Raises TimeoutError."""


class Pings:
    """The pings of one host."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._numbers = itertools.count(1)
        self._results: dict[int, Result] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def start(self, space: Space, order: Order) -> int:
        """Begin; the number by which to ask for the result. Raises BadInput when too many run."""
        if len(self._results) >= KEPT:
            forgotten = next((number for number, result in self._results.items() if result.done), None)
            if forgotten is None:
                raise BadInput(f"{KEPT} pings run on this host already: wait until one has ended")
            self.end(forgotten)
        number = next(self._numbers)
        result = self._results[number] = Result()
        task = self._tasks[number] = self._loop.create_task(_run(space, order, result))
        task.add_done_callback(lambda _: self._tasks.pop(number, None))
        return number

    def result(self, number: int) -> Result:
        """What has come of a ping so far. Raises BadInput for a number that is not known."""
        if number not in self._results:
            raise BadInput(f"there is no ping {number}: its result has been forgotten")
        return self._results[number]

    def end(self, number: int) -> None:
        """Stop it, and forget its result."""
        self._results.pop(number, None)
        if task := self._tasks.pop(number, None):
            task.cancel()

    def stop(self) -> None:
        """End all."""
        for number in [*self._results]:
            self.end(number)


async def _run(space: Space, order: Order, result: Result) -> None:
    try:
        if order.count:
            for _ in range(order.count):
                result.round_trips.append(await _once(space, order, order.size))
        else:
            await _search(space, order, result)
    finally:
        result.done = True


async def _once(space: Space, order: Order, size: int) -> float | None:
    try:
        return await space.ping(
            order.source, order.destination, size, order.timeout, order.next_hop, order.member
        )
    except TimeoutError:
        return None


async def _search(space: Space, order: Order, result: Result) -> None:
    """Halve the interval between what passes and what does not."""

    async def passes(size: int) -> bool:
        for _ in range(ATTEMPTS):
            found = await _once(space, order, size)
            result.round_trips.append(found)
            if found is not None:
                result.largest = max(size, result.largest or 0)
                return True
        return False

    if not await passes(0) or await passes(order.size):
        return
    passing, failing = 0, order.size
    while failing - passing > 1:
        middle = (passing + failing) // 2
        if await passes(middle):
            passing = middle
        else:
            failing = middle


def longest(order: Order) -> float:
    """Seconds that a ping takes at most, if its requests are not answered."""
    sizes = 2 + math.ceil(math.log2(order.size + 2))
    return order.timeout * (order.count or ATTEMPTS * sizes)
