"""The team stage: one member is active and carries everything."""

from __future__ import annotations

from testbed.switch.packet import Packet, Verdict
from testbed.switch.pipeline import TEAM, leaves
from testbed.switch.state import SwitchState


class TeamStage:
    """Chooses the active NIC."""

    name = TEAM

    def __init__(self, state: SwitchState) -> None:
        self._state = state

    def outbound(self, packet: Packet) -> Verdict:
        """Give the packet its uplink, if it leaves the host at all; without one, copies are ``no-uplink``."""
        if leaves(packet):
            packet.uplink = self._state.uplinks.get(self._state.active_nic)
        return None

    def inbound(self, packet: Packet) -> Verdict:
        """Frames of every member are taken."""
        return None
