"""testbed.host.worker: orders and their acknowledgement."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.channel import Channel, pair
from testbed.host.worker import Worker


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    control, worker = pair()
    with control, worker:
        yield control, worker


def test_an_order_that_fails_is_answered_and_the_worker_lives(ends: tuple[Channel, Channel]) -> None:
    control, channel = ends
    worker = Worker(channel)
    control.send({"op": "add-nic", "name": "nowhere0", "mac": "02:00:00:00:00:01"})
    worker._order()
    answer = control.receive()
    assert answer is not None
    assert answer[0]["error"].startswith("add-nic: ")
    control.send({"op": "counters"})
    worker._order()
    answer = control.receive()
    assert answer is not None
    assert answer[0]["result"]["nics"] == []
