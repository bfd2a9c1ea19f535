"""What a DHCP client asks everybody stays on its own host."""

from __future__ import annotations

from typing import Any

from testbed.plants import around

SUITE = "dhcp"


def plant() -> None:
    """Patch replication, after the ports of this host have been found."""
    from testbed.wnv import exchanges
    from testbed.wnv.forwarding import Forwarding

    def change(before: Any, self: Any, packet: Any, destination: bytes) -> Any:
        verdict = before(self, packet, destination)
        if exchanges.find(packet.frame):
            packet.tunnels = packet.waiting = ()
        return verdict

    around(Forwarding, "flood", change)
