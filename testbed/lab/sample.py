"""What was read of a running lab at one time: plain data, see :mod:`testbed.lab.watch`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from testbed.lab.store import LabRecord
from testbed.telemetry import Counter
from testbed.topology.plan import Plan

State = Literal["running", "starting", "dead", "ended"]


class Reading(Struct, frozen=True):
    """What one host, or the fabric, had counted. time: of this machine's monotonic clock."""

    time: float
    counters: tuple[Counter, ...] = ()


class Member(Struct, frozen=True):
    """A NIC in its host's team. round_trip: seconds, None where none was measured."""

    host: str
    nic: str
    state: str
    fault: str
    flows: int
    round_trip: float | None


class Sample(Struct, frozen=True):
    """A lab at one time.

    readings: by host, and "fabric", whose counters are of the kinds "cable" (object: "host1:nic1") and
    "cable-fault" (fields: way, fault, packets). down: why a host, by its name, has no reading. vms: whether
    each runs. carriers: whether each cable has one. problem: why nothing could be read.
    """

    name: str
    time: float  # seconds since the epoch
    state: State
    record: LabRecord | None = None
    plan: Plan | None = None
    readings: dict[str, Reading] = {}
    down: dict[str, str] = {}
    members: tuple[Member, ...] = ()
    vms: dict[str, bool] = {}
    carriers: dict[str, bool] = {}
    problem: str = ""
