"""The topology file as typed data: what a user may write.

Every struct refuses unknown keys. Types and ranges that concern one value alone are
checked here; what concerns several values (duplicates, overlaps, references) is checked
in :mod:`testbed.topology.validate`. The JSON Schema is generated from these structs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from testbed.nic.guest import GuestTask
from testbed.nic.offloads import Task

Name = Annotated[
    str,
    Meta(
        pattern=r"\A[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\Z",
        description="lower-case letters, digits and inner hyphens, at most 32 characters",
    ),
]
# 0: not virtualised. 1-0xFFF are reserved and 0xFFFFFF is for NVE-NVE use (RFC 7637 section 3.2);
# the gap is refused in validate.py, which can say why.
Vsid = Annotated[int, Meta(ge=0, le=0xFFFFFF, description="virtual subnet id; 0: not virtualised")]
Guid = Annotated[
    str,
    Meta(pattern=r"\A\{?[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\}?\Z", description="a GUID"),
]
Mac = Annotated[str, Meta(pattern=r"\A[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}\Z", description="a MAC address")]
Mtu = Annotated[int, Meta(ge=1280, le=65535, description="bytes of IP packet")]
Wire = Literal["frames", "aggregated"]
TeamingMode = Literal["SwitchIndependent", "Static", "Lacp"]
LoadBalancing = Literal["Dynamic", "HyperVPort", "TransportPorts", "IPAddresses", "MacAddresses"]
# in-switch: Windows Server 2012 R2; below-switch: a filter on the NIC, as in Windows Server 2012
WnvMode = Literal["in-switch", "below-switch"]


class Subnet(Struct, frozen=True, forbid_unknown_fields=True):
    """A virtual subnet: one VSID, at most one prefix of each address family."""

    vsid: Vsid
    prefixes: Annotated[list[str], Meta(min_length=1)]
    gateways: list[str] = []  # default: the lowest address of each prefix
    multicast: str | None = None  # PA group of broadcast and multicast; default: a copy for each host


class Network(Struct, frozen=True, forbid_unknown_fields=True):
    """A VM network: one routing domain (RDID) and its virtual subnets."""

    name: Name
    subnets: Annotated[list[Subnet], Meta(min_length=1)]
    rdid: Guid | None = None  # default: derived from the topology's and the network's name


class Nic(Struct, frozen=True, forbid_unknown_fields=True):
    """An emulated physical NIC of a host."""

    name: Name
    mac: Mac | None = None
    wnv_binding: bool = False  # below-switch only: the filter is bound to this NIC
    profile: str = "modern"  # one of testbed/nic/profiles, or the path of a file of its form
    supports: dict[Task, bool] = {}  # single capabilities, in place of the profile's
    offloads: dict[Task, bool] = {}  # which of them are enabled, in place of the profile's
    queues: Annotated[int, Meta(ge=1, le=16)] | None = None  # receive queues; default: one for each processor


class Processors(Struct, frozen=True, forbid_unknown_fields=True):
    """Emulated logical processors, on which a host's switch works; each has a share of a real core."""

    count: Annotated[int, Meta(ge=1, le=16)] = 1
    budget: Annotated[int, Meta(ge=1, le=100, description="per cent of a core")] | None = None  # no limit


class Team(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={"lacp_timer": "lacp-timer", "flowlet_gap": "flowlet-gap"},
):
    """The host's NICs as one; the names are those of New-NetLbfoTeam."""

    mode: TeamingMode = "SwitchIndependent"
    algorithm: LoadBalancing = "Dynamic"
    primary: Name | None = None  # default: the first NIC
    standby: Name | None = None  # carries nothing while another member works
    lacp_timer: Literal["Fast", "Slow"] = "Fast"
    flowlet_gap: str | None = None  # 500us; default: as long as the paths differ


class Extension(Struct, frozen=True, forbid_unknown_fields=True):
    """A switch extension with its settings; which there are is the extension's business."""

    name: Name
    settings: dict[str, Any] = {}


class Host(Struct, frozen=True, forbid_unknown_fields=True):
    """A hypervisor host."""

    name: Name
    nics: Annotated[list[Nic], Meta(min_length=1, max_length=8)]
    team: Team = msgspec.field(default_factory=Team)
    extensions: list[Name | Extension] = []
    wnv: WnvMode = "in-switch"
    flow_entropy: bool = True  # false: FlowID is always 0 (RFC 7637 section 3.2)
    processors: Processors = msgspec.field(default_factory=Processors)


class Vnic(Struct, frozen=True, forbid_unknown_fields=True):
    """A VM's network adapter. Addresses are CAs; a prefix length is needed for VSID 0 only.

    Without addresses the VM gets L2Only records: it is to learn its address by itself.
    """

    vsid: Vsid
    addresses: list[str] = []
    mac: Mac | None = None
    legacy: bool = False  # an emulated adapter: HNV does not reduce its MTU
    gateway: bool = False  # this VM is the network's way out: wildcard records and default routes
    supports: dict[GuestTask, bool] = {}  # what the adapter can do for the guest; default: all
    offloads: dict[GuestTask, bool] = {}  # which of it is enabled; default: all
    queues: Annotated[int, Meta(ge=1, le=16)] = 1  # queues of the synthetic adapter (vRSS)


class Vm(Struct, frozen=True, forbid_unknown_fields=True, rename={"shared_disk": "shared-disk"}):
    """A tenant's virtual machine."""

    name: Name
    host: Name
    vnics: Annotated[list[Vnic], Meta(min_length=1, max_length=8)]
    image: str | None = None  # docker engine only; default: the node image
    command: list[str] | None = None
    announce: bool = True  # tell the network of each address that the VM takes, as Windows does
    exec: list[str | list[str]] = []  # run in order when the VM's network is there
    shared_disk: Name | None = None  # one file for all VMs that name it


class Fabric(Struct, frozen=True, forbid_unknown_fields=True):
    """Top-of-rack switches and the provider address space."""

    switches: Annotated[list[Name], Meta(min_length=1)]
    pa_mtu: Mtu = 1500
    pa_pool: str = "192.168.0.0/20"


class Impairment(Struct, frozen=True, forbid_unknown_fields=True, rename={"black_hole": "black-hole"}):
    """What a cable does to frames, in the words of ``testbed link``."""

    rate: str | None = None  # 200mbit
    loss: str | float | None = None  # 1%, as are the next two
    corruption: str | float | None = None
    duplication: str | float | None = None
    black_hole: bool | None = None
    delay: str | None = None  # 5ms
    jitter: str | None = None
    reordering: str | float | None = None
    seed: int | None = None


class Link(
    Impairment,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    rename={"black_hole": "black-hole", "to_host": "to-host", "from_host": "from-host"},
):
    """A cable: "host:nic" to a switch, or switch to switch. What it does to frames, both ways or one."""

    endpoints: Annotated[list[str], Meta(min_length=2, max_length=2)]
    wire: Wire = "frames"
    to_host: Impairment = msgspec.field(default_factory=Impairment)
    from_host: Impairment = msgspec.field(default_factory=Impairment)


class Topology(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole topology file."""

    name: Name
    networks: list[Network]
    hosts: Annotated[list[Host], Meta(min_length=1)]
    vms: list[Vm]
    fabric: Fabric
    links: list[Link]
    timers: Literal["fast", "rfc"] = "fast"
    vmm: bool = True  # a VMM node owns the policy; false: it is what this file says, and static
    learning: bool = True  # hosts learn VMs' addresses (2012 R2); false: by policy alone (2012)
