"""A packet on its way through the pipeline (the full path, taken by a flow's first packet)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from testbed.packets.checksum import Buffer
from testbed.packets.nvgre import Outer
from testbed.switch.buffer import Action
from testbed.switch.drops import Drop
from testbed.switch.port import Port
from testbed.switch.uplink import Uplink


class Reply:
    """A stage's verdict: answer the sender with ``frame`` and go no further."""

    __slots__ = ("frame",)

    def __init__(self, frame: bytes) -> None:
        self.frame = frame


class Hold:
    """A stage's verdict: keep the packet until the PA ``next_hop`` (4 or 16 bytes) is resolved."""

    __slots__ = ("next_hop",)

    def __init__(self, next_hop: bytes) -> None:
        self.next_hop = next_hop


class Denied:
    """A stage's verdict: an extension drops the packet. ``reason``: "NAME:REASON", as counters show it."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


# None lets the packet go on to the next stage.
Verdict: TypeAlias = Drop | Denied | Reply | Hold | None


class Tunnel:
    """One encapsulated copy to make: everything of the outer header but the MACs. PAs: 4 or 16 bytes."""

    __slots__ = ("destination_pa", "flow_id", "next_hop", "source_pa", "vsid")

    def __init__(
        self, source_pa: bytes, destination_pa: bytes, next_hop: bytes, vsid: int, flow_id: int
    ) -> None:
        self.source_pa = source_pa
        self.destination_pa = destination_pa
        self.next_hop = next_hop
        self.vsid = vsid
        self.flow_id = flow_id


class Translation:
    """A packet that is not encapsulated: its IP addresses are replaced (rule Nat) or stay (rule None).

    next_hop: the PA next hop of a packet to the wire, or None for one from it.
    """

    __slots__ = ("destination", "next_hop", "source")

    def __init__(self, source: bytes, destination: bytes, next_hop: bytes | None) -> None:
        self.source = source
        self.destination = destination
        self.next_hop = next_hop


class Egress(Protocol):
    """The team's way out for a packet: one NIC, or several in turns."""

    def through(self, make: Callable[[Uplink, bytes], Action]) -> Action:
        """What to do with each packet of the flow. ``make(uplink, mac)``: through one NIC, under that MAC.

        An empty MAC: frames keep their own.
        """

    def chosen(self) -> Egress:
        """What the flow's next packet would take, as an egress of its own; nothing is changed."""


class Packet:
    """What the stages read and decide. A stage reads ``frame`` and never writes into it.

    frame: the Ethernet frame as it entered the switch (from a VM: the CA frame; from a NIC: the
    whole outer frame). vnet: its virtio_net_hdr. ``macs`` are the 12 address bytes the CA frame
    leaves with. Destinations: ``ports``, and through the team's ``egress`` either ``tunnels``, one
    ``translation``, or (``to_wire``) the frame as it is. ``replies`` go back to the sender as well.

    Copies in ``waiting`` (a PA next hop for each) leave once that is resolved, and those in ``lost``
    (stage, reason) never. ``only``: the copies through other next hops have left
    before. ``cacheable``: the decision holds for all packets of the flow. ``stage``: where it is.
    ``injected``: a test has sent it in a VM's name.
    ``directed``: a forwarding extension has set ``ports`` and ``to_wire``; they stay as they are.
    ``gateway``: MAC and CA (of the packet's family) of the VM's default gateway, which tells the VM when
    a packet is too big; where the filter knows none, both are b"".
    """

    __slots__ = (
        "cacheable",
        "directed",
        "egress",
        "frame",
        "gateway",
        "injected",
        "lost",
        "macs",
        "only",
        "outer",
        "ports",
        "replies",
        "source",
        "stage",
        "to_wire",
        "translation",
        "tunnels",
        "vnet",
        "vsid",
        "waiting",
    )

    def __init__(self, frame: Buffer, source: Port | Uplink, vsid: int = 0, vnet: Buffer = b"") -> None:
        self.frame = frame
        self.source = source
        self.vsid = vsid
        self.vnet = vnet
        self.macs = b""
        self.outer: Outer | None = None
        self.ports: tuple[Port, ...] = ()
        self.tunnels: tuple[Tunnel, ...] = ()
        self.translation: Translation | None = None
        self.replies: tuple[bytes, ...] = ()
        self.waiting: tuple[bytes, ...] = ()
        self.lost: tuple[tuple[str, str], ...] = ()
        self.only: bytes | None = None
        self.to_wire = False
        self.directed = False
        self.injected = False
        self.cacheable = True
        self.gateway = (b"", b"")
        self.stage = ""
        self.egress: Egress | None = None

    @property
    def outward(self) -> Translation | None:
        """Its translation, if it leaves the host."""
        found = self.translation
        return found if found is not None and found.next_hop is not None else None

    def settle(self, verdict: Drop | Denied | Reply | Hold) -> None:
        """Carry out the verdict of the stage where the packet is: nothing goes on towards the wire.

        Copies for ports, and what was lost or answered before, are left alone.
        """
        self.tunnels, self.translation, self.to_wire = (), None, False
        if isinstance(verdict, Reply):
            self.replies += (verdict.frame,)
            self.cacheable = False
        elif isinstance(verdict, Hold):
            self.waiting += (verdict.next_hop,)
        else:
            reason = verdict.reason if isinstance(verdict, Denied) else verdict
            self.lost += ((self.stage, reason),)
