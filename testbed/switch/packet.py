"""A packet on its way through the pipeline (the full path, taken by a flow's first packet)."""

from __future__ import annotations

from testbed.packets.checksum import Buffer
from testbed.packets.nvgre import Outer
from testbed.switch.drops import Drop
from testbed.switch.port import Port
from testbed.switch.uplink import Uplink


class Reply:
    """A stage's verdict: answer the sender with ``frame`` and go no further."""

    __slots__ = ("frame",)

    def __init__(self, frame: bytes) -> None:
        self.frame = frame


class Hold:
    """A stage's verdict: keep the packet until the PA ``next_hop`` (4 bytes) is resolved."""

    __slots__ = ("next_hop",)

    def __init__(self, next_hop: bytes) -> None:
        self.next_hop = next_hop


# None lets the packet go on to the next stage.
Verdict = Drop | Reply | Hold | None


class Tunnel:
    """One encapsulated copy to make: everything of the outer header but the MACs."""

    __slots__ = ("destination_pa", "flow_id", "next_hop", "source_pa", "vsid")

    def __init__(
        self, source_pa: bytes, destination_pa: bytes, next_hop: bytes, vsid: int, flow_id: int
    ) -> None:
        self.source_pa = source_pa
        self.destination_pa = destination_pa
        self.next_hop = next_hop
        self.vsid = vsid
        self.flow_id = flow_id


class Packet:
    """What the stages read and decide. A stage reads ``frame`` and never writes into it.

    frame: the Ethernet frame as it entered the switch (from a VM: the CA frame; from a NIC: the
    whole outer frame). ``macs`` are the 12 address bytes the CA frame leaves with. Destinations:
    ``ports``, and through the team's ``uplink`` either ``tunnels`` or, for VSID 0, the frame as it is.

    Of a packet with several copies, those in ``waiting`` (PA next hops) leave once these are resolved,
    and those in ``lost`` never. ``only``: the copies through other next hops have left before.
    """

    __slots__ = (
        "frame",
        "lost",
        "macs",
        "only",
        "outer",
        "ports",
        "source",
        "to_wire",
        "tunnels",
        "uplink",
        "vsid",
        "waiting",
    )

    def __init__(self, frame: Buffer, source: Port | Uplink, vsid: int = 0) -> None:
        self.frame = frame
        self.source = source
        self.vsid = vsid
        self.macs = b""
        self.outer: Outer | None = None
        self.ports: tuple[Port, ...] = ()
        self.tunnels: tuple[Tunnel, ...] = ()
        self.waiting: tuple[bytes, ...] = ()
        self.lost: tuple[Drop, ...] = ()
        self.only: bytes | None = None
        self.to_wire = False
        self.uplink: Uplink | None = None
