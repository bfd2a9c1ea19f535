"""Where the WNV filter lies among a switch's extensions: amid them (2012 R2), or below the switch (2012).

All hosts have the extensions `capture`, which tells what it has seen, and `payload-filter`, which drops what
bears a pattern inside NVGRE, where it sees NVGRE at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from testbed.conformance import frames
from testbed.testing import journey, nvgre
from testbed.testing.vm import token

if TYPE_CHECKING:
    from testbed.testing.host import Host
    from testbed.testing.lab import LiveLab, Pair
    from testbed.testing.vm import Vm
    from testbed.topology.schema import Topology

CAPTURE, FILTER, REASON = "capture", "payload-filter", "in-nvgre"
PATTERN = b"testbed-suite-extensions"
EXTENSIONS = {
    CAPTURE: {},
    FILTER: {
        "patterns": [{"reason": REASON, "text": PATTERN.decode()}],
        "spaces": ["PA"],
        "directions": ["ingress", "egress"],
    },
}


def as_r2(topology: Topology) -> Topology:
    """All hosts are of 2012 R2, with the extensions."""
    return _with_hosts(topology, wnv="in-switch")


def as_2012(topology: Topology) -> Topology:
    """All hosts are of 2012, with the extensions, and the filter bound to all NICs; nobody learns."""
    changed = _with_hosts(topology, wnv="below-switch", bound=True)
    vms = [msgspec.structs.replace(vm, exec=[]) for vm in topology.vms]  # no broadcast gets anywhere
    return msgspec.structs.replace(changed, vms=vms, learning=False)


def _with_hosts(topology: Topology, wnv: str, *, bound: bool = False) -> Topology:
    from testbed.topology.schema import Extension

    extensions = [Extension(name, settings) for name, settings in EXTENSIONS.items()]
    hosts = [
        msgspec.structs.replace(
            host,
            wnv=wnv,
            extensions=extensions,
            nics=[msgspec.structs.replace(nic, wnv_binding=bound) for nic in host.nics],
        )
        for host in topology.hosts
    ]
    return msgspec.structs.replace(topology, hosts=hosts)


class Sight(NamedTuple):
    """What an extension was shown: at ingress the port or NIC where it came from, at egress where it goes."""

    direction: str
    space: str
    place: str
    vsid: int


def sights(host: Host, mark: bytes) -> list[Sight]:
    """How the capture extension of a host saw the packet with this token, in order."""
    return [
        Sight(
            each["direction"],
            each["space"],
            each["source" if each["direction"] == "ingress" else "destination"],
            each["vsid"],
        )
        for each in seen_by(host)
        if mark.hex() in each["data"]
    ]


def seen_by(host: Host) -> list[dict[str, Any]]:
    """All that the capture extension of a host keeps."""
    found: list[dict[str, Any]] = host.ask("extension", name=CAPTURE)["result"]
    return found


def expected(host: Host, vm: Vm, *, sends: bool, outside: str) -> list[list[Sight]]:
    """What is right, at the host of one end: one of these, as a NIC is any of the host's.

    ``outside``: the space at the side of the NIC.
    """
    inside = Sight("ingress" if sends else "egress", "CA", vm.port, vm.vsid)
    beyond = [Sight("egress" if sends else "ingress", outside, nic.name, vm.vsid) for nic in host.plan.nics]
    return [[inside, each] if sends else [each, inside] for each in beyond]


def remote_pairs(lab: LiveLab) -> list[Pair]:
    """A pair of each network. Skips the test where there is none."""
    pairs = lab.pairs(
        lambda one, other: bool(one.vsid) and one.vsid == other.vsid and one.host != other.host,
        "two VMs of one virtual subnet on different hosts",
    )
    return [*{one.network: (one, other) for one, other in reversed(pairs)}.values()]


def check_sights(lab: LiveLab, outside: str) -> None:
    """A packet goes from host to host, checked at each hop and at both hosts' extensions."""
    for one, other in remote_pairs(lab):
        marks: list[bytes] = []

        def make(mark: bytes, one: Vm = one, other: Vm = other, marks: list[bytes] = marks) -> bytes:
            marks.append(mark)
            return one.frame(other, mark)

        journey.take(lab, one, other, make)  # from here on the PA addresses are known
        trip = journey.take(lab, one, other, make)
        journey.check(lab, trip)
        for vm in (one, other):
            host = lab.host(vm.host)
            found = sights(host, marks[-1])
            right = expected(host, vm, sends=vm is one, outside=outside)
            assert found in right, (
                f"{one} -> {other}: extensions of {host} saw {found}; one of {right} is right"
            )


