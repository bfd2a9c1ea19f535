"""The NIC stage: provider MAC addresses on the way out, address filter on the way in."""

from __future__ import annotations

from testbed.switch.drops import Drop
from testbed.switch.packet import Packet, Verdict
from testbed.switch.pipeline import NIC
from testbed.switch.state import SwitchState
from testbed.switch.uplink import Uplink


class NicStage:
    """The NIC accepts its own MAC, group addresses and the MACs of VSID-0 ports."""

    name = NIC

    def __init__(self, state: SwitchState) -> None:
        self._state = state

    def outbound(self, packet: Packet) -> Verdict:
        """Nothing to decide: offloads happen when the frame is sent."""
        return None

    def inbound(self, packet: Packet) -> Verdict:
        """Refuse what the fabric flooded for others."""
        if len(packet.frame) < 14:
            return Drop.MALFORMED
        destination = bytes(packet.frame[:6])
        assert isinstance(packet.source, Uplink)
        if destination[0] & 1 or destination == packet.source.mac:
            return None
        return None if self._state.port_with_mac(0, destination) else Drop.NOT_FOR_US
