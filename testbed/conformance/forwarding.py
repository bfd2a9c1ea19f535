"""A forwarding extension that does what a packet's payload tells it to: for the statement about NVGRE."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from testbed.switch.extensions.api import Decision, Deny, Extension, Forward, Frame
from testbed.telemetry import EventLog

DROP = b"conformance-forwarding:drop;"
REDIRECT = b"conformance-forwarding:redirect;"
REASON = "as-told"


class ForwardingProbe(Extension):
    """Drops frames with DROP in them, sends frames with REDIRECT in them to one port. Counts marks."""

    kind = "forwarding"
    scope = "packet"

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        """redirect: the port to which frames are redirected."""

        redirect: str

    def __init__(self, name: str, settings: Settings, events: EventLog) -> None:
        super().__init__(name, settings, events)
        self._to = settings.redirect
        self._marked: dict[str, dict[str, int]] = {
            space: {"native": 0, "other": 0, "dropped": 0, "redirected": 0} for space in ("CA", "PA")
        }

    def ingress(self, frame: Frame) -> Decision:
        """By the payload."""
        counts = self._count(frame)
        if REDIRECT in bytes(frame.inner):
            counts["redirected"] += 1
            return Forward((self._to,))
        return self._drop(frame, counts) if frame.space == "PA" else None

    def egress(self, frame: Frame) -> Decision:
        """By the payload."""
        counts = self._count(frame)
        return self._drop(frame, counts) if frame.space == "PA" else None

    def query(self) -> dict[str, Any]:
        """By space: frames with and without the mark of native forwarding, dropped and redirected ones."""
        return {space: dict(counts) for space, counts in self._marked.items()}

    def _count(self, frame: Frame) -> dict[str, int]:
        counts = self._marked[frame.space]
        counts["native" if frame.native_forwarding else "other"] += 1
        return counts

    @staticmethod
    def _drop(frame: Frame, counts: dict[str, int]) -> Decision:
        if DROP not in bytes(frame.inner):
            return None
        counts["dropped"] += 1
        return Deny(REASON)
