"""What an extension is, sees and may decide. A user's own extension imports only this module.

An extension is a class found by the entry point group ``testbed.extensions``; a topology lists those
of a host, with their settings. At ingress the order is capture, filter, forwarding; at egress it is
the reverse (windows-driver-docs, packet-flow-through-the-extensible-switch-data-path).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal, TypeAlias

from msgspec import Struct

from testbed.packets.checksum import Buffer
from testbed.telemetry import EventLog

Kind = Literal["capture", "filter", "forwarding"]
Scope = Literal["flow", "packet"]
Space = Literal["CA", "PA"]


class Offload(Struct, frozen=True):
    """A packet's virtio_net_hdr. A super-packet has a segment_size (bytes of payload), others 0."""

    segment_size: int = 0
    checksum_open: bool = False  # the transport checksum is still to be completed


class SwitchPort(Struct, frozen=True):
    """A VM's port: "blue1:eth0", the MAC address of its VM (6 bytes), its VSID (0: not virtualised)."""

    name: str
    mac: bytes
    vsid: int


class Frame:
    """A packet as an extension sees it; nothing of it may be changed.

    space: "CA", or "PA" for NVGRE. outer: in PA space the outer header (Ethernet, IP, GRE), else b"".
    inner: the Ethernet frame of the CA space (what NVGRE carries, or the frame itself), read-only;
    like outer it is valid during the call alone, copy what is to be kept. vsid: 0 when the packet is
    not virtualised. source: the port or NIC it came from. destination: at egress the port or NIC it is
    to leave by, else "". native_forwarding: the switch itself decides where NVGRE goes; a forwarding
    extension may drop it, not redirect it.
    """

    __slots__ = ("destination", "inner", "native_forwarding", "offload", "outer", "source", "space", "vsid")

    def __init__(
        self,
        space: Space,
        outer: Buffer,
        inner: memoryview,
        vsid: int,
        source: str,
        destination: str = "",
        offload: Offload = Offload(),  # noqa: B008  (immutable)
    ) -> None:
        self.space: Space = space
        self.outer = outer
        self.inner = inner
        self.vsid = vsid
        self.source = source
        self.destination = destination
        self.offload = offload
        self.native_forwarding = space == "PA"

    def data(self) -> bytes:
        """The whole frame as it is in this space: a copy of up to 64 KB."""
        return bytes(self.outer) + bytes(self.inner)


class Deny(Struct, frozen=True):
    """Drop the packet, or at egress its copy for this destination. reason: lower-case-with-hyphens."""

    reason: str


class Forward(Struct, frozen=True):
    """Of a forwarding extension, at ingress: send the packet to these ports or NICs and nowhere else.

    Not for what HNV forwards: the packet goes its way and an ``extension-error`` event is noted.
    """

    destinations: tuple[str, ...]


Decision: TypeAlias = Deny | Forward | None


class Extension:
    """Base of all extensions. One instance per host's switch.

    kind: its place in the order; the verdict of a capture extension is not asked. scope: "flow" when
    the decision for one packet holds for all of its flow until policy, ports or neighbors change: it
    depends on nothing but MACs, addresses, protocol, TCP or UDP ports, VSID, source and destination.
    "packet" when the extension must see every packet (then none of its flows is cached).
    Settings: a frozen msgspec Struct that says which settings there are. ports: those of the VMs that
    are plugged in, by name.
    """

    kind: ClassVar[Kind] = "filter"
    scope: Scope = "packet"

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        """None."""

    def __init__(self, name: str, settings: Any, events: EventLog) -> None:
        """``settings``: an instance of the class's Settings."""
        self.name = name
        self.settings = settings
        self.events = events
        self.ports: dict[str, SwitchPort] = {}

    @classmethod
    def named_ports(cls, settings: Any) -> Iterable[tuple[tuple[str | int, ...], str]]:
        """Every port that the settings name, with its path in them; a topology without it is refused."""
        return ()

    def ingress(self, frame: Frame) -> Decision:
        """A packet has entered the switch. None lets it pass."""

    def egress(self, frame: Frame) -> Decision:
        """A packet is about to leave the switch by ``frame.destination``."""

    def scope_of(self, frame: Frame) -> Scope:
        """For how much the decision on this packet holds; asked before it. Default: ``scope``."""
        return self.scope

    def attach_port(self, port: SwitchPort) -> None:
        """A VM has been plugged in."""
        self.ports[port.name] = port

    def detach_port(self, name: str) -> None:
        """A VM has been unplugged."""
        self.ports.pop(name, None)

    def counters(self) -> dict[str, int]:
        """Numbers of its own, shown by ``testbed counters``."""
        return {}

    def query(self) -> Any:
        """What it has to show when it is asked: plain data (numbers, text, lists, mappings)."""
        return self.counters()
