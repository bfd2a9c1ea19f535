"""Dynamic distribution: flows move between the team's NICs at the gaps between their flowlets.

A flow is a bucket, of which there are 1024 by the hash of its addresses and ports. After a gap that is longer
than the paths can differ, its next packet may take another NIC and still come last: the one with least to
do, reckoned from what it has sent lately and what waits before its cable. Flows without gaps, or behind a
queue that never drains, are moved now and then, when the NICs' shares are uneven. (hnv.md section 10,
T-set; the figures below are chosen, none is published.)
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence

from testbed.switch.buffer import Action
from testbed.switch.uplink import Uplink

BUCKETS = 1024
SHORTEST_GAP = 0.0005  # seconds: what a host's own scheduling may add to a path
REBALANCE = 0.25  # seconds between looks at flows that don't move by themselves
_MEMORY = 0.02  # seconds for which sent bytes count as load
_WORTH_IT = 3000  # bytes of load by which another NIC has to be better
_UNEVEN = 0.25  # part of the busiest NIC's bytes by which another one has to have less
_IDLE = 30_000  # bytes in that time below which nothing is worth moving
_QUEUED = 15_000  # bytes before the cable from which a NIC counts as full
_monotonic = time.monotonic


class Bucket:
    """The flows of one hash: their NIC, and until when the next packet belongs to the flowlet."""

    __slots__ = ("bytes", "last", "uplink")

    def __init__(self) -> None:
        self.uplink: Uplink | None = None
        self.last = 0.0
        self.bytes = 0  # since the last look


class Load:
    """What a NIC has sent lately, fading."""

    __slots__ = ("_seen", "_sent", "_when", "uplink")

    def __init__(self, uplink: Uplink) -> None:
        self.uplink = uplink
        self._sent, self._seen, self._when = 0.0, uplink.tx_bytes, 0.0

    def recent(self, now: float) -> float:
        """Bytes."""
        self._sent = self._sent * math.exp((self._when - now) / _MEMORY) + self.uplink.tx_bytes - self._seen
        self._seen, self._when = self.uplink.tx_bytes, now
        return self._sent


class Flowlets:
    """A worker's flows. ``gap``: seconds from which a flow may move; it follows the paths, or is fixed."""

    def __init__(self) -> None:
        self.gap = SHORTEST_GAP
        self.moved = 0  # flowlets that took another NIC than the one before
        self.rebalanced = 0  # flows that were moved without a gap
        self._buckets = [Bucket() for _ in range(BUCKETS)]
        self._loads: list[Load] = []
        self._look_at = 0.0

    def use(self, uplinks: Sequence[Uplink]) -> None:
        """These are the NICs that may be used from now on; what was on another one is placed anew."""
        known = {load.uplink: load for load in self._loads}
        self._loads = [known.get(uplink) or Load(uplink) for uplink in uplinks]
        for bucket in self._buckets:
            if bucket.uplink not in uplinks:
                bucket.uplink, bucket.last = None, 0.0

    def bucket(self, hashed: int) -> Bucket:
        """The bucket of a flow's hash."""
        return self._buckets[hashed % BUCKETS]

    def flows(self) -> dict[str, int]:
        """Buckets that have sent anything, by the name of their NIC."""
        found = {load.uplink.name: 0 for load in self._loads}
        for bucket in self._buckets:
            if bucket.uplink is not None:
                found[bucket.uplink.name] += 1
        return found

    def next_for(self, bucket: Bucket, now: float) -> Uplink:
        """The NIC for the next packet of a flow, which may begin a flowlet."""
        if bucket.uplink is not None and now - bucket.last <= self.gap:
            return bucket.uplink  # another flow of the bucket, or a look, has moved it
        return self.place(bucket, now)

    def place(self, bucket: Bucket, now: float) -> Uplink:
        """The NIC for a flow's next flowlet."""
        weights = [(load.recent(now), load.uplink.backlog(), load.uplink) for load in self._loads]
        best = min(weights, key=lambda weight: weight[0] + weight[1])
        if (current := bucket.uplink) is None:
            bucket.uplink = best[2]
            return best[2]
        own = next(weight for weight in weights if weight[2] is current)
        if own[0] + own[1] <= best[0] + best[1] + _WORTH_IT:
            return current
        drains = own[1] / own[0] * _MEMORY if own[1] > _WORTH_IT and own[0] else 0.0
        if now - bucket.last <= self.gap + drains:
            return current  # its last packets may still wait there
        bucket.uplink = best[2]
        self.moved += 1
        return best[2]

    def preview(self, bucket: Bucket) -> Uplink:
        """What :meth:`next_for` would say now, with nothing changed."""
        loads, moved = self._loads, self.moved
        self._loads = [copy.copy(load) for load in loads]
        try:
            return self.next_for(copy.copy(bucket), _monotonic())
        finally:
            self._loads, self.moved = loads, moved

    # ---- flows that don't move by themselves ------------------------------------------------

    def look(self, now: float) -> None:
        """Now and then: even the NICs' shares out."""
        if now < self._look_at or len(self._loads) < 2:
            return
        self._look_at = now + REBALANCE
        flows: dict[Uplink, list[Bucket]] = {load.uplink: [] for load in self._loads}
        busy = [bucket for bucket in self._buckets if bucket.bytes]
        for bucket in busy:
            if bucket.uplink is not None:
                flows[bucket.uplink].append(bucket)
        if sum(bucket.bytes for bucket in busy) > _IDLE:
            self._even_out(flows)
        for bucket in busy:
            bucket.bytes = 0

    def _even_out(self, flows: dict[Uplink, list[Bucket]]) -> None:
        sums = {uplink: sum(bucket.bytes for bucket in found) for uplink, found in flows.items()}
        most, least = max(sums, key=sums.__getitem__), min(sums, key=sums.__getitem__)
        surplus = sums[most] - sums[least]
        if surplus > _UNEVEN * sums[most]:
            fitting = [bucket for bucket in flows[most] if bucket.bytes <= 0.75 * surplus]
            if fitting:
                self._move(max(fitting, key=lambda bucket: bucket.bytes), least)
            return
        if all(uplink.backlog() > _QUEUED for uplink in flows):
            self._share_fairly(flows, sum(sums.values()))

    def _share_fairly(self, flows: dict[Uplink, list[Bucket]], total: int) -> None:
        """All NICs are full: as many flows on each, so that no flow gets much less than another."""
        large = {
            uplink: sorted((bucket for bucket in found if bucket.bytes > total / 200), key=lambda b: b.bytes)
            for uplink, found in flows.items()
        }
        most, least = max(large, key=lambda u: len(large[u])), min(large, key=lambda u: len(large[u]))
        for bucket in large[most][: (len(large[most]) - len(large[least])) // 2]:
            self._move(bucket, least)

    def _move(self, bucket: Bucket, uplink: Uplink) -> None:
        bucket.uplink = uplink
        self.rebalanced += 1


def balanced(flowlets: Flowlets, bucket: Bucket, make: Callable[[Uplink], Action]) -> Action:
    """The action of a flow: through the NIC of its bucket. ``make(uplink)``: the action through that one.

    A closure, for it runs for each packet, and its variables are quicker than an object's.
    """
    by_uplink: dict[Uplink, Action] = {}
    monotonic = _monotonic
    uplink: Uplink | None = None
    send: Action = _never

    def act(end: int) -> None:
        nonlocal uplink, send
        now = monotonic()
        if now - bucket.last > flowlets.gap or bucket.uplink is not uplink:
            uplink = flowlets.next_for(bucket, now)
            if uplink not in by_uplink:
                by_uplink[uplink] = make(uplink)
            send = by_uplink[uplink]
        bucket.last = now
        bucket.bytes += end
        send(end)

    return act


def _never(_: int) -> None:
    raise AssertionError("a flow without a NIC")
