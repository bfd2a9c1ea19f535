"""An aggregate of a switch's ports: what goes where, what members that fail do, LACP with a host."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from support.aggregate_lab import AGG, MTU, SWITCH, AggregateLab, aggregate_lab
from support.frames import TCP, UDP, encapsulated, ethernet, ip, ipv4, mac, naive_checksum, ports, vnet
from testbed.namespaces import in_netns
from testbed.nic.aggregate import Aggregate, choose
from testbed.nic.features import CABLE_HOST, set_features
from testbed.packets import datagram, igmp
from testbed.wiring.aggregate import add_aggregate, remove_aggregate
from testbed.wiring.fabric import bridge_ports

pytestmark = pytest.mark.netns
PLAIN, TEAM, OTHER = (mac(f"00:15:5d:00:00:0{number}") for number in (1, 2, 3))
BROADCAST = b"\xff" * 6


def nvgre(destination: bytes, source: bytes, flow: int) -> bytes:
    inner = ethernet(OTHER, PLAIN, 0x0800, ipv4("10.0.0.5", "10.0.0.6", UDP, ports(flow, 80) + bytes(60)))
    return encapsulated(inner, 5001, "192.168.7.1", "192.168.7.2", destination, source, flow)


@pytest.fixture(params=[2, 3, 4])
def lab(request: pytest.FixtureRequest) -> Iterator[AggregateLab]:
    with aggregate_lab(request.param) as made:
        yield made


@contextlib.contextmanager
def active(lab: AggregateLab) -> Iterator[Aggregate]:
    """The aggregate, all of whose members are active."""
    parts = lab.aggregate()
    made = Aggregate(parts.descriptors[0], parts.device, parts.ears, parts.members)
    made.write(parts.members)
    try:
        yield made
    finally:
        made.close()


def names(lab: AggregateLab, aggregate: Aggregate, frames: list[bytes]) -> list[list[str]]:
    """The NICs at which the frames should arrive."""
    by_index = dict(zip(aggregate.members, lab.nics, strict=True))
    chosen = [choose(frame, aggregate.active()) for frame in frames]
    return [[by_index[member]] if member else [] for member in chosen]


def test_frames_take_the_member_of_the_rule_once(lab: AggregateLab) -> None:
    with active(lab) as aggregate:
        assert lab.reached("nic1", [nvgre(PLAIN, TEAM, 0)]) == [["nic0"]]  # the switch learns TEAM
        frames = [nvgre(TEAM, PLAIN, flow) for flow in range(64)]
        frames += [ethernet(BROADCAST, PLAIN, 0x0806, bytes([1]) * 46)]
        frames += [ethernet(mac("01:00:5e:01:02:03"), PLAIN, 0x0800, bytes([2]) * 46)]
        expected = names(lab, aggregate, frames)
        assert lab.reached("nic0", frames) == expected
        assert {nic for each in expected for nic in each} == set(lab.nics)
        sent = sum(each["sent"] for each in aggregate.counters().values())
        assert sent == len(frames)
        assert aggregate.drops() == {"no-member": 0, "stranger": 0}


def test_frames_of_every_member_reach_the_plain_port_and_no_member(lab: AggregateLab) -> None:
    with active(lab) as aggregate:
        for nic in lab.nics:
            frames = [nvgre(PLAIN, TEAM, flow) for flow in range(8)]
            frames.append(ethernet(BROADCAST, TEAM, 0x0806, nic.encode().ljust(46)))
            assert lab.reached(nic, frames) == [["nic0"]] * 9
        assert {each["received"] for each in aggregate.counters().values()} == {9}
        assert sorted(bridge_ports(lab.fabric)[SWITCH]) == ["p0", AGG]


def test_no_active_member(lab: AggregateLab) -> None:
    with active(lab) as aggregate:
        aggregate.write([])
        assert lab.reached("nic0", [nvgre(BROADCAST, PLAIN, 1)]) == [[]]
        assert lab.reached("nic1", [nvgre(PLAIN, TEAM, 1)]) == [[]]
        assert aggregate.drops()["no-member"] == 1
        assert aggregate.counters()[aggregate.members[0]]["inactive"] == 1


def test_groups_are_snooped_on_the_aggregate() -> None:
    """A report by one member counts for the aggregate: a group's frame takes the member of the rule, once."""
    group, other = (mac(f"01:00:5e:01:02:0{number}") for number in (3, 4))
    with aggregate_lab(3, snooping=True) as lab, active(lab) as aggregate:
        lab.received(0.5)  # a new querier has everything flooded for 0.1 s
        report = igmp.build_report(ip("192.168.7.2"), [igmp.Record(4, ip("239.1.2.3"))])
        lab.taps["nic2"].send(datagram.build(report, mac("01:00:5e:00:00:16"), TEAM))
        lab.received()
        frames = [
            ethernet(to, PLAIN, 0x0800, ipv4("192.168.7.1", f"239.1.2.{to[-1]}", UDP, ports(flow, 9)))
            for to in (group, other)
            for flow in range(16)
        ]
        assert lab.reached("nic0", frames) == [*names(lab, aggregate, frames[:16]), *[[]] * 16]
        assert lab.reached("nic3", [frames[0]]) == [[]]  # the group's only member is behind that port itself


