"""Extensions as stages. None ships yet: the two places in the path are kept for them."""

from __future__ import annotations

from testbed.switch.packet import Packet, Verdict


class ExtensionsStage:
    """Runs the extensions of one side of the WNV filter; with none, packets pass."""

    def __init__(self, name: str) -> None:
        self.name = name

    def outbound(self, packet: Packet) -> Verdict:
        """Pass."""
        return None

    def inbound(self, packet: Packet) -> Verdict:
        """Pass."""
        return None
