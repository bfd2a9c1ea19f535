"""Faults of emulated NICs and of what the switch does in their place."""

from __future__ import annotations

from typing import Any

from planting import answering, around, plant


@plant(40)
def table_backwards() -> None:
    from testbed.nic.registers import Registers

    def write(before: Any, self: Any, steering: Any, offloads: Any, queues: int) -> None:
        before(self, steering._replace(table=steering.table[::-1]), offloads, queues)

    around(Registers, "write", write)


@plant(41)
def inner_macs_unseen() -> None:
    from testbed.nic.registers import Registers

    def write(before: Any, self: Any, steering: Any, offloads: Any, queues: int) -> None:
        before(self, steering._replace(nvgre_vmq=False), offloads, queues)

    around(Registers, "write", write)


@plant(42)
def identifications_stand_still() -> None:
    from testbed.switch import segmentation

    around(segmentation, "_numbered", lambda before, first, number: first)


@plant(43)
def checksums_unverified() -> None:
    from testbed.switch import datapath

    answering(datapath, "good", True)


@plant(44)
def active_at_once() -> None:
    from testbed.nic.offloads import TASKS, Offloads, Tasks

    Offloads.nvgre = property(lambda self: Tasks(*(f"nvgre-{task}" in self.enabled for task in TASKS[:6])))
