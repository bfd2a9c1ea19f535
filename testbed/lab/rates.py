"""Rates between two readings of counters. Pure: no clock, no lab.

A counter that went down was begun anew (its host was restarted, its port was plugged again), so that all it
shows has come since. An object that was not there before began at zero, if its host was there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from testbed.lab.sample import Reading
from testbed.telemetry import Counter

Key: TypeAlias = "tuple[str, str, str, tuple[Any, ...]]"

# Fields that tell which of an object's counters this is, by kind.
PARTS: Mapping[str, tuple[str, ...]] = {"drop": ("stage", "vsid", "reason"), "cable-fault": ("way", "fault")}
# Fields that are no counters.
STATES: Mapping[str, tuple[str, ...]] = {"port": ("vsid",)}
UNKNOWN = ("extension",)  # kinds whose fields may be anything
_FLOWS = "flows_"  # of a team: flows of a member now; but flows_rebalanced counts
_COUNTS = ("flows_rebalanced",)


class Rate(Struct, frozen=True):
    """An object's counters per second; empty where nothing was read before. parts: see :data:`PARTS`.

    totals: the counters themselves.
    """

    host: str
    kind: str
    object: str
    parts: dict[str, Any]
    per_second: dict[str, float]
    totals: dict[str, float]


def counted(counter: Counter) -> dict[str, float]:
    """The fields that only grow."""
    if counter.kind in UNKNOWN:
        return {}
    no = {*PARTS.get(counter.kind, ()), *STATES.get(counter.kind, ())}
    return {
        name: value
        for name, value in counter.fields.items()
        if name not in no and not is_gauge(counter.kind, name) and isinstance(value, int | float)
    }


def is_gauge(kind: str, field: str) -> bool:
    """Whether a number goes up and down."""
    return kind == "team" and field.startswith(_FLOWS) and field not in _COUNTS


def between(before: Mapping[str, Reading], now: Mapping[str, Reading]) -> list[Rate]:
    """Of every object that is there now; readings by where they come from (a host, the fabric)."""
    return [rate for name, reading in now.items() for rate in _of_one(before.get(name), reading)]


def _of_one(before: Reading | None, now: Reading) -> Iterable[Rate]:
    seconds = now.time - before.time if before else 0.0
    known = {_key(each): counted(each) for each in before.counters} if before else {}
    if _restarted(known, now):
        known = {}
    for each in now.counters:
        base = known.get(_key(each), {})
        fields = counted(each)
        if any(value < base.get(name, 0) for name, value in fields.items()):
            base = {}
        rates = {name: (value - base.get(name, 0)) / seconds for name, value in fields.items() if seconds > 0}
        yield Rate(each.host, each.kind, each.object, _parts(each), rates, fields)


def _restarted(known: Mapping[Key, Mapping[str, float]], now: Reading) -> bool:
    """Whether it is another process that counts: its time on the processor began anew."""
    return any(
        each.fields["cpu_seconds"] < known.get(_key(each), {}).get("cpu_seconds", 0.0)
        for each in now.counters
        if each.kind == "worker"
    )


def _parts(counter: Counter) -> dict[str, Any]:
    return {name: counter.fields[name] for name in PARTS.get(counter.kind, ())}


def _key(counter: Counter) -> Key:
    return counter.host, counter.kind, counter.object, tuple(_parts(counter).values())
