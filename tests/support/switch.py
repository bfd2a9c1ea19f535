"""A switch in memory, and a small network of three hosts for it.

Ports and NIC are socket pairs that keep packet boundaries, where a lab has TAP queues and packet
sockets. The network: VM network blue with the subnets 5001 and 5002, and red with 6001, whose VMs
have the same customer addresses as blue's.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from support.frames import ip, mac
from testbed.host.pipeline import FILTERS, build_pipeline
from testbed.nic.offloads import Offloads
from testbed.switch.datapath import Datapath
from testbed.switch.drops import Drop
from testbed.switch.extensions.api import Extension
from testbed.switch.extensions.stack import Stack
from testbed.switch.port import Port
from testbed.switch.roles import Roles
from testbed.switch.state import SwitchState
from testbed.switch.uplink import Queue, Uplink
from testbed.teaming.flowlets import Flowlets
from testbed.topology.plan import NOWHERE, CustomerRoute, HostPolicy, LookupRecord, ProviderAddress, TeamPlan
from testbed.topology.schema import WnvMode
from testbed.wnv.filter import WnvFilter
from testbed.wnv.learning import Claim, Learning
from testbed.wnv.tables import Tables

BLUE, RED = "{11111111-1111-1111-1111-111111111111}", "{22222222-2222-2222-2222-222222222222}"
PLAIN = bytes(10)  # a vnet header without offload

# name -> (host, VSID, last byte of its addresses)
VMS = {
    "blue1": (1, 5001, 5),
    "blue2": (2, 5001, 6),
    "blue3": (3, 5001, 7),
    "blue4": (1, 5001, 8),
    "web1": (1, 5002, 5),
    "web2": (2, 5002, 6),
    "red1": (1, 6001, 5),
    "red2": (2, 6001, 6),
}
_PREFIX = {5001: ("10.0.0", "fd00"), 5002: ("10.0.1", "fd00:0:0:1"), 6001: ("10.0.0", "fd00")}


def mac_of(name: str) -> bytes:
    """A VM's MAC."""
    return mac(f"00:15:5d:00:00:{[*VMS].index(name):02x}")


def v4(name: str) -> str:
    """A VM's IPv4 CA."""
    _, vsid, last = VMS[name]
    return f"{_PREFIX[vsid][0]}.{last}"


def v6(name: str) -> str:
    """A VM's IPv6 CA."""
    _, vsid, last = VMS[name]
    return f"{_PREFIX[vsid][1]}::{last}"


def pa(host: int, vsid: int, version: int = 4) -> str:
    """A host's PA for a virtual subnet."""
    number = {5001: 1, 5002: 2, 6001: 3}[vsid]
    return f"192.168.{number}.{host}" if version == 4 else f"2001:db8::{number}:{host}"


def gateway_mac(vsid: int) -> bytes:
    """The default gateway's MAC in a virtual subnet."""
    return mac("00:15:5d:ff:00:00")[:4] + vsid.to_bytes(2, "big")


def nic_mac(host: int) -> bytes:
    """A host's NIC."""
    return mac(f"02:00:00:00:00:{host:02x}")


def records(version: int = 4) -> list[LookupRecord]:
    """Records of all VMs and gateways, with PAs of one family."""
    found = [
        LookupRecord(address, vsid, mac_of(name).hex(":"), pa(where, vsid, version), name)
        for name, (where, vsid, _) in VMS.items()
        for address in (v4(name), v6(name))
    ]
    return found + [
        LookupRecord(address, vsid, gateway_mac(vsid).hex(":"), NOWHERE[version])
        for vsid, prefixes in _PREFIX.items()
        for address in (f"{prefixes[0]}.1", f"{prefixes[1]}::1")
    ]


def routes() -> list[CustomerRoute]:
    """On-link routes of all subnets."""
    return [
        CustomerRoute(RED if vsid == 6001 else BLUE, vsid, prefix, hop)
        for vsid, prefixes in _PREFIX.items()
        for prefix, hop in ((f"{prefixes[0]}.0/24", "0.0.0.0"), (f"{prefixes[1]}::/64", "::"))
    ]


def policy(host: int = 1, version: int = 4, **changes: Any) -> HostPolicy:
    """Host ``host``'s policy over a PA network of one family; ``changes`` replace fields of it."""
    length = {4: 16, 6: 64}[version]
    addresses = tuple(ProviderAddress(pa(host, vsid, version), length, vsid) for vsid in _PREFIX)
    fields: dict[str, Any] = {
        "lookup_records": tuple(records(version)),
        "customer_routes": tuple(routes()),
        "provider_addresses": addresses,
    }
    return HostPolicy(**(fields | changes))