def inject(lab: AggregateLab, frame: bytes, size: int = 1000) -> None:
    """Send a super-packet by nic0, segments of ``size`` bytes."""
    with in_netns(lab.host):
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sender:
        sender.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
        sender.bind(("nic0", 0))
        sender.send(vnet(34, 16, gso_type=1, gso_size=size, header=54) + frame)


@pytest.mark.parametrize("wire", ["frames", "aggregated"])
def test_super_packets_pass_whole_and_the_member_cuts_them(wire: str) -> None:
    """A TCP packet of 10 segments to a member, by a packet socket with a vnet header."""
    with aggregate_lab(2, wire) as lab, active(lab) as aggregate:  # type: ignore[arg-type]
        lab.reached("nic1", [nvgre(PLAIN, TEAM, 0)])
        with in_netns(lab.host):
            set_features("nic0", CABLE_HOST["aggregated"])  # so that nothing is cut before the switch
            for nic in lab.nics:
                set_features(nic, {"rx-gro": False})  # the frames as they come, not joined again
        payload = bytes(range(250)) * 40
        segment = ports(1, 80) + bytes(8) + b"\x50\x10\xff\xff\0\0\0\0"
        frame = ethernet(TEAM, PLAIN, 0x0800, ipv4("10.0.0.5", "10.0.0.6", TCP, segment + payload))
        pseudo = frame[26:34] + b"\0\6" + (20 + len(payload)).to_bytes(2, "big")
        unfinished = (~naive_checksum(pseudo) & 0xFFFF).to_bytes(2, "big")
        frame = frame[:50] + unfinished + frame[52:]
        expected = names(lab, aggregate, [frame])[0][0]
        inject(lab, frame)
        came = lab.received()
        lengths = [len(each) for each in came[expected]]
        assert lengths == ([54 + 1000] * 10 if wire == "frames" else [54 + 10_000])
        assert sum(each["sent"] for each in aggregate.counters().values()) == 1


def test_removed_it_leaves_ports_as_they_were(lab: AggregateLab) -> None:
    with active(lab):
        pass
    remove_aggregate(lab.fabric, SWITCH, AGG, lab.ports)
    assert {name: sorted(found) for name, found in bridge_ports(lab.fabric).items()} == {
        SWITCH: ["p0", *lab.ports]
    }
    with in_netns(lab.fabric), IPRoute() as route:
        assert {link.get("ifname") for link in route.get_links()} == {"lo", SWITCH, "p0", *lab.ports}
    assert lab.reached("nic0", [nvgre(BROADCAST, PLAIN, 1)]) == [lab.nics]
    remove_aggregate(lab.fabric, SWITCH, AGG, lab.ports)  # once more
    with active(lab):
        assert len(lab.reached("nic0", [nvgre(BROADCAST, PLAIN, 2)])[0]) == 1


def test_what_fails_leaves_the_ports_in_the_bridge(lab: AggregateLab) -> None:
    with pytest.raises(LookupError, match="interface p9 is not there"):
        add_aggregate(lab.fabric, SWITCH, AGG, [*lab.ports, "p9"], MTU)
    with pytest.raises(ValueError, match="9 ports are more than the 8"):
        add_aggregate(lab.fabric, SWITCH, AGG, ["p1"] * 9, MTU)
    assert sorted(bridge_ports(lab.fabric)[SWITCH]) == ["p0", *lab.ports]
    with in_netns(lab.fabric), IPRoute() as route:
        assert not route.link_lookup(ifname=AGG)


def test_what_fails_late_is_taken_back(lab: AggregateLab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, "no more descriptors")

    before = set(Path("/proc/self/fd").iterdir())
    monkeypatch.setattr("testbed.wiring.aggregate.open_link_watch", refuse)
    with pytest.raises(OSError, match="no more descriptors"):
        lab.aggregate()
    assert sorted(bridge_ports(lab.fabric)[SWITCH]) == ["p0", *lab.ports]
    with in_netns(lab.fabric), IPRoute() as route:
        assert not route.link_lookup(ifname=AGG)
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert lab.reached("nic0", [nvgre(BROADCAST, PLAIN, 1)]) == [lab.nics]
