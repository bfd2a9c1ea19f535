"""The path of a packet, as data: what the switch runs is what this list says.

Outbound (from a VM) the stages run first to last, inbound (from the wire) last to first. Copies for
ports of this host turn around at the stage that found the port (the WNV filter, or the switching
stage below which the filter lies) and take the inbound way from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from testbed.packets.malformed import MalformedFrame
from testbed.switch.drops import Drop
from testbed.switch.packet import Packet, Verdict
from testbed.topology.schema import WnvMode

PORT = "port"
PORT_EXTENSIONS = "port-extensions"
SWITCHING = "switching"
WNV = "wnv"
UPLINK_EXTENSIONS = "uplink-extensions"
TEAM = "team"
NIC = "nic"

STAGES: dict[str, str] = {
    PORT: "the VM's switch port: gives the packet its VSID, takes it to the VM",
    PORT_EXTENSIONS: "switch extensions on the ports' side",
    SWITCHING: "by MAC address, inside a virtual subnet (2012 only)",
    WNV: "network virtualization: ARP/ND, routing, encapsulation and decapsulation",
    UPLINK_EXTENSIONS: "switch extensions on the uplink's side",
    TEAM: "chooses the NIC",
    NIC: "the emulated physical NIC: provider MACs, offloads, the cable",
}

# 2012 R2: the filter is inside the switch, extensions see both address spaces.
# 2012: it is on the NIC, below the switch, and extensions see customer addresses only.
PIPELINES: dict[WnvMode, tuple[str, ...]] = {
    "in-switch": (PORT, PORT_EXTENSIONS, WNV, UPLINK_EXTENSIONS, TEAM, NIC),
    "below-switch": (PORT, PORT_EXTENSIONS, SWITCHING, UPLINK_EXTENSIONS, WNV, TEAM, NIC),
}
TURNS: dict[WnvMode, str] = {"in-switch": WNV, "below-switch": SWITCHING}

Step = tuple[str, Callable[[Packet], Verdict]]


class Stage(Protocol):
    """One stage. Each direction is one function, in the order in which packets pass."""

    name: str

    def outbound(self, packet: Packet) -> Verdict:
        """From a VM towards the wire."""

    def inbound(self, packet: Packet) -> Verdict:
        """From the wire, or from another VM of this host, towards a VM."""


class Path(Protocol):
    """What a packet is run through, both ways."""

    def outbound(self, packet: Packet) -> None:
        """From a VM."""

    def inbound(self, packet: Packet) -> None:
        """From the wire."""


class Pipeline:
    """The stages of one switch, in the order of :data:`PIPELINES`."""

    def __init__(self, stages: Sequence[Stage], mode: WnvMode = "in-switch") -> None:
        """Raises KeyError when a stage of the mode is missing; stages of other modes are left out."""
        by_name = {stage.name: stage for stage in stages}
        order = [by_name[name] for name in PIPELINES[mode]]
        turn = PIPELINES[mode].index(TURNS[mode])
        self.stages = order
        self.mode = mode
        self._turning: list[Step] = [(stage.name, stage.outbound) for stage in order[: turn + 1]]
        self._leaving: list[Step] = [(stage.name, stage.outbound) for stage in order[turn + 1 :]]
        self._returning: list[Step] = [(stage.name, stage.inbound) for stage in reversed(order[:turn])]
        self._inbound: list[Step] = [(stage.name, stage.inbound) for stage in reversed(order)]

    def outbound(self, packet: Packet) -> None:
        """Run a VM's packet through the stages; what becomes of each copy is in the packet afterwards.

        A verdict is about what is still on its way: before the turn that is the whole packet, behind it
        the copies towards the wire. Copies for ports have been decided by then, as is who answers.
        """
        if not _run(self._turning, packet):
            packet.ports = ()
            return
        if packet.ports:
            _run(self._returning, packet)
        if not leaves(packet):
            return
        turned = packet.ports
        _run(self._leaving, packet)
        if packet.ports != turned:  # the filter below the switch has found a port of this host
            _run(self._returning, packet)

    def inbound(self, packet: Packet) -> None:
        """Run a packet from the wire through the stages."""
        if not _run(self._inbound, packet):
            packet.ports = ()


def leaves(packet: Packet) -> bool:
    """Whether a copy of the packet goes on towards the wire."""
    return bool(packet.tunnels or packet.to_wire or packet.translation)


def _run(steps: Sequence[Step], packet: Packet) -> bool:
    """Whether all stages let the packet go on; the verdict of one that does not is carried out."""
    for name, step in steps:
        packet.stage = name
        try:
            verdict = step(packet)
        except MalformedFrame:
            verdict = Drop.MALFORMED
        if verdict is not None:
            packet.settle(verdict)
            return False
    return True