def tables(of: HostPolicy, preferred: Iterable[str] | None = None) -> Tables:
    """Tables of a policy; all its PAs are preferred unless told."""
    everything = [address.provider_address for address in of.provider_addresses]
    return Tables(of, frozenset(everything if preferred is None else preferred))


class MemoryUplink(Uplink):
    """A NIC whose cable is ``cable``; what the switch sends is put into ``sent``.

    ``error``: what sending raises instead.
    """

    def __init__(self, name: str, mac: bytes) -> None:
        self.name, self.mac, self.mtu, self.wnv_binding = name, mac, 1500, False
        self.socket, self.cable = _pair()
        self.queues = [Queue(0, self.socket)]
        self.offloads = Offloads().changed({"rx-checksum": False})  # frames of tests have what they have
        self.send = self._take
        self.flows = {}
        self.tx_packets = self.tx_bytes = self.tx_lso_packets = self.tx_lso_segments = 0
        self.tx_software_segments = self.tx_software_checksums = 0
        self.rx_rsc_packets = self.rx_rsc_segments = 0
        self.sent: list[tuple[bytes, bytes]] = []
        self.error: OSError | None = None

    def _take(self, data: Any, *_: object) -> int:
        if self.error:
            raise self.error
        self.sent.append((bytes(data[:10]), bytes(data[10:])))
        return len(data)

    def send_parts(self, parts: Any) -> None:
        """Send a packet given in pieces."""
        self._take(b"".join(bytes(part) for part in parts))

    def backlog(self) -> int:
        """Nothing waits."""
        return 0

    def overruns(self) -> int:
        """None: a socket pair loses nothing."""
        return 0

    def close(self) -> None:
        """Close both ends."""
        self.socket.close()
        self.cable.close()


@dataclasses.dataclass
class Seen:
    """What came of one packet: (vnet header, frame) lists, and the drops it caused.

    queues: of each port that got something, the queue of each packet.
    """

    wire: list[tuple[bytes, bytes]]
    ports: dict[str, list[tuple[bytes, bytes]]]
    drops: dict[tuple[str, str], int]  # by port or NIC, and reason
    queues: dict[str, list[int]]

    @property
    def frame(self) -> bytes:
        """The one frame that left anywhere."""
        (only,) = [*self.wire, *(packet for packets in self.ports.values() for packet in packets)]
        return only[1]

    def dropped(self, reason: Drop, count: int = 1) -> bool:
        """Whether this reason and no other was counted, and nothing left."""
        counted = {each for _, each in self.drops}
        return counted == {reason} and sum(self.drops.values()) == count and not self.wire and not self.ports