def send_pattern(lab: LiveLab, one: Vm, other: Vm) -> journey.Journey:
    """The way of a packet with the pattern, once a later one has arrived."""
    mark = PATTERN + token()
    with lab.capture(*journey.points(lab, one, other)) as seen:
        journey.fence(seen, one, other)
        one.send(one.frame(other, mark))
        journey.fence(seen, one, other)
        return journey.of(lab, seen, one, other, mark)


@pytest.mark.topology(change=as_r2)
def test_r2_shows_both_spaces(lab: LiveLab) -> None:
    """From a VM: CA at ingress, NVGRE at egress; from another host: NVGRE at ingress, CA at egress."""
    check_sights(lab, "PA")


@pytest.mark.topology(change=as_r2)
def test_r2_lets_an_extension_drop_nvgre(lab: LiveLab) -> None:
    """What a filter denies at egress in NVGRE has left the VM and is on no cable; it is counted."""
    one, other = remote_pairs(lab)[0]
    host, reason = lab.host(one.host), f"{FILTER}:{REASON}"
    before = host.dropped(reason)
    trip = send_pattern(lab, one, other)
    assert (len(trip.left), trip.from_host, trip.arrived) == (1, [], []), f"the extension drops it: {trip}"
    assert host.dropped(reason) == before + 1


@pytest.mark.topology(change=as_2012)
def test_2012_shows_customer_addresses_only(lab: LiveLab) -> None:
    """CA at ingress and egress in both directions, and nothing else ever; the cables carry NVGRE."""
    check_sights(lab, "CA")
    for host in lab.hosts:
        encapsulated = [
            each
            for each in seen_by(host)
            if each["space"] != "CA" or nvgre.parse(bytes.fromhex(each["data"]))
        ]
        assert not encapsulated, f"extensions of {host} saw {len(encapsulated)} NVGRE packets"


@pytest.mark.topology(change=as_2012)
def test_2012_hides_nvgre_from_an_extension(lab: LiveLab) -> None:
    """The filter that would deny NVGRE lets the packet pass, and it is NVGRE on the cables."""
    one, other = remote_pairs(lab)[0]
    host, reason = lab.host(one.host), f"{FILTER}:{REASON}"
    before = host.dropped(reason)
    trip = send_pattern(lab, one, other)
    journey.check(lab, trip)
    assert host.dropped(reason) == before


@pytest.mark.topology(change=as_2012)
def test_2012_drops_broadcasts_below_the_switch(lab: LiveLab) -> None:
    """Extensions see a broadcast go out; the filter below drops it, and no cable has it."""
    one, other = remote_pairs(lab)[0]
    host, mark = lab.host(one.host), token()
    before = host.dropped("flooded")
    packet = frames.udp(one.address(), "255.255.255.255", mark)
    with lab.capture(*journey.points(lab, one, other)) as seen:
        one.send(frames.ethernet(frames.BROADCAST, frames.mac(one.mac), frames.TYPE_IPV4, packet))
        journey.fence(seen, one, other)
        trip = journey.of(lab, seen, one, other, mark)
    assert (len(trip.left), trip.from_host, trip.arrived) == (1, [], []), trip
    directions = [each.direction for each in sights(host, mark)]
    assert "egress" in directions, f"extensions of {host} saw the broadcast at {directions}"
    assert host.dropped("flooded") > before
