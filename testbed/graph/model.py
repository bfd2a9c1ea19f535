"""What a picture of a lab shows, as pure data; how it is drawn is no matter of this module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct

from testbed.nic.faults import Faults, Way

State = Literal["plain", "good", "warn", "bad"]
SEVERITY: tuple[State, ...] = ("plain", "good", "warn", "bad")


def worst(states: Iterator[State] | list[State]) -> State:
    """The one to look at first; "plain" when there is none."""
    return max(states, key=SEVERITY.index, default="plain")


class CableState(Struct, frozen=True):
    """A cable now. ways: empty where its host does not answer."""

    up: bool
    ways: dict[Way, Faults]


class Live(Struct, frozen=True):
    """The state of a running lab, as its hosts, VMs and fabric tell it.

    hosts, vms, vmm, ready: as ``testbed inspect`` prints them. cables: by "host1:nic1". members: of the
    teams, by host, as ``testbed team`` prints them.
    """

    engine: str
    ready: bool
    hosts: dict[str, dict[str, Any]]
    vms: dict[str, list[dict[str, Any]]]
    vmm: dict[str, Any] | None
    cables: dict[str, CableState]
    members: dict[str, list[dict[str, Any]]]


class Thing(Struct, frozen=True, kw_only=True):
    """Anything that can be pointed at.

    id: unique within the graph, made of letters and digits only. notes: short words for the picture.
    details: label and value, in the order of reading. related: ids of what belongs to it. vsids: the virtual
    subnets that have a part in it.
    """

    id: str
    kind: str
    name: str
    state: State = "plain"
    notes: tuple[str, ...] = ()
    details: tuple[tuple[str, str], ...] = ()
    related: tuple[str, ...] = ()
    vsids: tuple[int, ...] = ()


class Subnet(Struct, frozen=True):
    """A virtual subnet that has a colour: the hue of its network, and its place among its subnets."""

    vsid: int
    network: str
    prefixes: tuple[str, ...]
    hue: int
    shade: int


class Adapter(Struct, frozen=True):
    """A VM's adapter. address: that of the picture; "" where it has none; more: how many others."""

    vsid: int
    address: str
    more: int


class Vm(Thing, frozen=True, kw_only=True):
    """A virtual machine in its host."""

    adapters: tuple[Adapter, ...]


class Host(Thing, frozen=True, kw_only=True):
    """A hypervisor with what is in it. nics[i] is the end of a cable that names its id."""

    nics: tuple[Thing, ...]
    team: Thing
    vms: tuple[Vm, ...]


class Cable(Thing, frozen=True, kw_only=True):
    """From a switch's port to a host's NIC; all but the port are ids."""

    switch: str
    port: str
    host: str
    nic: str


class Trunk(Thing, frozen=True, kw_only=True):
    """Between ports of two switches, by their ids."""

    switches: tuple[str, str]
    ports: tuple[str, str]


class Graph(Struct, frozen=True):
    """A whole picture. engine: "" where nothing runs."""

    name: str
    summary: str
    engine: str
    subnets: tuple[Subnet, ...]
    switches: tuple[Thing, ...]
    vmm: Thing | None
    hosts: tuple[Host, ...]
    cables: tuple[Cable, ...]
    trunks: tuple[Trunk, ...]

    def things(self) -> Iterator[Thing]:
        """Everything that can be pointed at, in the order of reading."""
        yield from self.switches
        if self.vmm:
            yield self.vmm
        for host in self.hosts:
            yield host
            yield from (*host.nics, host.team, *host.vms)
        yield from (*self.cables, *self.trunks)
