"""When packets are lost at a rate worth telling: counters of drops in, the beginning and end of a loss out.

Pure: times are given, in seconds on one clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from testbed.switch.drops import Drop

BEGINS = 10.0  # packets a second of one stage, object, VSID and reason, from which their loss is told
ENDS = 2.0  # and below which it may be over
QUIET_LOOKS = 3  # looks in a row below that, until it is: what comes and goes is one loss
NORMAL = frozenset({Drop.NEIGHBOR_CONSUMED, Drop.OTHER_MEMBER, Drop.OWN_PACKET})  # nothing is lost by them

Key = tuple[str, str, int, str]  # stage, port or NIC, VSID, reason


@dataclass
class _Loss:
    """One that goes on. last: when a packet was lost; quiet: looks in a row at which it seemed over."""

    began: float
    last: float
    packets: int
    quiet: int = 0


class DropWatch:
    """``now``: when all counters were 0, or since when they are looked at."""

    def __init__(self, now: float) -> None:
        self._looked = now
        self._totals: dict[Key, int] = {}
        self._losses: dict[Key, _Loss] = {}

    def look(self, now: float, drops: Iterable[tuple[str, str, int, str, int]]) -> list[dict[str, Any]]:
        """What has begun and ended, from all counters: stage, object, VSID, reason, packets so far.

        Each is the fields of an event, with its "object". began: packets since the last look, and their
        rate (packets a second). ended: all packets of the loss, and its seconds.
        """
        seconds, before = max(now - self._looked, 1e-3), self._looked
        totals = {(stage, name, vsid, reason): packets for stage, name, vsid, reason, packets in drops}
        told = []
        for key in {**totals, **self._losses}:
            total = totals.get(key, 0)
            new = max(0, total - self._totals.get(key, 0))  # a removed NIC's counters begin anew
            if (loss := self._losses.get(key)) is not None:
                if self._goes_on(loss, new, new / seconds, now):
                    continue
                del self._losses[key]
                lasted = round(loss.last - loss.began, 3)
                told.append(_event(key, "ended", packets=loss.packets, seconds=lasted))
            elif new / seconds >= BEGINS and key[3] not in NORMAL:
                self._losses[key] = _Loss(before, now, new)
                told.append(_event(key, "began", packets=new, rate=round(new / seconds, 1)))
        self._looked, self._totals = now, totals
        return told

    @staticmethod
    def _goes_on(loss: _Loss, new: int, rate: float, now: float) -> bool:
        loss.packets += new
        if new:
            loss.last = now
        loss.quiet = 0 if rate >= ENDS else loss.quiet + 1
        return loss.quiet < QUIET_LOOKS


def _event(key: Key, state: str, **fields: Any) -> dict[str, Any]:
    stage, name, vsid, reason = key
    return {"object": name, "state": state, "stage": stage, "vsid": vsid, "reason": str(reason), **fields}
