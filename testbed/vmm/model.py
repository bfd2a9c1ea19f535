"""What the VMM's store holds, and what its API takes and gives: one definition of each.

Structs that the API takes refuse unknown fields. Policy objects themselves (lookup record, customer
route, provider address, provider route) are those of testbed.topology.plan.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from testbed.topology.plan import (
    CustomerRoute,
    HostPolicy,
    LookupRecord,
    Plan,
    ProviderAddress,
    ProviderRoute,
    Rule,
)
from testbed.topology.schema import Guid, Mac, Name, Vsid

# How many addresses a port may have learned at a time unless it is said (DynamicIPAddressLimit);
# the default is this testbed's own choice.
DYNAMIC_ADDRESS_LIMIT = 8

Purpose = Literal["ca", "pa"]
# released: a PA that was in use; it is given out again last, as neighbors may still know it
AddressState = Literal["allocated", "reserved", "learned", "released"]
Family = Literal[4, 6]
How = Literal["arp", "dhcp", "nd", "packet"]
Phase = Literal["prepare", "commit", "cancel"]
AddressStates = Literal["Preferred", "Tentative", "Duplicate", "Invalid", "Deprecated"]
Owner = Annotated[str, Meta(min_length=1, max_length=64, description="who has the address: free text")]
Limit = Annotated[int, Meta(ge=0, le=65535, description="addresses a port may have learned at a time")]
Interface = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9-]{0,14}\Z", description="name inside the VM")]

# ---- VM networks, subnets, pools ----------------------------------------------------------


class Network(Struct, frozen=True):
    """A VM network (routing domain). rdid: a GUID in braces."""

    rdid: str
    name: str


class NewNetwork(Struct, frozen=True, forbid_unknown_fields=True):
    """A VM network to be; without an rdid it gets a random one."""

    name: Name
    rdid: Guid | None = None


class Subnet(Struct, frozen=True):
    """A virtual subnet: at most one prefix of each family. multicast: its PA group or ""."""

    vsid: int
    rdid: str
    prefixes: tuple[str, ...]
    gateways: tuple[str, ...]
    gateway_mac: str
    multicast: str = ""


class AddressRange(Struct, frozen=True, forbid_unknown_fields=True):
    """The part of a prefix from which a pool gives out addresses, ends included."""

    first: str
    last: str


class NewSubnet(Struct, frozen=True, forbid_unknown_fields=True):
    """A virtual subnet to be.

    gateways: default the lowest address of each prefix. ranges: at most one of each family, default
    all of the prefix.
    """

    rdid: Guid
    vsid: Vsid
    prefixes: Annotated[tuple[str, ...], Meta(min_length=1, max_length=2)]
    gateways: tuple[str, ...] = ()
    gateway_mac: Mac | None = None
    multicast: str = ""
    ranges: tuple[AddressRange, ...] = ()


class Pool(Struct, frozen=True):
    """An IP pool. vsid: 0 for PA pools. first, last: what allocate gives out."""

    name: str
    purpose: Purpose
    vsid: int
    prefix: str
    first: str
    last: str


class NewPool(Struct, frozen=True, forbid_unknown_fields=True):
    """A PA pool to be; CA pools come and go with their subnet."""

    name: Name
    prefix: str
    range: AddressRange | None = None


class PoolAddress(Struct, frozen=True):
    """An address of a pool that is not free. owner: a port, a host, or text. revision: of its last change."""

    pool: str
    address: str
    state: AddressState
    owner: str
    revision: int


class Allocation(Struct, frozen=True, forbid_unknown_fields=True):
    """An order for the lowest free address of a pool."""

    owner: Owner


class Reservation(Struct, frozen=True, forbid_unknown_fields=True):
    """An address that allocate is never to give out."""

    address: str
    owner: Owner


class Release(Struct, frozen=True, forbid_unknown_fields=True):
    """An allocated or reserved address that is free again."""

    address: str


# ---- hosts, VMs, ports --------------------------------------------------------------------


class Host(Struct, frozen=True):
    """A host as it is stored. registered: seconds since the epoch. token_hash: SHA-256 in hex."""

    name: str
    registered: float
    token_hash: str


class NewHost(Struct, frozen=True, forbid_unknown_fields=True):
    """A host to register. token: one that it has already ("NAME.SECRET"); default: a new one."""

    name: Name
    token: Annotated[str, Meta(min_length=32, max_length=256)] | None = None


class Registration(Struct, frozen=True):
    """A registered host's token; the VMM keeps its hash alone, so it is shown this once."""

    name: str
    token: str


