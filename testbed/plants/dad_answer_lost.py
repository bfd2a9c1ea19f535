"""Who asks whether an address is free, by duplicate detection or an ARP probe, is never answered."""

from __future__ import annotations

from typing import Any

from testbed.plants import around

SUITE = "dad-nud"


def plant() -> None:
    """Patch what the filter answers from its records."""
    from testbed.packets import ndp
    from testbed.switch.drops import Drop
    from testbed.wnv import neighbors

    def lost(before: Any, message: Any, *more: Any) -> Any:
        probes = message.is_dad if isinstance(message, ndp.Neighbor) else not any(message.sender_ip)
        return Drop.NEIGHBOR_CONSUMED if probes else before(message, *more)

    around(neighbors, "answer_arp", lost)
    around(neighbors, "answer_nd", lost)
