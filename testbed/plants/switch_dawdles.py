"""A switch waits for 5 ms with each packet of more than 3,000 bytes that it sends to another host."""

from __future__ import annotations

from typing import Any

from testbed.plants import around

_LONG, _SECONDS = 3000, 0.005
SUITE = "throughput"


def plant() -> None:
    """Patch encapsulation."""
    import time

    from testbed.switch.actions import Encapsulate, EncapsulateIPv6

    def change(before: Any, action: Any, end: int) -> None:
        if end > _LONG:
            time.sleep(_SECONDS)
        before(action, end)

    for kind in (Encapsulate, EncapsulateIPv6):
        around(kind, "__call__", change)
