"""Faults of NIC teams."""

from __future__ import annotations

from typing import Any

from planting import answering, around, plant


@plant(37)
def original_macs_everywhere() -> None:
    from testbed.teaming import stage

    answering(stage._Home, "is_original", True)
    around(stage._Home, "mac_through", lambda before, self, *_: self.mac)


@plant(38)
def flowlets_torn_apart() -> None:
    from testbed.teaming.flowlets import Flowlets

    def place(_: Any, self: Any, bucket: Any, now: float) -> Any:
        uplinks = [load.uplink for load in self._loads]
        bucket.uplink = uplinks[self.moved % len(uplinks)]
        bucket.last = float("-inf")
        self.moved += 1
        return bucket.uplink

    around(Flowlets, "place", place)
    around(Flowlets, "bucket", lambda before, self, hashed: _Restless(before(self, hashed)))


class _Restless:
    """A bucket whose gap is always over."""

    def __init__(self, bucket: Any) -> None:
        self.uplink, self.bytes = bucket.uplink, 0

    @property
    def last(self) -> float:
        return float("-inf")

    @last.setter
    def last(self, _: float) -> None:
        pass


@plant(39)
def queues_always_added() -> None:
    from testbed.switch.roles import Roles

    Roles.queue_mode = property(lambda self: "Sum-of-Queues")
