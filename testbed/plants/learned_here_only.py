"""An address that a VM is the first to announce is learned on its own host, and nobody else is told."""

from __future__ import annotations

from typing import Any

from testbed.plants import around

SUITE = "ip-learning"


def plant() -> None:
    """Patch the host's reports to the VMM. What DHCP gives is told, and what another VM has had before."""
    from testbed.host.pursuit import Pursuit
    from testbed.host.reporter import Outcome

    async def change(before: Any, pursuit: Any, *args: Any) -> Any:
        if pursuit._assumed and pursuit.claim.how != "dhcp":  # noqa: SLF001 - a fault from inside
            return Outcome("added")
        return await before(pursuit, *args)

    around(Pursuit, "_report", change)
