"""A VM gets an address from a DHCP server on another host, and every host that needs to know it does.

The suite adds both VMs to the lab: a server (dnsmasq) and a client that has no address (dhclient).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import pytest

from testbed.testing import addresses, dhcp, journey, learning
from testbed.testing.waiting import until

if TYPE_CHECKING:
    from testbed.testing.lab import LiveLab
    from testbed.testing.vm import Vm
    from testbed.testing.watch import Frame, Watch

VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


class Cast(NamedTuple):
    """A server, and a client on another host that has no address yet. length: of the subnet's prefix."""

    server: Vm
    client: Vm
    length: int


@contextlib.contextmanager
def cast(lab: LiveLab, version: int) -> Iterator[Cast]:
    """Both, for the ``with`` block. Skips the test where that can't be."""
    dhcp.require()
    lab.require(lab.lab.plan.vmm, "no VMM, which would tell the hosts of a new VM")
    hosts = learning.hosts(lab)
    lab.require(len(hosts) > 1, "no two hosts that learn addresses")
    vsid = subnet(lab, version)
    first, last = (addresses.free(lab, vsid, version, number) for number in (0, 7))
    with lab.added_vm(hosts[0].name, vsid) as server, lab.added_vm(hosts[1].name, vsid, learn=True) as client:
        dhcp.serve(server, first, last)
        yield Cast(server, client, addresses.prefix(lab, vsid, version).prefixlen)


def subnet(lab: LiveLab, version: int) -> int:
    """A virtual subnet whose VMs all have planned addresses, as it has no server then; else the first."""
    fits = [
        subnet.vsid
        for network in lab.lab.plan.networks
        for subnet in network.subnets
        if any((":" in prefix) == (version == 6) for prefix in subnet.prefixes)
    ]
    lab.require(fits, f"no virtual subnet with an IPv{version} prefix")
    others = {each.vsid for each in lab.vms if not each.planned.addresses}
    return next((vsid for vsid in fits if vsid not in others), fits[0])


@VERSIONS
@pytest.mark.topology(exclusive=True)
def test_a_lease_from_another_host(lab: LiveLab, version: int) -> None:
    """Each of the four messages leaves a VM, is NVGRE of its VSID on the cables, and arrives."""
    with cast(lab, version) as (server, client, length):
        with lab.capture("vm:*", "cable:*") as seen, dhcp.client(client, version, length):
            server, address = chosen(lab, seen, server, client, version)
            until(lambda: address in client.addresses(), f"the kernel of {client} has {address}")
        for number, kind in enumerate(dhcp.CONVERSATION[version]):
            one, other = (server, client) if number % 2 else (client, server)
            check_carried(lab, seen, one, other, kind)
        check_stays_inside(lab, seen, client, version)
        learning.known_everywhere(lab, client, address)
        journey.follow(lab, server, client, version)


def chosen(lab: LiveLab, seen: Watch, server: Vm, client: Vm, version: int) -> tuple[Vm, str]:
    """Who has given the client an address (a subnet may have several servers), and which.

    Raises AssertionError, which tells how far the messages between the client and our server came.
    """
    last = dhcp.CONVERSATION[version][-1]

    def gives(frame: Frame) -> bool:
        found = dhcp.parse(frame.data)
        return found is not None and found.kind == last and bool(found.given)

    try:
        frame = seen.wait(
            client.point, gives, outgoing=False, seconds=dhcp.SECONDS, what=f"a lease, by {last},"
        )
    except AssertionError as error:
        told = [str(error)]
        for number, kind in enumerate(dhcp.CONVERSATION[version]):
            one, other = (server, client) if number % 2 else (client, server)
            told.append(f"{kind}: {journey.of(lab, seen, one, other, dhcp.message(kind, one.mac))}")
        raise AssertionError("; ".join(told)) from None
    found = dhcp.parse(frame.data)
    assert found
    giver = next((each for each in lab.vms if (each.mac, each.vsid) == (found.source, client.vsid)), None)
    assert giver, f"the {last} comes from {found.source}, which is no VM's of VSID {client.vsid}"
    return giver, found.given


def check_carried(lab: LiveLab, seen: Watch, one: Vm, other: Vm, kind: str) -> None:
    """A message was at each hop from one VM to the other."""
    trip = journey.of(lab, seen, one, other, dhcp.message(kind, one.mac))
    for hop in (trip.left, trip.arrived):
        assert hop, f"{kind}: {trip}"
    if one.host == other.host:
        return
    sources = lab.host(one.host).provider_addresses(one.vsid)
    for hop in (trip.from_host, trip.to_host):
        assert hop, f"{kind}: {trip}"
        for frame in hop:
            assert frame.nvgre, f"{kind}: no NVGRE at {frame.point}"
            assert frame.nvgre.vsid == one.vsid, f"{kind}: VSID {frame.nvgre.vsid} at {frame.point}"
            assert frame.nvgre.source in sources, f"{kind}: from PA {frame.nvgre.source} at {frame.point}"


def check_stays_inside(lab: LiveLab, seen: Watch, client: Vm, version: int) -> None:
    """Nobody of another virtual subnet has seen what the client asked everybody."""
    for kind in dhcp.CONVERSATION[version][::2]:
        for each in lab.vms:
            if each.vsid != client.vsid:
                heard = seen.count(each.point, dhcp.message(kind, client.mac))
                assert not heard, f"{each} of VSID {each.vsid} got a {kind} of {client}"
