"""An address that goes to a VM of another host stays where it was."""

from __future__ import annotations

from testbed.plants import keep_records

SUITE = "cluster-failover"


def plant() -> None:
    """Patch the records by which the switch forwards."""
    keep_records(
        lambda old, new: old.mac_address != new.mac_address and old.provider_address != new.provider_address
    )