class MemorySwitch:
    """Host ``host`` with its VMs' ports. ``cached`` False: every packet takes the full path.

    mode: where the WNV filter is. version: the family of the PA network. bound: the filter below the
    switch is bound to the NIC. queues: of each VM's NIC. ``claims``: the VMs' addresses that were news.
    """

    def __init__(
        self,
        host: int = 1,
        *,
        cached: bool = True,
        plain_ports: Iterable[str] = (),
        extensions: Sequence[Extension] = (),
        mode: WnvMode = "in-switch",
        flow_entropy: bool = True,
        version: int = 4,
        bound: bool = True,
        queues: int = 1,
    ) -> None:
        self._cached, self._per_vm = cached, queues
        self.state = SwitchState()
        self.unresolved: list[bytes] = []
        self.wnv = FILTERS[mode](self.state, flow_entropy=flow_entropy)
        self.stack = Stack(extensions, self.state)
        self.flowlets = Flowlets()
        pipeline = build_pipeline(self.state, self.wnv, self.stack, mode, self.flowlets)
        self.datapath = Datapath(self.state, pipeline, self.unresolved.append)
        self.claims: list[Claim] = []
        self.learning = Learning(self.claims.append, self._set_inspects)
        if isinstance(self.wnv, WnvFilter):
            self.wnv.learning = self.learning
        self._set_inspects(exchanges=False)
        self._vms: dict[str, list[socket.socket]] = {}
        self.nic = MemoryUplink("nic1", nic_mac(host))
        self.nic.wnv_binding = bound
        self.state.uplinks["nic1"] = self.nic
        self.state.roles = Roles.alone("nic1", self.nic.mac)
        for name, (where, vsid, _) in VMS.items():
            if where == host:
                self.add_port(name, mac_of(name), vsid)
        for number, name in enumerate(plain_ports):
            self.add_port(name, mac(f"00:15:5d:aa:00:{number:02x}"), 0)
        self.apply(policy(host, version))
        for other in (1, 2, 3):
            for vsid in _PREFIX:
                self.state.neighbors[ip(pa(other, vsid, version))] = nic_mac(other)

    def lose_nics(self) -> None:
        """No NIC works."""
        self.state.roles = Roles(TeamPlan("nic1"), {"nic1": self.nic.mac}, ())

    def find_nics(self) -> None:
        """They work again."""
        self.state.roles = Roles.alone("nic1", self.nic.mac)

    def add_port(self, name: str, mac: bytes, vsid: int) -> None:
        """Plug a VM in."""
        queues = [_pair() for _ in range(self._per_vm)]
        self._vms[name] = [outside for _, outside in queues]
        port = Port(name, mac, vsid, *(inside.detach() for inside, _ in queues))
        self.state.add_port(port)
        self.stack.attach_port(port)

    def _set_inspects(self, exchanges: bool) -> None:
        self.datapath.inspects = exchanges or bool(self.stack.extensions) or self._per_vm > 1

    def unplug(self, name: str) -> None:
        """Close the VM's end of its port."""
        for queue in self._vms.pop(name):
            queue.close()

    def apply(self, new: HostPolicy, preferred: Iterable[str] | None = None) -> None:
        """Give the switch a policy, as its worker does."""
        self.wnv.tables = tables(new, preferred)
        self.state.forget_flows()

    def cached(self) -> int:
        """How many flows are remembered."""
        of_ports = sum(len(port.flows) for port in self.state.ports.values())
        return of_ports + sum(len(uplink.flows) for uplink in self.state.uplinks.values())

    def from_vm(self, name: str, frame: bytes, vnet: bytes = PLAIN, queue: int = 0) -> Seen:
        """A VM sends a packet."""
        before, port = self._before(), self.state.ports[name]
        self._vms[name][queue].send(vnet + frame)
        self.datapath.drain_port(port, port.descriptors[queue])
        return self._since(before)

    def from_wire(self, frame: bytes, vnet: bytes = PLAIN) -> Seen:
        """A packet arrives at the NIC."""
        before = self._before()
        self.nic.cable.send(vnet + frame)
        self.datapath.drain_uplink(self.nic, self.nic.queues[0])
        return self._since(before)

    def neighbor(self, next_hop: str, mac: bytes | None) -> Seen:
        """Control has resolved a PA next hop, or given up."""
        return self.caused(lambda: self.datapath.neighbor(ip(next_hop), mac))

    def caused(self, action: Callable[[], object]) -> Seen:
        """What came of something else."""
        before = self._before()
        action()
        return self._since(before)

    def close(self) -> None:
        """Close everything."""
        for port in self.state.ports.values():
            port.close()
        for name in [*self._vms]:
            self.unplug(name)
        self.nic.close()

    def __enter__(self) -> MemorySwitch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _before(self) -> dict[tuple[str, str], int]:
        if not self._cached:
            self.state.forget_flows()
        return self._drops()

    def _drops(self) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for (_, name, _, reason), count in self.datapath.drops.items():
            found[name, reason] = found.get((name, reason), 0) + count
        return found

    def _since(self, before: dict[tuple[str, str], int]) -> Seen:
        drops = {
            key: count - before.get(key, 0)
            for key, count in self._drops().items()
            if count != before.get(key, 0)
        }
        ports: dict[str, list[tuple[bytes, bytes]]] = {}
        queues: dict[str, list[int]] = {}
        for name, ends in self._vms.items():
            for number, end in enumerate(ends):
                for packet in _drain(end):
                    ports.setdefault(name, []).append(packet)
                    queues.setdefault(name, []).append(number)
        sent, self.nic.sent = self.nic.sent, []
        return Seen(sent, ports, drops, queues)


def _pair() -> tuple[socket.socket, socket.socket]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (one, other):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return one, other


def _drain(end: socket.socket) -> Iterable[tuple[bytes, bytes]]:
    while True:
        try:
            data = os.read(end.fileno(), 1 << 18)
        except (BlockingIOError, ConnectionResetError):
            return
        if not data:  # the port is gone
            return
        yield data[:10], data[10:]
