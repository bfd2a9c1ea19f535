"""A broadcast reaches each VM of its subnet once, by a copy for each host that has any, or by a PA group."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest

from testbed.conformance import frames
from testbed.testing import journey
from testbed.testing.vm import token

if TYPE_CHECKING:
    from testbed.testing.lab import LiveLab
    from testbed.testing.vm import Vm
    from testbed.testing.watch import Frame, Watch
    from testbed.topology.schema import Topology

KINDS = ["broadcast", "ipv4-multicast", "ipv6-multicast"]
EACH_KIND = pytest.mark.parametrize("kind", KINDS)
GROUPS = {"broadcast": "255.255.255.255", "ipv4-multicast": "239.77.0.1", "ipv6-multicast": "ff02::1"}
PA_GROUPS = {4: "239.255.77.0", 6: "ff05::7700"}  # administratively scoped (RFC 2365), site-local (RFC 4291)


def with_groups(topology: Topology) -> Topology:
    """Every virtual subnet has a PA group: its own, or one of ours."""
    first = ipaddress.ip_address(PA_GROUPS[ipaddress.ip_network(topology.fabric.pa_pool).version])
    groups = (str(first + number) for number in range(1, 1 << 8))
    networks = [
        msgspec.structs.replace(
            network,
            subnets=[
                msgspec.structs.replace(subnet, multicast=subnet.multicast or next(groups))
                for subnet in network.subnets
            ],
        )
        for network in topology.networks
    ]
    return msgspec.structs.replace(topology, networks=networks)


class Cast(NamedTuple):
    """A sender, the other VMs of its virtual subnet, which are not all on its host, and everybody else."""

    one: Vm
    others: list[Vm]
    strangers: list[Vm]

    @property
    def far(self) -> dict[str, Vm]:
        """One VM of the subnet for each other host that has any."""
        return {each.host: each for each in self.others if each.host != self.one.host}


def casts(lab: LiveLab, kind: str, *, group: bool) -> list[Cast]:
    """For each virtual subnet with VMs on several hosts one. Skips the test where there is none."""
    version = 6 if kind == "ipv6-multicast" else 4
    lab.require(not any(host.is_faulty for host in lab.hosts), "cables that lose or double frames")
    grouped = {
        subnet.vsid: bool(subnet.multicast) for network in lab.lab.plan.networks for subnet in network.subnets
    }
    pairs = lab.pairs(
        lambda one, other: (
            bool(one.vsid)
            and one.vsid == other.vsid
            and one.host != other.host
            and grouped[one.vsid] == group
            and all(host.is_r2 for host in lab.hosts)
        ),
        f"virtual subnet {'with' if group else 'without'} a PA group and with VMs on two hosts of 2012 R2",
        version=version,
    )
    firsts = {one.vsid: one for one, _ in reversed(pairs)}.values()
    return [
        Cast(
            one,
            [each for each in lab.vms if each.vsid == one.vsid and each.name != one.name],
            [each for each in lab.vms if each.vsid != one.vsid],
        )
        for one in firsts
    ]


def to_all(one: Vm, kind: str, mark: bytes) -> bytes:
    """A frame of one VM for everybody of its subnet."""
    group = GROUPS[kind]
    version = 6 if ":" in group else 4
    mac = frames.BROADCAST if kind == "broadcast" else frames.group_mac(group)
    ethertype = frames.TYPE_IPV6 if version == 6 else frames.TYPE_IPV4
    return frames.ethernet(mac, frames.mac(one.mac), ethertype, frames.udp(one.address(version), group, mark))


def spread(cast: Cast, seen: Watch, kind: str) -> bytes:
    """The token of one such frame, once all that will come of it has come."""
    version = 6 if kind == "ipv6-multicast" else 4
    ready = [each for each in cast.others if each.has(version)]
    for each in ready:  # from here on the hosts know each other's PA addresses
        journey.fence(seen, cast.one, each, version)
    mark = token()
    cast.one.send(to_all(cast.one, kind, mark))
    for each in cast.others:
        seen.wait(each.point, mark, outgoing=False, what=f"the {kind} of {cast.one}")
    for each in ready:
        journey.fence(seen, cast.one, each, version)
    return mark


def check_ends(seen: Watch, cast: Cast, mark: bytes) -> None:
    """It left once, each VM of the subnet has it once, unchanged, and nobody else."""
    (left,) = seen.frames(cast.one.point, mark, outgoing=True)
    for each in cast.others:
        got = seen.frames(each.point, mark, outgoing=False)
        assert len(got) == 1, f"{each} on {each.host} got the frame of {cast.one} {len(got)} times"
        assert got[0].data == left.data, f"{each} got another frame than {cast.one} sent"
    for each in cast.strangers:
        assert not seen.count(each.point, mark), f"{each} of VSID {each.vsid} got a frame of {cast.one}"


def check_cables(lab: LiveLab, seen: Watch, cast: Cast, mark: bytes, *, group: bool) -> list[Frame]:
    """One copy to each host with VMs of the subnet and none to others; what the sender's host has sent.

    What is for a group comes back to another NIC of the sender's host, which is a member as well.
    """
    for host in lab.hosts:
        number = seen.count(host.cables, mark, outgoing=True)
        wanted = int(host.name in cast.far)
        if host.name == cast.one.host:
            wanted = number if group else 0
        assert number == wanted, (
            f"{number} copies of the frame of {cast.one} on the cables to {host}, not {wanted}"
        )
        if host.name != cast.one.host:
            assert not seen.count(host.cables, mark, outgoing=False), f"{host} has sent it on"
    sent = seen.frames(lab.host(cast.one.host).cables, mark, outgoing=False)
    vsids = {frame.nvgre.vsid if frame.nvgre else 0 for frame in sent}
    assert vsids == {cast.one.vsid}, f"VSIDs on the cables of {cast.one.host}: {vsids}"
    sources = {frame.nvgre.source for frame in sent if frame.nvgre}
    assert sources <= lab.host(cast.one.host).provider_addresses(cast.one.vsid)
    return sent


@EACH_KIND
def test_a_copy_for_each_host(lab: LiveLab, kind: str) -> None:
    """Without a PA group: one to a PA of each host with VMs of the subnet, none to any other."""
    for cast in casts(lab, kind, group=False):
        with lab.capture("vm:*", "cable:*") as seen:
            mark = spread(cast, seen, kind)
        sent = check_cables(lab, seen, cast, mark, group=False)
        check_ends(seen, cast, mark)
        found = sorted(frame.nvgre.destination for frame in sent if frame.nvgre)
        for name in cast.far:
            own = lab.host(name).provider_addresses(cast.one.vsid)
            assert len(own.intersection(found)) == 1, f"copies to {found}; {name} has {own}"
        assert len(found) == len(cast.far), f"copies to {found}, for {', '.join(cast.far)}"


@pytest.mark.topology(change=with_groups)
@EACH_KIND
def test_one_packet_to_the_group(lab: LiveLab, kind: str) -> None:
    """With a PA group: one packet to it leaves the host, and reaches the hosts that have joined."""
    groups = {
        subnet.vsid: subnet.multicast for network in lab.lab.plan.networks for subnet in network.subnets
    }
    for cast in casts(lab, kind, group=True):
        with lab.capture("vm:*", "cable:*") as seen:
            mark = spread(cast, seen, kind)
        sent = check_cables(lab, seen, cast, mark, group=True)
        check_ends(seen, cast, mark)
        found = [frame.nvgre.destination for frame in sent if frame.nvgre]
        assert found == [groups[cast.one.vsid]], f"to PAs {found}, not once to {groups[cast.one.vsid]}"
        mac = frames.group_mac(groups[cast.one.vsid])
        assert sent[0].data[:6] == mac, f"to MAC {sent[0].data[:6].hex(':')}, not {mac.hex(':')}"
