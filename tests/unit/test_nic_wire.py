"""The user-space wire, between sockets in place of its TAP devices."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from testbed.channel import Channel, pair
from testbed.nic import wire
from testbed.nic.wire import Line, Wires

SECONDS = 10.0


class Ends:
    """A wire of one line, and who is at its two ends: what is sent into it comes back out of it."""

    def __init__(self, orders: Channel, far: socket.socket) -> None:
        self.orders = orders
        self.far = far
        far.settimeout(SECONDS)

    def set(self, *, delay: float, jitter: float = 0.0, reordering: float = 0.0, seed: int = 1) -> None:
        self.orders.call("set", name="a", delay=delay, jitter=jitter, reordering=reordering, seed=seed)

    def counters(self) -> dict[str, int]:
        counters: dict[str, int] = self.orders.call("counters")[0]["counters"]["a"]
        return counters

    def through(self, count: int) -> list[tuple[int, float]]:
        """Send so many frames at once; the number of each in the order of arrival, and when it came."""
        for number in range(count):
            self.far.send(number.to_bytes(2, "big"))
        return [(int.from_bytes(self.far.recv(10), "big"), time.monotonic()) for _ in range(count)]


@pytest.fixture
def ends() -> Iterator[Ends]:
    orders, theirs = pair()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    thread = threading.Thread(target=Wires(theirs).run)
    thread.start()
    orders.call("add", [near.fileno()], name="a")
    near.close()
    yield Ends(orders, far)
    orders.close()
    thread.join(SECONDS)
    assert not thread.is_alive()  # it ends with its channel
    far.close()
    theirs.close()


def test_each_frame_waits_as_long_as_it_is_to(ends: Ends) -> None:
    ends.set(delay=0.05)
    began = time.monotonic()
    arrived = ends.through(20)
    assert [number for number, _ in arrived] == list(range(20))
    assert all(0.05 <= at - began < 0.05 + 1 for _, at in arrived)
    assert ends.counters() == {"delayed": 20, "reordered": 0, "overrun": 0}


def test_jitter_varies_the_delay_and_keeps_the_order(ends: Ends) -> None:
    ends.set(delay=0.05, jitter=0.04)
    began = time.monotonic()
    arrived = ends.through(50)
    assert [number for number, _ in arrived] == list(range(50))
    assert arrived[0][1] - began >= 0.01
    assert arrived[-1][1] - arrived[0][1] > 0.005


def test_what_is_reordered_overtakes(ends: Ends) -> None:
    ends.set(delay=0.2, reordering=0.2, seed=7)
    arrived = [number for number, _ in ends.through(100)]
    dice = random.Random(7)
    overtakes = [number for number in range(100) if (dice.uniform(-1, 1), dice.random())[1] < 0.2]
    assert 5 < len(overtakes) < 40
    assert arrived == overtakes + [number for number in range(100) if number not in overtakes]
    assert ends.counters()["reordered"] == len(overtakes)


def test_what_a_full_wire_can_not_hold_is_counted(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HELD_MAX", 10)
    ends.set(delay=0.1)
    for number in range(15):
        ends.far.send(bytes([number]))
    assert [ends.far.recv(10)[0] for _ in range(10)] == list(range(10))
    assert ends.counters() == {"delayed": 10, "reordered": 0, "overrun": 5}


def test_a_cable_that_is_gone_ends_its_line_and_no_other(ends: Ends) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ends.orders.call("add", [near.fileno()], name="b")
    ends.orders.call("remove", name="b")
    near.close()
    assert far.recv(10) == b""  # it has let go
    far.close()
    ends.set(delay=0.01)
    assert [number for number, _ in ends.through(3)] == [0, 1, 2]


def test_chances_depend_on_the_seed_alone() -> None:
    near, far = socket.socketpair()
    runs = []
    for seed in (3, 3, 4):
        line = Line(near.fileno())
        line.set({"delay": 1.0, "jitter": 0.5, "reordering": 0.3, "seed": seed})
        runs.append([line.due(float(now)) for now in range(50)])
    assert runs[0] == runs[1] != runs[2]
    near.close()
    far.close()
