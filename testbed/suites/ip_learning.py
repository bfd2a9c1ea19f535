"""An address that a VM takes by itself is known to every host that needs to know it, or to none."""

from __future__ import annotations

import ipaddress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import pytest

from testbed.conformance import frames
from testbed.testing import addresses, journey, learning, neighbors
from testbed.testing.vm import token
from testbed.testing.waiting import until
from testbed.wiring import neighbors as kernel

if TYPE_CHECKING:
    from testbed.testing.host import Host
    from testbed.testing.lab import LiveLab, Pair
    from testbed.testing.vm import Vm

EXCLUSIVE = pytest.mark.topology(exclusive=True)
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
OUTSIDE = {4: "192.0.2.77", 6: "2001:db8:77::77"}  # for documents (RFC 5737, RFC 3849)


def pair(lab: LiveLab, version: int) -> Pair:
    """Two VMs of one virtual subnet on different hosts that learn, with planned addresses; they announce."""
    lab.require(lab.lab.plan.vmm, "no VMM, which would tell other hosts")
    names = {host.name for host in learning.hosts(lab)}

    def fits(one: Vm, other: Vm) -> bool:
        return (
            bool(one.vsid)
            and one.vsid == other.vsid
            and one.host != other.host
            and all(
                each.host in names
                and lab.lab.plan.vm(each.node).announce
                and any((":" in text) == (version == 6) for text in each.planned.addresses)
                for each in (one, other)
            )
        )

    what = "two VMs of one virtual subnet on different hosts that learn addresses"
    return lab.pairs(fits, what, version=version)[0]


class Address(NamedTuple):
    """An address with its prefix' length, that VMs take and give up."""

    text: str
    length: int

    @property
    def version(self) -> int:
        """4 or 6."""
        return ipaddress.ip_address(self.text).version

    def taken_by(self, vm: Vm) -> None:
        """The VM's kernel has it from now on, and announces it."""
        kernel.add_address(vm.netns, vm.interface, f"{self.text}/{self.length}")

    def given_up_by(self, vm: Vm) -> None:
        """The VM's kernel has it no more."""
        kernel.remove_address(vm.netns, vm.interface, f"{self.text}/{self.length}")


def new_address(lab: LiveLab, vm: Vm, version: int) -> Address:
    """One of the VM's virtual subnet that nobody has."""
    length = addresses.prefix(lab, vm.vsid, version).prefixlen
    return Address(addresses.free(lab, vm.vsid, version), length)


def reach(lab: LiveLab, one: Vm, address: str, other: Vm) -> None:
    """A packet of ``one`` to an address reaches ``other``, checked at each hop."""
    journey.check(lab, journey.take(lab, one, other, lambda mark: one.frame(address, mark, mac=other.mac)))


@EXCLUSIVE
@VERSIONS
def test_an_address_that_a_vm_takes(lab: LiveLab, version: int) -> None:
    """It is announced, ends on the VM's own host, is known everywhere, and leads to the VM."""
    one, other = pair(lab, version)
    new = new_address(lab, one, version)
    with lab.capture(*journey.points(lab, one, other)) as seen:
        new.taken_by(one)
        announces = neighbors.announces(new.text, one.mac)
        seen.wait(one.point, announces, outgoing=True, what=f"the announcement of {new.text} by {one}")
        learning.known_everywhere(lab, one, new.text)
    if all(each.planned.addresses for each in lab.vms if each.vsid == one.vsid):
        assert not seen.count(other.point, announces), f"{other} heard of it: all addresses are known"
    reach(lab, other, new.text, one)


@EXCLUSIVE
@VERSIONS
def test_an_address_in_place_of_another(lab: LiveLab, version: int) -> None:
    """The new one is known everywhere, the old one is not any more, and a packet to that is on no cable."""
    one, other = pair(lab, version)
    length = addresses.prefix(lab, one.vsid, version).prefixlen
    old, new = Address(one.address(version), length), new_address(lab, one, version)
    new.taken_by(one)
    old.given_up_by(one)
    learning.known_everywhere(lab, one, new.text)
    learning.forgotten_everywhere(lab, one, old.text)
    reach(lab, other, new.text, one)
    host, mark = lab.host(other.host), token()
    before = host.dropped("no-lookup-record")
    with lab.capture(*journey.points(lab, other, one)) as seen:
        other.send(other.frame(old.text, mark, mac=one.mac))
        until(lambda: host.dropped("no-lookup-record") > before, f"{host} drops a packet to {old.text}")
        fence = token()
        frame = other.frame(new.text, fence, mac=one.mac)
        seen.wait(one.point, fence, lambda: other.send(frame), outgoing=False, what="a later packet")
        trip = journey.of(lab, seen, other, one, mark)
    assert (len(trip.left), trip.from_host, trip.arrived) == (1, [], []), f"to {old.text}: {trip}"


@VERSIONS
def test_what_is_not_learned(lab: LiveLab, version: int) -> None:
    """An address outside the subnet, and one that another VM has by policy: refused, and told as an event."""
    one, other = pair(lab, version)
    host = lab.host(one.host)
    outside, held = OUTSIDE[version], other.address(version)
    before = learning.records(lab, one, held)
    for address, kind in ((outside, "address-refused"), (held, "address-conflict")):
        one.send(use_of(one, address, other))
        until(partial(is_told, host, kind, one, address), f"{host} tells of {address} at {one} as {kind}")
    assert not any(learning.records(lab, one, outside).values()), f"{outside} was learned"
    assert learning.records(lab, one, held) == before, f"{held} is not {other}'s any more"
    journey.follow(lab, one, other, version)


def use_of(vm: Vm, address: str, asked: Vm) -> bytes:
    """What a VM sends that uses an address: an ARP announcement, or a solicitation from there."""
    sender = frames.mac(vm.mac), address
    return frames.solicitation(sender, asked.address(6)) if ":" in address else frames.arp(sender, address)


def is_told(host: Host, kind: str, vm: Vm, address: str) -> bool:
    """Whether a host has an event of a VM's address."""
    found = [each["fields"] for each in host.events(kind) if each["object"] == vm.port]
    return any((each["ca"], each["mac"]) == (address, vm.mac) for each in found)
