"""A NIC takes the entry of its RSS table that comes after the one of the hash."""

from __future__ import annotations

from typing import Any

from testbed.plants import around

SUITE = "rss-vmq"


def plant() -> None:
    """Patch what a driver writes into the NIC's registers."""
    from testbed.nic.registers import Registers

    def change(before: Any, registers: Any, steering: Any, *more: Any) -> None:
        table = steering.table
        before(registers, steering._replace(table=table[1:] + table[:1]), *more)

    around(Registers, "write", change)
