"""The switch's own first stage: its ports."""

from __future__ import annotations

from collections.abc import Callable

from testbed.switch.drops import Drop
from testbed.switch.packet import Packet, Verdict
from testbed.switch.pipeline import PORT, leaves
from testbed.switch.port import Port


class PortStage:
    """First stage: a port with a VSID marks its packets with it (hnv statement 17).

    ``delivered`` is called with each packet that reaches its ports by the full path.
    """

    name = PORT

    def __init__(self, delivered: Callable[[Packet], None] = lambda _: None) -> None:
        self._delivered = delivered

    def outbound(self, packet: Packet) -> Verdict:
        """Set the packet's VSID from its port."""
        if len(packet.frame) < 14:
            return Drop.MALFORMED
        assert isinstance(packet.source, Port)
        packet.vsid = packet.source.vsid
        packet.macs = bytes(packet.frame[:12])
        return None

    def inbound(self, packet: Packet) -> Verdict:
        """Last stage: some copy has a port by now, leaves the host, or is counted as lost."""
        if packet.ports:
            self._delivered(packet)
        if packet.ports or packet.waiting or packet.lost or packet.replies or leaves(packet):
            return None
        return Drop.NO_PORT
