"""testbed.host.droprate: a loss is told when it begins and when it is over, and nothing in between."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.host.droprate import QUIET_LOOKS, DropWatch
from testbed.switch.drops import Drop


class Counter:
    """The counter of one reason, looked at once a second."""

    def __init__(self, reason: str = Drop.NO_LOOKUP_RECORD) -> None:
        self.watch = DropWatch(0.0)
        self.reason = reason
        self.now = 0.0
        self.packets = 0

    def second(self, packets: int) -> list[dict[str, Any]]:
        self.now += 1
        self.packets += packets
        return self.watch.look(self.now, [("wnv", "blue1:eth0", 5001, self.reason, self.packets)])


def test_a_loss_is_told_when_it_begins_and_when_it_is_over() -> None:
    counter = Counter()
    assert counter.second(9) == []  # less than the rate
    (began,) = counter.second(50)
    assert began == {
        "object": "blue1:eth0",
        "state": "began",
        "stage": "wnv",
        "vsid": 5001,
        "reason": "no-lookup-record",
        "packets": 50,
        "rate": 50.0,
    }
    assert [counter.second(50) for _ in range(5)] == [[]] * 5
    assert [counter.second(0) for _ in range(QUIET_LOOKS - 1)] == [[]] * (QUIET_LOOKS - 1)
    (ended,) = counter.second(0)
    assert (ended["state"], ended["packets"], ended["seconds"]) == ("ended", 300, 6.0)
    assert counter.second(0) == []


def test_a_loss_that_comes_and_goes_is_one() -> None:
    counter = Counter()
    told = [each for second in range(60) for each in counter.second(20 if second % 3 == 0 else 0)]
    assert [each["state"] for each in told] == ["began"]


def test_between_the_two_rates_nothing_begins_and_nothing_ends() -> None:
    counter = Counter()
    assert [counter.second(5) for _ in range(10)] == [[]] * 10
    assert len(counter.second(10)) == 1
    assert [counter.second(5) for _ in range(10)] == [[]] * 10


@pytest.mark.parametrize("reason", [Drop.NEIGHBOR_CONSUMED, Drop.OTHER_MEMBER, Drop.OWN_PACKET])
def test_what_belongs_to_normal_life_is_no_loss(reason: Drop) -> None:
    assert Counter(reason).second(1000) == []


def test_a_late_look_knows_its_seconds() -> None:
    watch = DropWatch(0.0)
    assert watch.look(10.0, [("nic", "nic1", 0, "rx-overrun", 90)]) == []
    (began,) = watch.look(12.0, [("nic", "nic1", 0, "rx-overrun", 130)])
    assert began["rate"] == 20.0


def test_counters_that_begin_anew_or_go_are_no_loss_and_end_one() -> None:
    counter = Counter()
    counter.second(100)
    counter.packets = 0  # the NIC was replaced
    assert counter.second(0) == []
    for _ in range(QUIET_LOOKS - 2):
        assert counter.watch.look(counter.now + 1, []) == []
        counter.now += 1
    (ended,) = counter.watch.look(counter.now + 1, [])
    assert (ended["state"], ended["packets"]) == ("ended", 100)
