"""Segments that the switch cuts have 200 bytes less than they may have."""

from __future__ import annotations

from typing import Any

from testbed.plants import around

SUITE = "offloads"


def plant() -> None:
    """Patch what the segments of a super-packet share."""
    from testbed.switch import segmentation

    def change(before: Any, *args: Any) -> Any:
        cut = before(*args)
        return cut._replace(mss=cut.mss - 200)

    around(segmentation, "cut_of", change)
