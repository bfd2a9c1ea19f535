"""Broadcasts are copied to one host more than has VMs of the virtual subnet."""

from __future__ import annotations

from typing import Any

from testbed.plants import around

SUITE = "replication"


def plant() -> None:
    """Patch which PAs a virtual subnet's broadcasts go to."""
    from testbed.wnv.tables import Tables

    def change(before: Any, self: Any, vsid: int) -> Any:
        right = before(self, vsid)
        everybody = {pa for each in self._hosts for pa in before(self, each)}
        return (*right, *sorted(everybody.difference(right))[-1:])

    around(Tables, "remote_pas", change)
