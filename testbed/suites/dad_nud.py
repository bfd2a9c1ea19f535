"""Duplicate address detection and neighbor unreachability detection of the VMs.

Who asks everybody for an address that a record has is answered on its own host; who asks a neighbor
directly, whether it is still there, reaches the neighbor itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from testbed.conformance import frames
from testbed.namespaces import in_netns
from testbed.testing import addresses, journey, neighbors
from testbed.testing.vm import token
from testbed.testing.waiting import until
from testbed.wiring import guest, sysctl
from testbed.wiring import neighbors as kernel

if TYPE_CHECKING:
    from testbed.testing.lab import LiveLab, Pair
    from testbed.testing.vm import Vm
    from testbed.testing.watch import Watch

VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
_IGNORE_ALL = 8  # of arp_ignore: answer for no local address


def pair(lab: LiveLab, version: int) -> Pair:
    """Two VMs of one virtual subnet on different hosts of 2012 R2, whose addresses are planned."""

    def fits(one: Vm, other: Vm) -> bool:
        planned = any((":" in text) == (version == 6) for text in other.planned.addresses)
        near = bool(one.vsid) and one.vsid == other.vsid and one.host != other.host
        return near and planned and lab.host(one.host).is_r2 and lab.host(other.host).is_r2

    return lab.pairs(fits, "two VMs of one virtual subnet on different hosts of 2012 R2", version=version)[0]


def asked_until_answered(seen: Watch, one: Vm, target: str) -> neighbors.Message:
    """The answer to a duplicate probe of ``one`` by hand."""
    probe = frames.duplicate_probe(frames.mac(one.mac), target)
    what = f"an answer to the duplicate probe of {one} for {target}"
    frame = seen.wait(one.point, neighbors.tells(target), lambda: one.send(probe), outgoing=False, what=what)
    found = neighbors.parse(frame.data)
    assert found
    return found


def check_ends_in_the_switch(lab: LiveLab, seen: Watch, one: Vm, other: Vm, target: str) -> None:
    """The question has left ``one``, and is on no cable and at no other VM."""
    probes = neighbors.probes(target, one.mac)
    assert seen.count(one.point, probes, outgoing=True), f"{one} has not asked for {target}"
    for host in lab.hosts:
        assert not seen.count(host.cables, probes), f"the question for {target} is on the cables of {host}"
    assert not seen.count(other.point, probes), f"the question for {target} has reached {other}"


@VERSIONS
def test_a_duplicate_probe_is_answered_by_the_switch(lab: LiveLab, version: int) -> None:
    """The probe ends on the VM's own host, which answers with the MAC of the holder."""
    one, other = pair(lab, version)
    with lab.capture("vm:*", "cable:*") as seen:
        found = asked_until_answered(seen, one, other.address(version))
        journey.fence(seen, one, other, version)
        check_ends_in_the_switch(lab, seen, one, other, other.address(version))
    assert found.mac == other.mac, f"{found.target} is at {found.mac}, not at {other}"


def test_the_kernel_finds_an_address_taken(lab: LiveLab) -> None:
    """IPv6 duplicate detection of the VM's kernel: it does not use what another VM has."""
    one, other = pair(lab, 6)
    target = other.address(6)
    with lab.capture("vm:*", "cable:*") as seen, taking(one, f"{target}/128"):
        entry = until(lambda: settled(one, target), f"duplicate detection of {target} at {one} has ended")
        assert entry
        assert entry["duplicate"], f"the kernel of {one} uses {target}, which is {other}'s"
        seen.wait(one.point, neighbors.tells(target, other.mac), outgoing=False, what="the switch's answer")
        journey.fence(seen, one, other, 6)
        check_ends_in_the_switch(lab, seen, one, other, target)


@contextlib.contextmanager
def taking(vm: Vm, address: str) -> Iterator[None]:
    """The kernel is given an address, for the ``with`` block."""
    kernel.add_address(vm.netns, vm.interface, address)
    try:
        yield
    finally:
        kernel.remove_address(vm.netns, vm.interface, address)


