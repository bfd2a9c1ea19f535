"""payload-filter: drops packets whose payload holds a pattern of bytes, as a virus scanner would."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta, Struct

from testbed.extensions import headers as ip
from testbed.packets.ethernet import HEADER
from testbed.switch.extensions.api import Decision, Deny, Extension, Frame, Space
from testbed.telemetry import EventLog

Reason = Annotated[
    str,
    Meta(
        pattern=r"\A[a-z0-9]+(-[a-z0-9]+)*\Z",
        max_length=32,
        description="lower-case letters and digits with single hyphens between, at most 32 characters",
    ),
]


class Pattern(Struct, frozen=True, forbid_unknown_fields=True):
    """What to look for, either text (as UTF-8) or hex; ``reason`` is counted with the drop."""

    reason: Reason
    text: str = ""
    hex: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if bool(self.text) == bool(self.hex):
            raise ValueError("a pattern needs bytes to look for; give it either text or hex")
        try:
            bytes.fromhex(self.hex)
        except ValueError:
            raise ValueError(
                f'"{self.hex[:40]}" is not hex; write pairs of digits such as "4d5a90"'
            ) from None

    def data(self) -> bytes:
        """The bytes."""
        return self.text.encode() or bytes.fromhex(self.hex)


class PayloadFilter(Extension):
    """Searches the transport payload of every packet, a super-packet's as one piece.

    In PA space it is the payload of the packet that NVGRE carries. What has no transport header that
    can be read is searched behind its IP or Ethernet header.
    """

    kind = "filter"
    scope = "packet"

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        """By default each packet is searched once: where it comes in, in whichever space that is."""

        patterns: Annotated[list[Pattern], Meta(min_length=1, max_length=64)]
        spaces: Annotated[tuple[Space, ...], Meta(min_length=1)] = ("CA", "PA")
        directions: Annotated[tuple[Literal["ingress", "egress"], ...], Meta(min_length=1)] = ("ingress",)

    def __init__(self, name: str, settings: Settings, events: EventLog) -> None:
        super().__init__(name, settings, events)
        # compiled, as these search a memoryview without copying it
        self._patterns = [(re.compile(re.escape(each.data())), each.reason) for each in settings.patterns]
        self._spaces = frozenset(settings.spaces)
        self._directions = frozenset(settings.directions)
        self._found = {each.reason: 0 for each in settings.patterns}

    def ingress(self, frame: Frame) -> Decision:
        """Search it."""
        return self._search(frame) if "ingress" in self._directions else None

    def egress(self, frame: Frame) -> Decision:
        """Search it."""
        return self._search(frame) if "egress" in self._directions else None

    def counters(self) -> dict[str, int]:
        """Packets in which a pattern was found, by its reason."""
        return dict(self._found)

    def _search(self, frame: Frame) -> Decision:
        if frame.space not in self._spaces:
            return None
        inner = frame.inner
        found = ip.parse(inner)
        start, end = ip.payload(inner, found) if found else (HEADER, len(inner))
        for pattern, reason in self._patterns:
            if pattern.search(inner, start, end):
                self._found[reason] += 1
                return Deny(reason)
        return None
