"""A VM moves to another host: packets find it there, connections go on, it keeps what it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from testbed.lab.migrate import migrate
from testbed.perf.outage import probing
from testbed.testing import journey
from testbed.testing.connection import connected
from testbed.testing.pairs import apart, talking

if TYPE_CHECKING:
    from testbed.testing.lab import LiveLab
    from testbed.testing.vm import Vm

pytestmark = pytest.mark.topology(exclusive=True)
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
LONGEST_OUTAGE = 2000.0  # milliseconds; it takes some 10 on a quiet machine


class Move(NamedTuple):
    """A VM and where it goes. partner: of its virtual subnet, on another host than it is on."""

    vm: Vm
    partner: Vm
    source: str
    target: str


def move(lab: LiveLab, version: int = 4, *, kernels: bool = False) -> Move:
    """Preferably to a host where neither of the two is."""
    lab.require(lab.lab.plan.vmm, "no VMM, which migrates VMs")
    pairs = (talking if kernels else apart)(lab, version)
    found = [
        Move(one, other, one.host, host.name)
        for one, other in pairs
        for host in lab.hosts
        if host.name != one.host
    ]
    return min(found, key=lambda each: each.target == each.partner.host)


def go(lab: LiveLab, vm: Vm, target: str) -> None:
    """Migrate, as `testbed migrate` does."""
    migrate(lab.lab, vm.node, target)
    assert vm.host == target


def neighbors(lab: LiveLab, vm: Vm, version: int) -> list[Vm]:
    """Who can send to it: of its virtual subnet, the first on each host."""
    found = {
        other.host: other
        for one, other in reversed(lab.pairs(lambda a, b: a.vsid == b.vsid, "neighbors", version=version))
        if one.name == vm.name
    }
    return list(found.values())


@VERSIONS
def test_packets_find_it(lab: LiveLab, version: int) -> None:
    """From every host with its virtual subnet, there and back again; no cable of the old host has them."""
    way = move(lab, version)
    others = neighbors(lab, way.vm, version)
    for other in others:
        journey.follow(lab, other, way.vm, version)
    go(lab, way.vm, way.target)
    for other in others:
        with lab.capture(lab.host(way.source).cables) as old:
            there = journey.follow(lab, other, way.vm, version)
            back = journey.follow(lab, way.vm, other, version)
            for trip in (there, back):
                seen = old.count("*", trip.arrived[0].inner)
                assert not seen or way.source == other.host, f"on a cable of {way.source}: {trip}"
    go(lab, way.vm, way.source)
    for other in others:
        journey.follow(lab, other, way.vm, version)
        journey.follow(lab, way.vm, other, version)


@VERSIONS
def test_a_connection_goes_on(lab: LiveLab, version: int) -> None:
    """TCP between the kernels, to the other host and to the partner's own; no bytes are lost or doubled."""
    way = move(lab, version, kernels=True)
    with connected(way.partner, way.vm, version) as connection:
        connection.exchange()
        for target in dict.fromkeys((way.target, way.partner.host, way.source)):
            go(lab, way.vm, target)
            connection.exchange()


def test_it_is_away_for_a_moment_only(lab: LiveLab) -> None:
    """Probes each millisecond, of the partner's kernel, answered by the VM's."""
    way = move(lab, kernels=True)
    with probing(way.partner.netns, [way.vm.netns], way.vm.address()) as meter:
        go(lab, way.vm, way.target)
        journey.follow(lab, way.partner, way.vm)
        found = meter.stop()
    assert found.longest - found.held_up < LONGEST_OUTAGE, found


def test_it_keeps_what_it_has(lab: LiveLab) -> None:
    """Adapter, addresses, MTU; every host's records say where it is, and one host alone has its port."""
    way = move(lab)
    link = way.vm.run("ip", "-d", "link", "show", way.vm.interface).stdout
    before = way.vm.addresses(), way.vm.mtu(), records(lab, way.vm)
    go(lab, way.vm, way.target)
    assert way.vm.run("ip", "-d", "link", "show", way.vm.interface).stdout == link
    assert (way.vm.addresses(), way.vm.mtu()) == before[:2]
    now = records(lab, way.vm)
    pas = lab.host(way.target).provider_addresses(way.vm.vsid)
    assert now, f"no host has a record of {way.vm}"
    assert set().union(*now.values()) <= pas, f"{way.vm} is on {way.target} with {pas}; hosts have {now}"
    assert set(before[2]) <= {*now, way.source}, f"hosts that knew it and do not any more: {now}"
    moved = [
        each
        for each in lab.lab.vmm().get("/events")["events"]
        if each["kind"] == "customer-address" and each["fields"].get("mac") == way.vm.mac
    ]
    assert {each["fields"]["reason"] for each in moved} == {"Moved"}, moved
    at = [host.name for host in lab.hosts if way.vm.port in {each["name"] for each in ports(lab, host.name)}]
    assert at == [way.target]


def records(lab: LiveLab, vm: Vm) -> dict[str, set[str]]:
    """The PAs at which each host that knows a VM looks for it."""
    found: dict[str, set[str]] = {}
    for host in lab.hosts:
        for each in host.ask("policy", verb="list", object="lookup-records")["objects"]:
            if (each["virtual_subnet_id"], each["mac_address"]) == (vm.vsid, vm.mac):
                found.setdefault(host.name, set()).add(each["provider_address"])
    return found


def ports(lab: LiveLab, host: str) -> list[dict[str, str]]:
    """The ports of a host's switch."""
    found: list[dict[str, str]] = lab.host(host).ask("status")["ports"]
    return found