def settled(vm: Vm, address: str) -> dict[str, Any] | None:
    """The kernel's entry of an address, once duplicate detection has ended."""
    for entry in guest.addresses(vm.netns)[vm.interface]:
        if entry["address"].partition("/")[0] == address and (entry["duplicate"] or not entry["tentative"]):
            return entry
    return None


@VERSIONS
def test_no_answer_for_what_nobody_else_has(lab: LiveLab, version: int) -> None:
    """A free address, and the VM's own: no answer, so that it may use them."""
    one, other = pair(lab, version)
    targets = [addresses.free(lab, one.vsid, version), one.address(version)]
    with lab.capture(*journey.points(lab, one, other)) as seen:
        # the answer to the last question comes after those to the earlier ones, if there were any
        one.send(*(frames.duplicate_probe(frames.mac(one.mac), target) for target in targets))
        asked_until_answered(seen, one, other.address(version))
        for target in targets:
            assert seen.count(one.point, neighbors.probes(target, one.mac), outgoing=True) == 1
            assert not seen.count(one.point, neighbors.tells(target), outgoing=False), (
                f"{one} is told that another machine has {target}"
            )


@VERSIONS
def test_a_neighbor_says_itself_that_it_is_there(lab: LiveLab, version: int) -> None:
    """The kernel's unicast question is carried to the neighbor, and the neighbor's answer back."""
    one, other = pair(lab, version)
    target, back = other.address(version), one.address(version)
    with lab.capture(*journey.points(lab, one, other)) as seen:
        asks = neighbors.asks(target, one.mac, to=other.mac)

        def probe() -> None:
            kernel.probe_neighbor(one.netns, one.interface, target, other.mac)

        what = f"a unicast question of {one}"
        seen.wait(other.point, asks, probe, outgoing=False, what=what)
        until(lambda: is_reachable(one, target), f"the kernel of {one} finds {target} reachable")
    tells = neighbors.tells(target, other.mac, to=one.mac)
    for trip in (journey.of(lab, seen, one, other, asks), journey.of(lab, seen, other, one, tells)):
        for hop in (trip.left, trip.from_host, trip.to_host, trip.arrived):
            assert hop, f"NUD of {back} for {target}: {trip}"
        on_cables = [*trip.from_host, *trip.to_host]
        assert {each.nvgre.vsid if each.nvgre else 0 for each in on_cables} == {one.vsid}


def is_reachable(vm: Vm, address: str) -> bool:
    """Whether the VM's kernel has heard of a neighbor."""
    found = kernel.neighbor(vm.netns, vm.interface, address)
    return found is not None and found[1] == "REACHABLE"


def test_nobody_answers_for_a_neighbor_that_is_silent(lab: LiveLab) -> None:
    """The unicast question arrives, and is not answered in the neighbor's place: NUD has to find that out."""
    one, other = pair(lab, 4)
    target = other.address()
    question = frames.arp((frames.mac(one.mac), one.address()), target, frames.mac(other.mac))
    with lab.capture(*journey.points(lab, one, other)) as seen, silent(other):
        asks = neighbors.asks(target, one.mac, to=other.mac)
        what = f"a unicast question of {one}"
        seen.wait(other.point, asks, lambda: one.send(question), outgoing=False, what=what)
        mark = token()
        frame = other.frame(one, mark)
        seen.wait(one.point, mark, lambda: other.send(frame), outgoing=False, what=f"a packet of {other}")
        answers = seen.count(one.point, neighbors.tells(target), outgoing=False)
        everybody = frames.BROADCAST.hex(":")  # what the kernel asks everybody, the switch answers
        asked = seen.count(one.point, neighbors.asks(target, one.mac, to=everybody), outgoing=True)
    assert answers <= asked, f"somebody has answered {one} in the place of {other}"


@contextlib.contextmanager
def silent(vm: Vm) -> Iterator[None]:
    """The VM's kernel answers no ARP request, for the ``with`` block."""
    name = f"ipv4/conf/{vm.interface}/arp_ignore"
    with in_netns(vm.netns):
        before = sysctl.read(name)
        sysctl.write({name: _IGNORE_ALL})
    try:
        yield
    finally:
        with in_netns(vm.netns):
            sysctl.write({name: before})
