"""A VM whose packet is too long is told the MTU of the PA network, without the bytes that NVGRE takes."""

from __future__ import annotations

from typing import Any

from testbed.plants import around

SUITE = "mtu"


def plant() -> None:
    """Patch what the switch answers a packet that it had to drop."""
    from testbed.packets import icmp_error, nvgre

    def change(before: Any, frame: Any, mtu: int, *more: Any) -> Any:
        return before(frame, mtu + nvgre.OVERHEAD_IPV4, *more)

    around(icmp_error, "too_big", change)
