"""Evidence, causes, and how they are weighed."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import TypeAlias

from msgspec import Struct


class Weight(IntEnum):
    """How much speaks for a cause. The heaviest is told, the first one of equals."""

    ROOT = 100  # it explains whatever else was found
    PROVEN = 90  # it is so, and with it nothing passes
    PROBED = 70  # what was sent ended there
    SUSPECT = 50  # it is so, and may be the reason
    SYMPTOM = 40  # nothing came, and nothing better is known
    DEGRADED = 30  # it is so, and something else stands in for it


CERTAIN = 80  # from here on nothing else has to be asked

# What a cause can be; docs/explain.md has them with their remedies.
KINDS = (
    "node-down",
    "wrong-vsid",
    "missing-record",
    "stale-record",
    "missing-route",
    "provider-address",
    "pa-route",
    "pa-unreachable",
    "fabric-mtu",
    "cable-down",
    "black-hole",
    "lossy-cable",
    "team",
    "acl",
    "port-security",
    "extension",
    "vmm-away",
    "guest-firewall",
    "guest-network",
    "duplicate-address",
    "no-such-address",
    "leak",
    "dropped",
    "lost",
    "not-found",
)


class Evidence(Struct, frozen=True):
    """A question that was asked, what was said to it, and whether that is as it should be."""

    asked: str
    said: str
    ok: bool


class Cause(Struct, frozen=True):
    """kind: one of :data:`KINDS`. sentence: what is wrong, without the full stop."""

    kind: str
    weight: int
    sentence: str


Found: TypeAlias = Evidence | Cause
Findings: TypeAlias = Iterator[Found]


class Report(Struct, frozen=True, rename={"source": "from"}):
    """What ``testbed explain`` says.

    source, to: ports; to "" where no VM has the address. works: whether the guests reach each other now, None
    where that was not tried. cause: a kind, "" if nothing is wrong. seconds: how long it took.
    """

    source: str
    to: str
    address: str
    cause: str
    sentence: str
    works: bool | None
    steps: list[Evidence]
    seconds: float
