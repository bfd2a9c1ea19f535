"""A VM that has moved is looked for where it was before."""

from __future__ import annotations

from testbed.plants import keep_records

SUITE = "migration"


def plant() -> None:
    """Patch the records by which the switch forwards."""
    keep_records(
        lambda old, new: old.mac_address == new.mac_address and old.provider_address != new.provider_address
    )
