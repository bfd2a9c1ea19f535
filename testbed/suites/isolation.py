"""Nothing of a network reaches a VM of another: not by address, not by MAC, not by broadcast.

What must not appear is looked for at every cable and every VM, after later packets have come through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from testbed.conformance import frames
from testbed.testing import journey
from testbed.testing.vm import token

if TYPE_CHECKING:
    from testbed.testing.lab import LiveLab, Pair
    from testbed.testing.vm import Vm
    from testbed.testing.watch import Watch

VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


def peers(one: Vm, other: Vm) -> bool:
    """Whether two are to reach each other."""
    return one.network == other.network


class Cast:
    """Who plays which part: VMs with a partner in their own virtual subnet, so that later packets reach them.

    Skips the test where not two networks have such VMs.
    """

    def __init__(self, lab: LiveLab, version: int = 4) -> None:
        self.lab = lab
        self.version = version
        self.addresses = {each.name: each.addresses() for each in lab.vms}
        found = lab.pairs(
            lambda one, other: one.vsid == other.vsid, "two VMs of one virtual subnet", version=version
        )
        self.partners: dict[str, list[Vm]] = {}
        for one, other in sorted(found, key=lambda pair: pair[0].host == pair[1].host):  # remote ones first
            self.partners.setdefault(one.name, []).append(other)
        vms = [each for each in lab.vms if each.name in self.partners]
        self.strangers = [(one, other) for one in vms for other in vms if not peers(one, other)]
        lab.require(self.strangers, "no two networks with two VMs of one virtual subnet each")

    def address(self, vm: Vm) -> str:
        """A VM's address of the version."""
        return next(text for text in self.addresses[vm.name] if (":" in text) == (self.version == 6))

    def of_network(self, vm: Vm) -> set[str]:
        """All addresses of a VM's network."""
        return {text for each in self.lab.vms if peers(vm, each) for text in self.addresses[each.name]}

    def one_each(self, pairs: list[Pair]) -> list[Pair]:
        """For each sender one pair, with a VM on its own host if there is one, and one with a remote VM."""
        near = {one.name: (one, other) for one, other in pairs if one.host == other.host}
        far = {one.name: (one, other) for one, other in pairs if one.host != other.host}
        return [*near.values(), *far.values()]

    def fence(self, seen: Watch, one: Vm, other: Vm) -> None:
        """A later packet of ``one`` reaches ``other``, both of one virtual subnet."""
        mark = token()
        frame = one.frame(other, mark, self.version)
        what = f"a later packet of {one}"
        seen.wait(other.point, mark, lambda: one.send(frame), outgoing=False, what=what)

    def fences(self, seen: Watch, one: Vm, other: Vm) -> None:
        """Later packets have come through: of ``one`` to a partner, and to ``other`` from one of its own."""
        self.fence(seen, one, self.partners[one.name][0])
        self.fence(seen, self.partners[other.name][0], other)


def check_stays_inside(lab: LiveLab, seen: Watch, one: Vm, mark: bytes) -> None:
    """The packet has left ``one``; on cables it is in its own network's VSIDs, and no stranger has it."""
    own = {each.vsid for each in lab.vms if peers(one, each)}
    assert seen.count(one.point, mark, outgoing=True) == 1, f"{one} has not sent it"
    for frame in seen.frames("cable:*", mark):
        found = frame.nvgre
        vsid = found.vsid if found else 0
        assert vsid in own, f"a packet of {one} (VSID {one.vsid}) has VSID {vsid} at {frame.point}"
    for each in lab.vms:
        if not peers(one, each):
            assert not seen.count(each.point, mark), f"{each} of {each.network} got a packet of {one}"


@VERSIONS
def test_an_address_of_another_network(lab: LiveLab, version: int) -> None:
    """A packet to an address that only another network has: to that VM's MAC, and to the gateway's."""
    cast = Cast(lab, version)
    pairs = [(one, other) for one, other in cast.strangers if cast.address(other) not in cast.of_network(one)]
    lab.require(pairs, "no address that only one of two networks has")
    with lab.capture("vm:*", "cable:*") as seen:
        for one, other in cast.one_each(pairs):
            address = cast.address(other)
            marks = {other.mac: token()}
            if one.vsid:
                marks[one.gateway_mac()] = token()
            one.send(*(one.frame(address, mark, version, mac=mac) for mac, mark in marks.items()))
            cast.fences(seen, one, other)
            for mark in marks.values():
                check_stays_inside(lab, seen, one, mark)


@VERSIONS
def test_equal_addresses(lab: LiveLab, version: int) -> None:
    """A packet to an address that two networks have reaches the VM of the sender's own, and that alone."""
    cast = Cast(lab, version)
    twins = [(one, other) for one, other in cast.strangers if cast.address(one) == cast.address(other)]
    lab.require(twins, "no address that two networks have")
    with lab.capture("vm:*", "cable:*") as seen:
        for target, twin in twins:
            one = cast.partners[target.name][0]
            trip = journey.follow(lab, one, target, version)
            cast.fence(seen, cast.partners[twin.name][0], twin)
            sent = trip.arrived[0].inner
            assert seen.count(target.point, sent), "the capture of this test has missed it"
            assert not seen.count(twin.point, sent), f"{twin} of {twin.network} got it: {trip}"


def test_the_mac_of_a_vm_of_another_network(lab: LiveLab) -> None:
    """A packet to a partner's address under the MAC of a VM of another network: the address decides."""
    cast = Cast(lab)
    with lab.capture("vm:*", "cable:*") as seen:
        for one, other in cast.one_each(cast.strangers):
            mark = token()
            one.send(one.frame(cast.address(cast.partners[one.name][0]), mark, mac=other.mac))
            cast.fences(seen, one, other)
            check_stays_inside(lab, seen, one, mark)


def test_broadcasts(lab: LiveLab) -> None:
    """A broadcast stays in its network."""
    cast = Cast(lab)
    with lab.capture("vm:*", "cable:*") as seen:
        for one, other in cast.one_each(cast.strangers):
            mark = token()
            packet = frames.udp(cast.address(one), "255.255.255.255", mark)
            one.send(frames.ethernet(frames.BROADCAST, frames.mac(one.mac), frames.TYPE_IPV4, packet))
            cast.fences(seen, one, other)
            check_stays_inside(lab, seen, one, mark)


def test_nobody_answers_for_another_network(lab: LiveLab) -> None:
    """All VMs, all addresses, by the VMs' kernels: no answer and no question from another network."""
    from testbed.lab.check import check

    Cast(lab)
    found = check(lab.lab)
    networks = {vm.name: {vnic.network for vnic in vm.vnics} for vm in lab.lab.plan.vms}
    wrong = [
        each
        for each in found["problems"]
        if any(networks[name].isdisjoint(networks[each["from"]]) for name in each["answered_by"])
    ]
    assert wrong == []
    assert found["leaks"] == []