class AddressReport(Struct, frozen=True, forbid_unknown_fields=True):
    """The state of one PA on its host (duplicate address detection)."""

    provider_address: str
    virtual_subnet_id: int
    state: AddressStates


class Report(Struct, frozen=True, forbid_unknown_fields=True):
    """What a host says of itself. revision: the last one it has applied."""

    revision: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    provider_addresses: tuple[AddressReport, ...] = ()


class HostView(Struct, frozen=True):
    """A host as the API shows it. networks: the RDIDs it is told of. watching: it has a stream open."""

    name: str
    registered: float
    networks: tuple[str, ...]
    watching: bool
    reported: float | None
    report: Report | None


class Vm(Struct, frozen=True):
    """A VM and the host it is placed on."""

    name: str
    host: str


class Port(Struct, frozen=True):
    """A VM's adapter and its switch port. rdid: "" where vsid is 0. addresses: those of the policy, bare."""

    port: str
    vm: str
    host: str
    interface: str
    mac: str
    vsid: int
    rdid: str
    addresses: tuple[str, ...] = ()
    is_gateway: bool = False
    dynamic_address_limit: int = DYNAMIC_ADDRESS_LIMIT


class NewAdapter(Struct, frozen=True, forbid_unknown_fields=True):
    """An adapter to be. addresses: given ones; allocate: families to take from the subnet's pools.

    With neither, the VM gets L2Only records: its addresses are to be learned.
    """

    vsid: Vsid
    addresses: tuple[str, ...] = ()
    allocate: tuple[Family, ...] = ()
    mac: Mac | None = None
    interface: Interface | None = None
    is_gateway: bool = False
    dynamic_address_limit: Limit = DYNAMIC_ADDRESS_LIMIT


class NewVm(Struct, frozen=True, forbid_unknown_fields=True):
    """A VM to place on a host."""

    name: Name
    host: Name
    adapters: Annotated[tuple[NewAdapter, ...], Meta(max_length=8)]


