"""An address goes from one VM to another on a different host, as that of a guest cluster does."""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from testbed.conformance import frames
from testbed.testing import journey
from testbed.testing.vm import token
from testbed.testing.waiting import until

if TYPE_CHECKING:
    from testbed.testing.journey import Journey
    from testbed.testing.lab import LiveLab
    from testbed.testing.vm import Vm

pytestmark = pytest.mark.topology(exclusive=True)
SECONDS, AGAIN_SECONDS = 20.0, 0.5
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


class Cluster(NamedTuple):
    """Two nodes on different hosts, a client of their virtual subnet, and an address that nobody has."""

    lab: LiveLab
    one: Vm
    other: Vm
    client: Vm
    address: str
    prefix: str

    @property
    def version(self) -> int:
        """Of the address."""
        return 6 if ":" in self.address else 4

    def take(self, node: Vm) -> None:
        """A node's kernel has the address from now on, and tells the network.

        An IPv6 address as cluster software takes one: without asking whether anybody has it.
        """
        words = ("nodad",) if self.version == 6 else ()
        node.run("ip", "addr", "add", f"{self.address}/{self.prefix}", "dev", node.interface, *words)
        self.announce(node)

    def announce(self, node: Vm) -> None:
        """IPv4: the guest's announcer does, as that of Windows."""
        if self.version == 6:
            node.send(frames.advertisement((frames.mac(node.mac), self.address)))

    def begin(self, node: Vm) -> None:
        """The address is this node's at first, and hosts have learned it: how, the suite ip-learning asks."""
        (pa,) = self.lab.host(node.host).provider_addresses(node.vsid)
        record = {
            "customer_address": self.address,
            "virtual_subnet_id": node.vsid,
            "mac_address": node.mac,
            "provider_address": pa,
            "type": "Dynamic",
            "vm_name": node.node,
        }
        self.lab.lab.vmm().post("/lookup-records", record)
        self.take(node)
        self.wait_for(node)

    def give_up(self, node: Vm) -> None:
        """A node's kernel does not have it any more."""
        node.run("ip", "addr", "del", f"{self.address}/{self.prefix}", "dev", node.interface)

    def owners(self) -> dict[str, str]:
        """The MAC that each host of the virtual subnet has for the address."""
        found = {}
        for host in self.lab.hosts:
            if not host.provider_addresses(self.client.vsid):
                continue
            told = host.ask("policy", verb="list", object="lookup-records")["objects"]
            own = [each for each in told if each["customer_address"] == self.address]
            found[host.name] = "".join(
                each["mac_address"] for each in own if each["virtual_subnet_id"] == self.client.vsid
            )
        return found

    def wait_for(self, node: Vm) -> None:
        """Until all hosts know that it is this node's, which says so again and again meanwhile."""
        again = time.monotonic() + AGAIN_SECONDS

        def known() -> bool:
            nonlocal again
            if time.monotonic() > again:
                self.announce(node)
                again = time.monotonic() + AGAIN_SECONDS
            return set(self.owners().values()) == {node.mac}

        until(known, f"all hosts look for {self.address} at {node} on {node.host}", SECONDS)

    def follow(self, node: Vm, mac: str) -> Journey:
        """A packet of the client's to the address, under a MAC that it has cached, comes to the node."""

        def make(mark: bytes) -> bytes:
            return self.client.frame(self.address, mark, mac=mac)

        trip = journey.take(self.lab, self.client, node, make)
        journey.check(self.lab, trip)
        got = trip.arrived[0].data[:6].hex(":")
        assert got == node.mac, f"to {got}, not to {node}'s MAC: {trip}"
        return trip


