"""The NIC stage: provider MAC addresses on the way out, address filter on the way in."""

from __future__ import annotations

from testbed.switch.drops import Drop
from testbed.switch.packet import Packet, Verdict
from testbed.switch.pipeline import NIC
from testbed.switch.state import SwitchState
from testbed.switch.uplink import Uplink


class NicStage:
    """Accepts the MACs for which the NIC speaks in the team, those of VSID-0 ports, and groups."""

    name = NIC

    def __init__(self, state: SwitchState) -> None:
        self._state = state

    def outbound(self, packet: Packet) -> Verdict:
        """Nothing to decide: offloads happen when the frame is sent."""
        return None

    def inbound(self, packet: Packet) -> Verdict:
        """Refuse what the fabric flooded for others, and what another member of the team takes."""
        if len(packet.frame) < 14:
            return Drop.MALFORMED
        destination, state = bytes(packet.frame[:6]), self._state
        assert isinstance(packet.source, Uplink)
        member, roles = packet.source.name, state.roles
        if destination[0] & 1:
            if not roles.hears_groups(member):
                return Drop.OTHER_MEMBER
            return Drop.OWN_PACKET if self._is_own(bytes(packet.frame[6:12])) else None
        if roles.takes(member, destination):
            return None
        if state.port_with_mac(0, destination):
            taken = roles.plan.has_partner or roles.speaker(destination) == member
            return None if taken else Drop.OTHER_MEMBER
        return Drop.OTHER_MEMBER if roles.is_own(destination) else Drop.NOT_FOR_US

    def _is_own(self, source: bytes) -> bool:
        """Whether a frame that came back around is this host's own."""
        return self._state.roles.is_own(source) or self._state.port_with_mac(0, source) is not None
