"""An address that a VM announces is learned on its own host, and nobody else is told."""

from __future__ import annotations

from typing import Any

from testbed.plants import around

SUITE = "ip-learning"


def plant() -> None:
    """Patch the host's reports to the VMM. What DHCP gives is told."""
    from testbed.host.reporter import Outcome
    from testbed.host.vmm.reporter import VmmReporter

    async def change(before: Any, self: Any, report: dict[str, Any]) -> Any:
        return await before(self, report) if report["how"] == "dhcp" else Outcome("added")

    around(VmmReporter, "learned", change)