def cluster(lab: LiveLab, version: int) -> Cluster:
    """The client is on a third host if there is one. Skips the test where nobody fits."""
    lab.require(lab.lab.plan.vmm, "no VMM, which tells all hosts where an address is")
    lab.require(lab.lab.plan.learning, "learning off: by policy alone no address moves")
    announcing = {vm.name for vm in lab.lab.plan.vms if vm.announce}
    pairs = lab.pairs(
        lambda a, b: (
            bool(a.vsid) and a.vsid == b.vsid and a.host != b.host and {a.node, b.node} <= announcing
        ),
        "two VMs of one virtual subnet on different hosts that announce their addresses,",
        version=version,
    )
    trios = [
        (one, other, client)
        for one, other in pairs
        for client in lab.vms
        if client.vsid == one.vsid and client.node not in (one.node, other.node) and client.has(version)
    ]
    lab.require(trios, "no virtual subnet with three VMs, two of them on different hosts")
    one, other, client = min(trios, key=lambda each: each[2].host in (each[0].host, each[1].host))
    network = ipaddress.ip_network(prefix_of(lab, one, version))
    taken = {text for each in lab.vms for text in each.addresses()}
    last = int(network.network_address) + min(network.num_addresses - 2, 1 << 15)
    kind = type(network.network_address)
    free = (str(kind(number)) for number in range(last, int(network.network_address), -1))
    return Cluster(lab, one, other, client, next(e for e in free if e not in taken), str(network.prefixlen))


def prefix_of(lab: LiveLab, vm: Vm, version: int) -> str:
    """A prefix of a VM's virtual subnet."""
    prefixes = [
        prefix
        for network in lab.lab.plan.networks
        for subnet in network.subnets
        if subnet.vsid == vm.vsid
        for prefix in subnet.prefixes
    ]
    address = ipaddress.ip_address(vm.address(version))
    return next(each for each in prefixes if address in ipaddress.ip_network(each))


@VERSIONS
def test_the_address_moves(lab: LiveLab, version: int) -> None:
    """First one node has it, then the other: all hosts follow, and packets under the first one's MAC do."""
    parts = cluster(lab, version)
    parts.begin(parts.one)
    parts.follow(parts.one, parts.one.mac)
    parts.give_up(parts.one)
    parts.take(parts.other)
    parts.wait_for(parts.other)
    parts.follow(parts.other, parts.one.mac)
    assert parts.client.ping(parts.address, version), f"{parts.other} does not answer as {parts.address}"
    parts.give_up(parts.other)
    parts.take(parts.one)
    parts.wait_for(parts.one)
    parts.follow(parts.one, parts.other.mac)


@VERSIONS
def test_who_has_it_keeps_it(lab: LiveLab, version: int) -> None:
    """A second node that takes it while the first one answers for it gets nothing."""
    parts = cluster(lab, version)
    parts.begin(parts.one)
    parts.take(parts.other)

    def noticed() -> bool:
        told = lab.lab.vmm().get("/events")["events"]
        return any(
            each["kind"] == "address-conflict" and each["fields"]["ca"] == parts.address for each in told
        )

    until(noticed, f"the VMM tells that {parts.one} and {parts.other} both have {parts.address}")
    assert set(parts.owners().values()) == {parts.one.mac}
    parts.follow(parts.one, parts.one.mac)


def test_the_kernels_follow(lab: LiveLab) -> None:
    """Pings of the client's kernel, which has the first node in its neighbor table, reach the other node."""
    parts = cluster(lab, 4)
    lab.require(parts.client.has_route(parts.address), f"no route to {parts.address} in {parts.client}")
    parts.begin(parts.one)
    assert parts.client.ping(parts.address), f"{parts.one} does not answer as {parts.address}"
    parts.give_up(parts.one)
    parts.take(parts.other)
    parts.wait_for(parts.other)
    mark = token()
    with lab.capture(*journey.points(lab, parts.client, parts.other), parts.one.point) as seen:
        assert parts.client.ping(parts.address, token=mark), f"{parts.other} does not answer"
        trip = journey.of(lab, seen, parts.client, parts.other, mark)
        assert trip.left, trip
        assert trip.from_host, trip
        assert trip.to_host, trip
        assert trip.arrived, trip
        assert not seen.count(parts.one.point, mark), f"{parts.one} still gets it: {trip}"
