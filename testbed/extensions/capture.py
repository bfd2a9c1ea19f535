"""capture: keeps the latest frames of each direction, as the extensions see them."""

from __future__ import annotations

import time
from collections import deque
from typing import Annotated, Any

from msgspec import Meta, Struct

from testbed.switch.extensions.api import Extension, Frame
from testbed.telemetry import EventLog


class Capture(Extension):
    """Shows what passes the switch, ingress and egress, in both address spaces."""

    kind = "capture"
    scope = "packet"

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        """frames: kept of each direction. snaplen: bytes kept of each. vsids: no others; empty: all."""

        frames: Annotated[int, Meta(ge=1, le=65536)] = 256
        snaplen: Annotated[int, Meta(ge=14, le=65536)] = 256
        vsids: list[Annotated[int, Meta(ge=0, le=0xFFFFFF)]] = []

    def __init__(self, name: str, settings: Settings, events: EventLog) -> None:
        super().__init__(name, settings, events)
        self._vsids = frozenset(settings.vsids)
        self._snaplen = settings.snaplen
        self._seen = {"ingress": 0, "egress": 0}
        self._kept: dict[str, deque[dict[str, Any]]] = {
            direction: deque(maxlen=settings.frames) for direction in self._seen
        }

    def ingress(self, frame: Frame) -> None:
        """Keep it."""
        self._keep("ingress", frame)

    def egress(self, frame: Frame) -> None:
        """Keep it."""
        self._keep("egress", frame)

    def frames(self) -> list[dict[str, Any]]:
        """The kept frames, oldest first.

        Each has time (seconds since the epoch), direction, space, vsid, source, destination, length
        (bytes of the whole frame), segment_size (0 but for super-packets) and data (its start, in hex).
        """
        everything = [each for kept in self._kept.values() for each in kept]
        return [{**each, "data": each["data"].hex()} for each in sorted(everything, key=_when)]

    def counters(self) -> dict[str, int]:
        """Frames seen in each direction."""
        return dict(self._seen)

    def query(self) -> list[dict[str, Any]]:
        """The kept frames."""
        return self.frames()

    def _keep(self, direction: str, frame: Frame) -> None:
        if self._vsids and frame.vsid not in self._vsids:
            return
        self._seen[direction] += 1
        snaplen = self._snaplen
        self._kept[direction].append(
            {
                "time": time.time(),
                "direction": direction,
                "space": frame.space,
                "vsid": frame.vsid,
                "source": frame.source,
                "destination": frame.destination,
                "length": len(frame.outer) + len(frame.inner),
                "segment_size": frame.offload.segment_size,
                "data": (bytes(frame.outer[:snaplen]) + bytes(frame.inner[:snaplen]))[:snaplen],
            }
        )


def _when(kept: dict[str, Any]) -> float:
    when: float = kept["time"]
    return when