class Migration(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a VM is to go, and how far that is to be brought.

    prepare: the target gets the networks' policy and PAs, the VM is where it was. commit: the records
    move; it needs no preparation. cancel: the preparation ends; with a host, only one for that host.
    """

    host: Name | None = None
    phase: Phase = "commit"


class Preparation(Struct, frozen=True):
    """A host that is ready for a VM which is to come."""

    vm: str
    host: str


class PortChange(Struct, frozen=True, forbid_unknown_fields=True):
    """What of a port is to be another; None leaves it. addresses: all that it is to have by policy."""

    addresses: tuple[str, ...] | None = None
    dynamic_address_limit: Limit | None = None


class VmView(Struct, frozen=True):
    """A VM with its ports. prepared: the host that is ready for it. revision: of an order just done."""

    name: str
    host: str
    ports: tuple[Port, ...]
    prepared: str | None = None
    revision: int | None = None


class PlanOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """A changed Plan that the store is to follow; the policies in it are not looked at.

    rebuilt: VMs that are made anew though they are there. tokens: those of hosts that are new.
    """

    plan: Plan
    rebuilt: tuple[str, ...] = ()
    tokens: dict[str, str] = {}


class Converged(Struct, frozen=True):
    """What a changed Plan has brought: VMs placed and removed (anew: both), hosts removed."""

    placed: tuple[str, ...]
    removed: tuple[str, ...]
    hosts_removed: tuple[str, ...]


# ---- policy objects of one host, orders that change policy ---------------------------------


class HostProviderAddress(Struct, frozen=True, forbid_unknown_fields=True):
    """A PA and the host that has it."""

    host: Name
    provider_address: str
    prefix_length: int
    virtual_subnet_id: int

    def bare(self) -> ProviderAddress:
        """The policy object."""
        return ProviderAddress(self.provider_address, self.prefix_length, self.virtual_subnet_id)


class HostProviderRoute(Struct, frozen=True, forbid_unknown_fields=True):
    """A route of the PA space and the host that has it."""

    host: Name
    destination_prefix: str
    next_hop: str
    metric: int = 255

    def bare(self) -> ProviderRoute:
        """The policy object."""
        return ProviderRoute(self.destination_prefix, self.next_hop, self.metric)


class NewLookupRecord(LookupRecord, frozen=True, forbid_unknown_fields=True):
    """A lookup record to add."""


class NewCustomerRoute(CustomerRoute, frozen=True, forbid_unknown_fields=True):
    """A customer route to add."""


class LookupRecordChange(Struct, frozen=True, forbid_unknown_fields=True):
    """The first three say which records (at least one of them); the rest are new values."""

    customer_address: str | None = None
    virtual_subnet_id: int | None = None
    mac_address: str | None = None
    provider_address: str | None = None
    customer_id: str | None = None
    context: str | None = None
    rule: Rule | None = None
    vm_name: str | None = None
    use_vm_mac_address: bool | None = None


class CustomerRouteChange(Struct, frozen=True, forbid_unknown_fields=True):
    """metric is the new value; the rest say which routes (at least one of them)."""

    metric: int
    routing_domain_id: str | None = None
    virtual_subnet_id: int | None = None
    destination_prefix: str | None = None
    next_hop: str | None = None


class ProviderAddressChange(Struct, frozen=True, forbid_unknown_fields=True):
    """prefix_length is the new value; the rest say which PAs of the host."""

    host: Name
    prefix_length: int
    provider_address: str | None = None
    virtual_subnet_id: int | None = None


class ProviderRouteChange(Struct, frozen=True, forbid_unknown_fields=True):
    """metric is the new value; the rest say which routes of the host."""

    host: Name
    metric: int
    destination_prefix: str | None = None
    next_hop: str | None = None


# ---- learning, events, distribution --------------------------------------------------------


class Learned(Struct, frozen=True, forbid_unknown_fields=True):
    """An address that a host has seen a VM use.

    pa: the host's own for the VSID. replaces: the MAC's older address of the same family, which it gave up.
    """

    mac: str
    ca: str
    vsid: Vsid
    pa: str
    how: How
    replaces: str | None = None


class LearnedAddress(Struct, frozen=True):
    """Beside a record that came from learning: who saw it, from what, when (seconds since the epoch)."""

    vsid: int
    ca: str
    mac: str
    host: str
    how: How
    time: float


class LearnedResult(Struct, frozen=True):
    """known and gone: nothing had to change. contested: the holder is being asked; report again in a second.

    revision: the last one.
    """

    result: Literal["added", "moved", "known", "contested", "deleted", "gone"]
    revision: int
    record: LookupRecord | None = None


class Probed(Struct, frozen=True, forbid_unknown_fields=True):
    """What came of a probe: whether the VM with this MAC has answered for the address."""

    vsid: Vsid
    mac: str
    ca: str
    answered: bool


class LoggedEvent(Struct, frozen=True):
    """An event (testbed.telemetry.Event) and the revision it belongs to."""

    revision: int
    time: float
    host: str
    kind: str
    object: str
    fields: dict[str, Any]


class Events(Struct, frozen=True):
    """Events after a revision, oldest first. revision: ask again with it.

    lost: older ones are gone. first: the first revision whose events are still known.
    """

    events: tuple[LoggedEvent, ...]
    revision: int
    lost: bool
    first: int


class PolicyChange(Struct, frozen=True):
    """One object before and after (testbed.wnv.policy.Change): no old one adds, no new one removes."""

    kind: Literal["lookup-records", "customer-routes", "provider-addresses", "provider-routes"]
    old: dict[str, Any] | None = None
    new: dict[str, Any] | None = None


class Changes(Struct, frozen=True, tag_field="type", tag="changes"):
    """A line of a watch: all changes of one revision that concern the host, to be applied as a whole.

    after: the revision the line builds on. A host that has an older one has missed a line.
    """

    after: int
    revision: int
    changes: tuple[PolicyChange, ...]


class Reset(Struct, frozen=True, tag_field="type", tag="reset"):
    """A line of a watch: the host's whole policy. store: which store the revision counts for."""

    revision: int
    store: str
    policy: HostPolicy


class KeepAlive(Struct, frozen=True, tag_field="type", tag="keep-alive"):
    """A line of a stream: between these revisions there was nothing for who reads it."""

    after: int
    revision: int


class Probe(Struct, frozen=True, tag_field="type", tag="probe"):
    """A line of a watch: the host is to ask its own VM with this MAC whether it has the address still.

    It belongs to no revision, and comes once: what is not answered in time counts as silence.
    """

    vsid: int
    mac: str
    ca: str


class Status(Struct, frozen=True):
    """That the VMM answers. revision: that of the last change."""

    version: str
    revision: int
