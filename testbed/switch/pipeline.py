"""The path of a packet, as data: what the switch runs is what this list says.

Outbound (from a VM) the stages run first to last, inbound (from the wire) last to first.
A packet that stays on the host ends at the stage that finds its port.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from testbed.switch.packet import Packet, Verdict

PORT = "port"
EXTENSIONS_CA = "extensions-ca"
WNV = "wnv"
EXTENSIONS_PA = "extensions-pa"
TEAM = "team"
NIC = "nic"

PIPELINE: tuple[tuple[str, str], ...] = (
    (PORT, "the VM's switch port: gives the packet its VSID, takes it to the VM"),
    (EXTENSIONS_CA, "switch extensions that see customer addresses"),
    (WNV, "network virtualization: ARP/ND, routing, encapsulation and decapsulation"),
    (EXTENSIONS_PA, "switch extensions that see NVGRE and provider addresses"),
    (TEAM, "chooses the NIC"),
    (NIC, "the emulated physical NIC: provider MACs, offloads, the cable"),
)


class Stage(Protocol):
    """One stage. Each direction is one function, in the order in which packets pass."""

    name: str

    def outbound(self, packet: Packet) -> Verdict:
        """From a VM towards the wire."""

    def inbound(self, packet: Packet) -> Verdict:
        """From the wire towards a VM."""


class Pipeline:
    """The stages of one switch, in the order of :data:`PIPELINE`."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        names = [name for name, _ in PIPELINE]
        self.stages = sorted(stages, key=lambda stage: names.index(stage.name))
        self._outbound = [stage.outbound for stage in self.stages]
        self._inbound = [stage.inbound for stage in reversed(self.stages)]

    def outbound(self, packet: Packet) -> Verdict:
        """Run a VM's packet through the stages until one gives a verdict or none is left to ask."""
        for stage in self._outbound:
            if (verdict := stage(packet)) is not None:
                return verdict
        return None

    def inbound(self, packet: Packet) -> Verdict:
        """Run a packet from the wire through the stages."""
        for stage in self._inbound:
            if (verdict := stage(packet)) is not None:
                return verdict
        return None
