"""VMs of a network reach each other: on one host, across hosts, across subnets, over IPv4 and IPv6."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from testbed.conformance import probes
from testbed.testing import journey
from testbed.testing.pairs import apart, kernels_know_a_way, same_subnet, talking
from testbed.testing.vm import token

if TYPE_CHECKING:
    from testbed.testing.lab import LiveLab, Pair

BYTES = 1 << 20
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


def one_each(pairs: list[Pair]) -> Iterator[Pair]:
    """For each sender its first pair, so that everybody sends once."""
    yield from {one.name: (one, other) for one, other in reversed(pairs)}.values()


@VERSIONS
def test_across_hosts(lab: LiveLab, version: int) -> None:
    """In NVGRE of its own VSID, from PA to PA."""
    for one, other in one_each(apart(lab, version)):
        trip = journey.follow(lab, one, other, version)
        assert trip.arrived[0].data == trip.left[0].data, f"changed on its way: {trip}"


@VERSIONS
def test_across_subnets(lab: LiveLab, version: int) -> None:
    """Routed in the sender's switch: NVGRE of the destination's VSID, from the MAC of its gateway."""
    pairs = lab.pairs(
        lambda one, other: bool(one.network) and one.network == other.network and one.vsid != other.vsid,
        "two virtual subnets of one network",
        version=version,
    )
    for one, other in one_each(pairs):
        trip = journey.follow(lab, one, other, version)
        wanted = bytes.fromhex((other.mac + other.gateway_mac()).replace(":", ""))
        assert trip.arrived[0].data[:12] == wanted, f"MACs {trip.arrived[0].data[:12].hex(':')}: {trip}"


@pytest.mark.topology(exclusive=True)
def test_on_one_host(lab: LiveLab) -> None:
    """By way of the switch alone, never of a cable. A lab without such a pair is given one more VM."""
    one = lab.pairs(same_subnet, "two VMs of one virtual subnet")[0][0]
    near = [
        each for each in lab.vms if same_subnet(one, each) and each.host == one.host and each.name != one.name
    ]
    if near:
        journey.follow(lab, one, near[0], 4)
        return
    with lab.added_vm(one.host, one.vsid) as other:
        journey.follow(lab, one, other, 4)
        journey.follow(lab, other, one, 4)


@VERSIONS
def test_pings_between_kernels(lab: LiveLab, version: int) -> None:
    """The request leaves and arrives, the answer comes back, and both are on the cables between."""
    one, other = talking(lab, version)[0]
    mark = token()
    with lab.capture(*journey.points(lab, one, other)) as seen:
        assert one.ping(other, version, token=mark), f"{other} does not answer {one}"
    request, answer = journey.of(lab, seen, one, other, mark), journey.of(lab, seen, other, one, mark)
    for trip in (request, answer):
        assert trip.left, trip
        assert trip.from_host, trip
        assert trip.to_host, trip
        assert trip.arrived, trip


@VERSIONS
def test_streams_between_kernels(lab: LiveLab, version: int) -> None:
    """A megabyte over TCP arrives whole, for a pair of every network."""
    pairs = lab.pairs(
        lambda one, other: same_subnet(one, other) and kernels_know_a_way(one, other, version),
        "two VMs of one virtual subnet whose kernels have routes,",
        version=version,
    )
    for one, other in {one.network: (one, other) for one, other in reversed(pairs)}.values():
        assert probes.transfer(one, other, BYTES, version) == BYTES, f"{one} -> {other}"


def test_everybody_is_reached_by_its_own_network(lab: LiveLab) -> None:
    """All VMs, all addresses: who must answer does, by the VMs' kernels."""
    from testbed.lab.check import check

    silent = [
        each
        for each in check(lab.lab)["problems"]
        if each["expected"] not in (None, *each["answered_by"]) and both_know_a_way(lab, each)
    ]
    assert silent == []


def both_know_a_way(lab: LiveLab, problem: dict[str, Any]) -> bool:
    """Whether the kernels of a question's two ends have routes."""
    version = 6 if ":" in problem["address"] else 4
    one, other = lab.vm(problem["from"]), lab.vm(problem["expected"])
    return one.has_route(problem["address"]) and other.has_route(one.address(version))
