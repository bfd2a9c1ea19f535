"""What a NIC can offload, and what of it is in use: two things, as in NDIS.

A task (``lso``, ``tx-checksum``, ``rx-checksum``, ``rsc``, ``rss``, ``vmq``) is about plain packets; with
``nvgre-`` in front it is about NVGRE packets, whose inner headers then count. ``nvgre`` is the switch of the
NVGRE Encapsulated Task Offload: without it no ``nvgre-`` task does anything (NDIS: a NIC may have it
enabled, but it is not active before OID_TCP_OFFLOAD_PARAMETERS sets EncapsulatedPacketTaskOffload on for
the type GRE_MAC). An ``nvgre-`` task is in use when it, its plain task and ``nvgre`` are enabled.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple, TypeAlias, cast, get_args

from msgspec import Struct

from testbed.errors import BadInput

Task: TypeAlias = Literal[
    "lso",
    "tx-checksum",
    "rx-checksum",
    "rsc",
    "rss",
    "vmq",
    "nvgre",
    "nvgre-lso",
    "nvgre-tx-checksum",
    "nvgre-rx-checksum",
    "nvgre-rsc",
    "nvgre-rss",
    "nvgre-vmq",
]
Switches: TypeAlias = Mapping[str, bool] | Mapping[Task, bool]
TASKS: tuple[Task, ...] = get_args(Task)
ENCAPSULATION: Task = "nvgre"


class Tasks(NamedTuple):
    """The tasks in use for one kind of packet."""

    lso: bool
    tx_checksum: bool
    rx_checksum: bool
    rsc: bool
    rss: bool
    vmq: bool


class Offloads(Struct, frozen=True):
    """A NIC's tasks by name, in the order of TASKS. Everything enabled is supported."""

    supported: tuple[Task, ...] = TASKS
    enabled: tuple[Task, ...] = tuple(task for task in TASKS if not task.endswith("rss"))

    @property
    def plain(self) -> Tasks:
        """What is in use for packets that are not encapsulated."""
        return Tasks(*(task in self.enabled for task in TASKS[:6]))

    @property
    def nvgre(self) -> Tasks:
        """What is in use for NVGRE packets."""
        on = ENCAPSULATION in self.enabled
        return Tasks(*(on and {task, f"nvgre-{task}"} <= {*self.enabled} for task in TASKS[:6]))

    def changed(self, wanted: Switches) -> Offloads:
        """With some tasks switched. Raises BadInput: unknown, not supported, both RSS and VMQ."""
        for task, on in wanted.items():
            if task not in TASKS:
                raise BadInput(f"unknown offload {task!r}: one of {', '.join(TASKS)}")
            if on and task not in self.supported:
                remedy = f"take another profile, or say `supports: {{{task}: on}}`"
                raise BadInput(f"the NIC does not support {task}: {remedy}")
        switches = cast("Mapping[str, bool]", wanted)
        enabled = [task for task in TASKS if switches.get(task, task in self.enabled)]
        if fault := exclusive(enabled):
            raise BadInput(fault)
        return Offloads(self.supported, tuple(enabled))


def exclusive(enabled: Collection[str]) -> str:
    """What is wrong with a set of enabled tasks, or "": RSS and VMQ use the same queues of a NIC."""
    if "rss" in enabled and "vmq" in enabled:
        return "rss and vmq can't both be on: they share the NIC's queues; switch one of them off"
    return ""


def made_of(
    supported: Collection[Task], enabled: Collection[Task], supports: Switches
) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
    """A profile's tasks, supported and enabled, with single capabilities added or taken away.

    What is added is enabled too, but rss where vmq is.
    """
    switches = cast("Mapping[str, bool]", supports)
    can = {task for task in TASKS if switches.get(task, task in supported)}
    added = {task for task in can if task not in supported}
    on = (({*enabled} | added) & can) - ({"rss"} if "rss" in added and "vmq" in enabled else set())
    return tuple(task for task in TASKS if task in can), tuple(task for task in TASKS if task in on)
