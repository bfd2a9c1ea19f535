"""The Plan: everything a lab is made of, as pure data with every name and address decided.

File -> Plan -> lab -> nodes: no node reads the topology file; a host gets its
:class:`HostPlan` (in which only its own part of the policy stands) and nothing else.
All structs can go through msgspec's JSON and MessagePack codecs unchanged.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from testbed.nic.faults import Faults
from testbed.nic.guest import GuestOffloads
from testbed.nic.offloads import Offloads
from testbed.topology.schema import LoadBalancing, TeamingMode, Wire, WnvMode

Timers = Literal["fast", "rfc"]
Rule = Literal["TranslationMethodEncap", "TranslationMethodNat", "TranslationMethodNone"]
RecordType = Literal["Static", "Dynamic", "L2Only", "GatewayWildcard"]

# A default gateway is no machine: its record names a PA to which nothing can be sent. Any link-local
# PA means this; these are what Microsoft's samples use and its like for IPv6.
NOWHERE = {4: "169.254.254.254", 6: "fe80::254"}


class LookupRecord(Struct, frozen=True):
    """CA -> MAC and PA, per VSID (New-NetVirtualizationLookupRecord).

    L2Only and GatewayWildcard records have the unspecified CA. A record whose CA is a multicast or the
    broadcast address and whose PA is a multicast address sends that traffic to a PA group; those of
    255.255.255.255 and ff02::1 stand for all groups of their family that have no record of their own.
    """

    customer_address: str
    virtual_subnet_id: int
    mac_address: str
    provider_address: str
    vm_name: str = ""
    rule: Rule = "TranslationMethodEncap"
    type: RecordType = "Static"
    customer_id: str = ""
    context: str = ""
    use_vm_mac_address: bool = False


class CustomerRoute(Struct, frozen=True):
    """A route of a routing domain (New-NetVirtualizationCustomerRoute). next_hop 0.0.0.0/:: is on-link."""

    routing_domain_id: str
    virtual_subnet_id: int
    destination_prefix: str
    next_hop: str
    metric: int = 255


class ProviderAddress(Struct, frozen=True):
    """A PA of a host (New-NetVirtualizationProviderAddress): one per VSID and host."""

    provider_address: str
    prefix_length: int
    virtual_subnet_id: int


class ProviderRoute(Struct, frozen=True):
    """A route of the PA space (New-NetVirtualizationProviderRoute)."""

    destination_prefix: str
    next_hop: str
    metric: int = 255


class HostPolicy(Struct, frozen=True):
    """The part of the network policy that one host needs."""

    lookup_records: tuple[LookupRecord, ...] = ()
    customer_routes: tuple[CustomerRoute, ...] = ()
    provider_addresses: tuple[ProviderAddress, ...] = ()
    provider_routes: tuple[ProviderRoute, ...] = ()


class NicPlan(Struct, frozen=True):
    """A host's NIC; its interface in the host has the NIC's name."""

    name: str
    mac: str
    mtu: int
    wnv_binding: bool = False
    profile: str = "modern"
    offloads: Offloads = Offloads()
    queues: int = 1


class TeamPlan(Struct, frozen=True):
    """How a host's NICs are one. primary, standby: NICs; flowlet_gap: seconds, 0: it adapts."""

    primary: str
    mode: TeamingMode = "SwitchIndependent"
    algorithm: LoadBalancing = "Dynamic"
    standby: str = ""
    lacp_timer: Literal["Fast", "Slow"] = "Fast"
    flowlet_gap: float = 0.0

    @property
    def has_partner(self) -> bool:
        """Whether the switch takes the cables for one, too (switch-dependent modes)."""
        return self.mode != "SwitchIndependent"


class ProcessorsPlan(Struct, frozen=True):
    """A host's emulated processors. budget: the share of a core that each has; 0: no limit."""

    count: int = 1
    budget: float = 0.0


class ExtensionPlan(Struct, frozen=True):
    """A switch extension of a host. settings: plain data that the extension understands."""

    name: str
    settings: dict[str, Any] = {}


class HostPlan(Struct, frozen=True):
    """What a host process is given."""

    name: str
    nics: tuple[NicPlan, ...]
    team: TeamPlan
    policy: HostPolicy
    timers: Timers = "fast"
    extensions: tuple[ExtensionPlan, ...] = ()
    wnv: WnvMode = "in-switch"
    flow_entropy: bool = True
    learning: bool = True  # report addresses that VMs take
    processors: ProcessorsPlan = ProcessorsPlan()


