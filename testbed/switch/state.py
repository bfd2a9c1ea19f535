"""What the stages of one worker share: its ports, NICs and PA neighbors.

A worker is one thread of one process; nothing here is locked. Control changes it between
two packets, and then every cached action is forgotten.
"""

from __future__ import annotations

from testbed.switch.port import Port
from testbed.switch.roles import Roles
from testbed.switch.uplink import Uplink
from testbed.telemetry import EventLog
from testbed.topology.plan import TeamPlan


class SwitchState:
    """Ports, uplinks and their roles in the team. neighbors: PA next hop -> MAC, as far as resolved."""

    def __init__(self) -> None:
        self.neighbors: dict[bytes, bytes] = {}
        self.ports: dict[str, Port] = {}
        self.uplinks: dict[str, Uplink] = {}
        self.roles = Roles(TeamPlan(""), {}, ())
        self.events = EventLog()
        self._by_mac: dict[tuple[int, bytes], Port] = {}
        self._by_vsid: dict[int, tuple[Port, ...]] = {}

    def add_port(self, port: Port) -> None:
        """Add a port; one of the same name is replaced and closed."""
        self.remove_port(port.name)
        self.ports[port.name] = port
        self._index()

    def remove_port(self, name: str) -> None:
        """Remove and close a port; an unknown name is no error."""
        if port := self.ports.pop(name, None):
            port.close()
            self._index()

    def set_vsid(self, port: Port, vsid: int) -> None:
        """Move a port into another virtual subnet."""
        port.vsid = vsid
        self._index()

    def port_with_mac(self, vsid: int, mac: bytes) -> Port | None:
        """The port of a virtual subnet that has this MAC."""
        return self._by_mac.get((vsid, mac))

    def neighbor(self, next_hop: bytes) -> bytes | None:
        """MAC of a PA next hop, if it is resolved; a multicast group's follows from its address."""
        if len(next_hop) == 4 and next_hop[0] >> 4 == 14:  # RFC 1112 section 6.4
            return b"\x01\0\x5e" + bytes((next_hop[1] & 0x7F, *next_hop[2:]))
        if len(next_hop) == 16 and next_hop[0] == 0xFF:  # RFC 2464 section 7
            return b"\x33\x33" + next_hop[12:]
        return self.neighbors.get(next_hop)

    def speaker(self, address: bytes) -> Uplink | None:
        """The NIC that speaks now for a PA or for the MAC of a VM of VSID 0."""
        return self.uplinks.get(self.roles.speaker(address) or "")

    def ports_of(self, vsid: int) -> tuple[Port, ...]:
        """All ports of a virtual subnet."""
        return self._by_vsid.get(vsid, ())

    def forget_flows(self) -> None:
        """Drop every cached action: a policy, port or neighbor has changed."""
        for port in self.ports.values():
            port.flows.clear()
        for uplink in self.uplinks.values():
            uplink.flows.clear()

    def _index(self) -> None:
        self._by_mac = {(port.vsid, port.mac): port for port in self.ports.values()}
        by_vsid: dict[int, list[Port]] = {}
        for port in self.ports.values():
            by_vsid.setdefault(port.vsid, []).append(port)
        self._by_vsid = {vsid: tuple(ports) for vsid, ports in by_vsid.items()}
