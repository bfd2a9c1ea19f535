"""An address that the sender's routing domain never had is looked for in all others."""

from __future__ import annotations

from typing import Any

from testbed.plants import around

SUITE = "isolation"


def plant() -> None:
    """Patch the look-up of the next hop, and have every sender accepted."""
    from testbed.switch.drops import Drop
    from testbed.wnv import forwarding
    from testbed.wnv.routes import Route
    from testbed.wnv.tables import Tables

    had: set[tuple[int, bytes]] = set()  # else an address that a VM gave up might lead to another tenant's VM

    def remember(before: Any, tables: Any, *args: Any) -> None:
        before(tables, *args)
        had.update(tables.records)

    def change(before: Any, tables: Any, vsid: int, destination: bytes) -> Any:
        found = before(tables, vsid, destination)
        if not isinstance(found, Drop) or (vsid, destination) in had:
            return found
        for (where, address), record in tables.records.items():
            if address == destination:
                return forwarding.NextHop(destination, record, Route(0, where, b""))
        return found

    around(Tables, "__init__", remember)
    around(Tables, "apply", remember)
    around(forwarding, "find_next_hop", change)
    around(Tables, "knows_sender", lambda *_: True)
