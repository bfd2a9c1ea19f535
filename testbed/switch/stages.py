"""The switch's own stages: its ports, and the two places for extensions (none ships yet)."""

from __future__ import annotations

from testbed.switch.drops import Drop
from testbed.switch.packet import Packet, Verdict
from testbed.switch.pipeline import PORT
from testbed.switch.port import Port


class PortStage:
    """First stage: a port with a VSID marks its packets with it (hnv statement 17)."""

    name = PORT

    def outbound(self, packet: Packet) -> Verdict:
        """Set the packet's VSID from its port."""
        if len(packet.frame) < 14:
            return Drop.MALFORMED
        assert isinstance(packet.source, Port)
        packet.vsid = packet.source.vsid
        packet.macs = bytes(packet.frame[:12])
        return None

    def inbound(self, packet: Packet) -> Verdict:
        """Last stage: somebody must have found a port by now."""
        return None if packet.ports else Drop.NO_PORT


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
