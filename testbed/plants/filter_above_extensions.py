"""Extensions of 2012 R2 are shown no NVGRE, as if the WNV filter were below the switch."""

from __future__ import annotations

from typing import Any

from testbed.plants import around

SUITE = "extensions"


def plant() -> None:
    """Patch the order of the pipeline's uplink side."""
    from testbed.switch.extensions.stage import UplinkExtensions

    def change(before: Any, self: Any, stack: Any, state: Any, *_: Any) -> None:
        before(self, stack, state, "below-switch")

    around(UplinkExtensions, "__init__", change)
