"""All flows of a team stay on one of its members."""

from __future__ import annotations

from typing import Any

from testbed.plants import around

SUITE = "teaming"


def plant() -> None:
    """Patch the choice of a flow's member under Dynamic."""
    from testbed.teaming.flowlets import Flowlets

    def place(_: Any, flowlets: Any, bucket: Any, __: float) -> Any:
        bucket.uplink = flowlets._loads[0].uplink  # noqa: SLF001 - a fault from inside
        return bucket.uplink

    around(Flowlets, "place", place)