class VnicPlan(Struct, frozen=True):
    """A VM's adapter. addresses and gateways: "10.0.0.5/24", "10.0.0.1"."""

    interface: str  # name inside the VM: eth0, eth1
    port: str  # name of the switch port: "blue1:eth0"
    vsid: int
    mac: str
    mtu: int  # bytes of IP packet
    network: str = ""  # "" where vsid is 0
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    is_gateway: bool = False  # the network's way out
    offloads: GuestOffloads = GuestOffloads()
    queues: int = 1


class VmPlan(Struct, frozen=True):
    """A VM and the host it is placed on."""

    name: str
    host: str
    vnics: tuple[VnicPlan, ...]
    image: str | None = None
    command: tuple[str, ...] | None = None
    announce: bool = True
    exec: tuple[tuple[str, ...], ...] = ()
    shared_disk: str | None = None


class CablePlan(Struct, frozen=True):
    """host:nic <-> switch port. interface: the fabric end's kernel name (<= 15 characters)."""

    host: str
    nic: str
    switch: str
    switch_interface: str  # the switch's kernel name
    port: str  # "p1"
    interface: str
    wire: Wire = "frames"
    to_host: Faults = Faults()
    from_host: Faults = Faults()

    @property
    def is_faulty(self) -> bool:
        """Whether it does anything to frames."""
        return self.to_host != Faults() or self.from_host != Faults()


class TrunkEnd(Struct, frozen=True):
    """One end of a trunk: the switch, its kernel name, the port ("p3") and the port's kernel name."""

    switch: str
    switch_interface: str
    port: str
    interface: str


class TrunkPlan(Struct, frozen=True):
    """A link between two switches."""

    ends: tuple[TrunkEnd, TrunkEnd]
    wire: Wire = "frames"


class SwitchPlan(Struct, frozen=True):
    """A top-of-rack switch: a bridge in the fabric namespace, with its kernel name."""

    name: str
    interface: str


class AggregatePlan(Struct, frozen=True):
    """The switch's side of a host's Static or LACP team: one port of the bridge for all its cables.

    interface: its kernel name; ports: those of the cables; system: the MAC by which LACP knows the switch.
    """

    host: str
    switch: str
    switch_interface: str
    interface: str
    ports: tuple[str, ...]
    mode: Literal["Static", "Lacp"]
    fast: bool  # the LACP timer
    system: str


class FabricPlan(Struct, frozen=True):
    """Switches and cables."""

    pa_mtu: int
    switches: tuple[SwitchPlan, ...]
    cables: tuple[CablePlan, ...]
    trunks: tuple[TrunkPlan, ...]
    aggregates: tuple[AggregatePlan, ...] = ()

    def aggregate(self, host: str) -> AggregatePlan | None:
        """That of a host, if its team has a partner."""
        return next((each for each in self.aggregates if each.host == host), None)


class SubnetPlan(Struct, frozen=True):
    """A virtual subnet; gateways carry one address per prefix. multicast: its PA group or ""."""

    vsid: int
    prefixes: tuple[str, ...]
    gateways: tuple[str, ...]
    gateway_mac: str
    multicast: str = ""


class NetworkPlan(Struct, frozen=True):
    """A VM network (routing domain)."""

    name: str
    rdid: str
    subnets: tuple[SubnetPlan, ...]


class ManagementLink(Struct, frozen=True):
    """A node's link to the management network. interface: the fabric end's kernel name."""

    node: str
    address: str
    interface: str


class VmmPlan(Struct, frozen=True):
    """The VMM and the management network: its bridge in the fabric namespace, its links by node.

    address, port: where the VMM answers hosts. pa_pool: the prefix from which it takes PAs.
    """

    bridge: str
    prefix_length: int
    address: str
    port: int
    pa_pool: str
    links: tuple[ManagementLink, ...]


class Plan(Struct, frozen=True):
    """A whole lab. vmm: None where the policy is static."""

    name: str
    networks: tuple[NetworkPlan, ...]
    hosts: tuple[HostPlan, ...]
    vms: tuple[VmPlan, ...]
    fabric: FabricPlan
    timers: Timers = "fast"
    vmm: VmmPlan | None = None
    learning: bool = True

    def host(self, name: str) -> HostPlan:
        """The host called ``name``. Raises KeyError."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)

    def vm(self, name: str) -> VmPlan:
        """The VM called ``name``. Raises KeyError."""
        for vm in self.vms:
            if vm.name == name:
                return vm
        raise KeyError(name)


def encode(plan: Plan) -> bytes:
    """JSON of a Plan."""
    return msgspec.json.encode(plan)


def decode(data: bytes) -> Plan:
    """The Plan in ``data``. Raises msgspec.DecodeError."""
    return msgspec.json.decode(data, type=Plan)
