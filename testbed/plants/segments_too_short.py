"""Segments that the switch cuts in place of the NIC have 200 bytes less than they may have."""

from __future__ import annotations

from typing import Any

from testbed.plants import around

SUITE = "offloads"


def plant() -> None:
    """Patch what the segments of a super-packet share."""
    from testbed.switch.segmentation import Segmenter

    def change(before: Any, *args: Any) -> Any:
        cut = before(*args)
        return cut._replace(mss=cut.mss - 200)

    around(Segmenter, "_cut", change)
