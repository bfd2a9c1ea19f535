"""What is decapsulated counts for the lowest VSID of its routing domain, not for its own."""

from __future__ import annotations

from typing import Any

from testbed.plants import around

SUITE = "connectivity"


def plant() -> None:
    """Patch decapsulation as the filter uses it."""
    from testbed.wnv import filter as wnv_filter

    def change(before: Any, state: Any, tables: Any, packet: Any) -> Any:
        verdict = before(state, tables, packet)
        domain = tables.rdid_of.get(packet.vsid)
        packet.vsid = min(
            (vsid for vsid, rdid in tables.rdid_of.items() if rdid == domain), default=packet.vsid
        )
        if packet.outer is not None:
            packet.outer = packet.outer._replace(vsid=packet.vsid)
        return verdict

    around(wnv_filter, "decapsulate", change)
