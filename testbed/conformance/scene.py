"""A lab as the checks see it: its adapters, its cables, its hosts' policy, counters and events."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from testbed.conformance import frames
from testbed.conformance.observe import Place
from testbed.conformance.outcome import NotShown
from testbed.lab.lab import FABRIC, Lab
from testbed.topology.plan import HostPlan, Plan, SubnetPlan


class Guest(Struct, frozen=True):
    """A VM's adapter. ca: its address by IP version; gateway: the default gateway's."""

    name: str
    host: str
    interface: str
    port: str
    vsid: int
    network: str
    mac: bytes
    netns: int
    ca: dict[int, str]
    gateway: dict[int, str]
    is_gateway: bool

    @property
    def place(self) -> Place:
        """Where its frames are seen."""
        return Place(self.name, self.netns, self.interface)

    def address(self, version: int = 4) -> str:
        """Its CA. Raises NotShown when it has none of this version."""
        if version not in self.ca:
            raise NotShown(f"{self.name} has no IPv{version} address")
        return self.ca[version]


class Scene:
    """A ready lab. ``folder``: where its captures are kept while the checks run."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.plan: Plan = lab.plan
        self.guests = [
            Guest(
                name=vm.name if len(vm.vnics) == 1 else vnic.port,
                host=vm.host,
                interface=vnic.interface,
                port=vnic.port,
                vsid=vnic.vsid,
                network=vnic.network,
                mac=frames.mac(vnic.mac),
                netns=lab.netns(vm.name),
                ca=_by_version(vnic.addresses),
                gateway=_by_version(vnic.gateways),
                is_gateway=vnic.is_gateway,
            )
            for vm in lab.plan.vms
            for vnic in vm.vnics
        ]

    @property
    def name(self) -> str:
        """The topology's name, for evidence."""
        return self.plan.name

    # ---- who is where ---------------------------------------------------------------------

    def guest(self, name: str) -> Guest:
        """The adapter called ``name``. Raises NotShown."""
        for guest in self.guests:
            if guest.name == name:
                return guest
        raise NotShown(f"there is no {name}")

    def host(self, name: str) -> HostPlan:
        """The Plan of a host."""
        return self.plan.host(name)

    def cable(self, host: str) -> Place:
        """The fabric's end of the cable of the host's active NIC."""
        active = self.host(host).team.primary
        for cable in self.plan.fabric.cables:
            if (cable.host, cable.nic) == (host, active):
                return Place(f"cable {host}:{active}", self.lab.netns(FABRIC), cable.interface)
        raise NotShown(f"{host}:{active} has no cable")

    def cables(self) -> list[Place]:
        """The cables of all hosts' active NICs."""
        return [self.cable(host.name) for host in self.plan.hosts]

    def nic_mac(self, host: str) -> bytes:
        """MAC of the host's active NIC."""
        plan = self.host(host)
        return frames.mac(next(nic.mac for nic in plan.nics if nic.name == plan.team.primary))

    def pa(self, host: str, vsid: int) -> str:
        """The host's PA for a VSID. Raises NotShown."""
        found = self.lab.ask(host, "policy", verb="list", object="provider-addresses")["objects"]
        for each in found:
            if each["virtual_subnet_id"] == vsid:
                return str(each["provider_address"])
        raise NotShown(f"{host} has no provider address for VSID {vsid}")

    def subnet(self, vsid: int) -> SubnetPlan:
        """The virtual subnet of a VSID."""
        return next(
            subnet for network in self.plan.networks for subnet in network.subnets if subnet.vsid == vsid
        )

    def rdid(self, vsid: int) -> str:
        """The routing domain of a VSID."""
        return next(
            network.rdid
            for network in self.plan.networks
            if any(subnet.vsid == vsid for subnet in network.subnets)
        )

    def gateway_mac(self, guest: Guest) -> bytes:
        """MAC of the default gateway of the guest's subnet."""
        return frames.mac(self.subnet(guest.vsid).gateway_mac)

    # ---- hosts ----------------------------------------------------------------------------

    @contextmanager
    def changed(self, host: str, kind: str, verb: str, **fields: Any) -> Iterator[None]:
        """A host's policy with one change, which is taken back at the end of the block."""
        answer = self.lab.ask(host, "policy", object=kind, verb=verb, fields=fields)
        try:
            yield
        finally:
            self.lab.ask(host, "policy", verb="undo", changes=answer["changes"])

    def drops(self, host: str) -> dict[tuple[str, str], int]:
        """Packets dropped so far, by port or NIC and reason."""
        counted: dict[tuple[str, str], int] = {}
        for name, reason, packets in _drops(self.lab.ask(host, "counters")):
            counted[name, reason] = counted.get((name, reason), 0) + packets
        return counted

    def dropped(self, host: str, reason: str) -> int:
        """Packets that the host has dropped for a reason so far."""
        return sum(count for (_, why), count in self.drops(host).items() if why == reason)

    def events(self, host: str, kind: str) -> list[dict[str, Any]]:
        """The events of a kind that the host knows of."""
        return [event for event in self.lab.ask(host, "events")["events"] if event["kind"] == kind]


def _drops(answer: Any) -> Iterator[tuple[str, str, int]]:
    for record in answer["counters"]:
        if record["kind"] == "drop":
            yield record["object"], record["fields"]["reason"], record["fields"]["packets"]


def _by_version(addresses: tuple[str, ...]) -> dict[int, str]:
    """The first address of each IP version, without a length."""
    found: dict[int, str] = {}
    for text in addresses:
        address = ipaddress.ip_interface(text).ip
        found.setdefault(address.version, str(address))
    return found


def poll(condition: Callable[[], Any], seconds: float) -> Any:
    """The first true value of ``condition`` within ``seconds``, else its last one."""
    import time

    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)  # a poll with a deadline
    return value
