"""Broadcast and multicast over PA groups; copies for each host are in test_switch_replication."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.frames import (
    BROADCAST,
    UDP,
    arp,
    encapsulated,
    ethernet,
    ip,
    ipv4,
    ipv6,
    mac,
    ports,
    solicitation,
)
from support.switch import MemorySwitch, mac_of, nic_mac, pa, policy, records, tables, v4, v6
from testbed.packets import nvgre
from testbed.switch.drops import Drop
from testbed.topology.plan import LookupRecord

ALL = LookupRecord("255.255.255.255", 5001, "ff:ff:ff:ff:ff:ff", "239.1.1.1")
ALL_IPV6 = LookupRecord("ff02::1", 5001, "33:33:00:00:00:01", "239.1.1.1")
MDNS = LookupRecord("224.0.0.251", 5001, "01:00:5e:00:00:fb", "239.1.1.2")
OVER_IPV6 = LookupRecord("224.0.0.252", 5001, "01:00:5e:00:00:fc", "ff15::7")
LEARNER = LookupRecord("0.0.0.0", 5001, "00:15:5d:00:0e:01", pa(2, 5001), type="L2Only")
PAYLOAD = ports(1, 2) + bytes(30)


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch() as made:
        made.apply(policy(lookup_records=(*records(), ALL, ALL_IPV6, MDNS)))
        yield made


def _to(target: str, to: bytes) -> bytes:
    return ethernet(to, mac_of("blue1"), 0x0800, ipv4(v4("blue1"), target, UDP, PAYLOAD))


def _to_ipv6(target: str, to: bytes) -> bytes:
    return ethernet(to, mac_of("blue1"), 0x86DD, ipv6(v6("blue1"), target, UDP, PAYLOAD))


@pytest.mark.parametrize(
    ("frame", "group", "group_mac"),
    [
        (_to("255.255.255.255", BROADCAST), "239.1.1.1", "01:00:5e:01:01:01"),
        (_to("10.0.0.255", BROADCAST), "239.1.1.1", "01:00:5e:01:01:01"),
        (_to("224.0.0.250", mac("01:00:5e:00:00:fa")), "239.1.1.1", "01:00:5e:01:01:01"),
        (_to("224.0.0.251", mac("01:00:5e:00:00:fb")), "239.1.1.2", "01:00:5e:01:01:02"),
        (_to_ipv6("ff02::16", mac("33:33:00:00:00:16")), "239.1.1.1", "01:00:5e:01:01:01"),
    ],
)
def test_one_packet_to_the_group(switch: MemorySwitch, frame: bytes, group: str, group_mac: str) -> None:
    for _ in range(2):
        seen = switch.from_vm("blue1", frame)
        assert not seen.drops
        assert seen.ports == {"blue4": [(bytes(10), frame)]}
        ((_, sent),) = seen.wire
        outer = nvgre.parse(sent)
        assert (outer.source_pa, outer.destination_pa, outer.vsid) == (ip(pa(1, 5001)), ip(group), 5001)
        assert outer.destination_mac == mac(group_mac)
        assert sent[42:] == frame


def test_the_group_can_be_of_the_other_family(switch: MemorySwitch) -> None:
    both = policy().provider_addresses + policy(1, 6).provider_addresses
    switch.apply(policy(lookup_records=(*records(), OVER_IPV6), provider_addresses=both))
    seen = switch.from_vm("blue1", _to("224.0.0.252", mac("01:00:5e:00:00:fc")))
    ((_, sent),) = seen.wire
    outer = nvgre.parse(sent)
    assert (outer.source_pa, outer.destination_pa) == (ip(pa(1, 5001, 6)), ip("ff15::7"))
    assert outer.destination_mac == mac("33:33:00:00:00:07")
    switch.apply(policy(lookup_records=(*records(), OVER_IPV6)))
    seen = switch.from_vm("blue1", _to("224.0.0.252", mac("01:00:5e:00:00:fc")))
    assert seen.wire == []
    assert seen.drops == {("blue1", Drop.NO_PROVIDER_ADDRESS): 1}


def test_each_subnet_has_its_own(switch: MemorySwitch) -> None:
    frame = ethernet(BROADCAST, mac_of("web1"), 0x0800, ipv4(v4("web1"), "255.255.255.255", UDP, PAYLOAD))
    outer = nvgre.parse(switch.from_vm("web1", frame).frame)
    assert outer.destination_pa == ip(pa(2, 5002))


def test_flooded_arp_and_nd_go_to_the_group(switch: MemorySwitch) -> None:
    switch.apply(policy(lookup_records=(*records(), ALL, ALL_IPV6, LEARNER)))
    asked = arp(1, (mac_of("blue1"), v4("blue1")), (bytes(6), "10.0.0.77"), BROADCAST)
    solicited = solicitation("fd00::77", v6("blue1"), mac_of("blue1"))
    for frame in (asked, solicited):
        ((_, sent),) = switch.from_vm("blue1", frame).wire
        assert nvgre.parse(sent).destination_pa == ip("239.1.1.1")
        assert sent[42:] == frame


def test_arp_for_a_group_is_not_answered(switch: MemorySwitch) -> None:
    asked = arp(1, (mac_of("blue1"), v4("blue1")), (bytes(6), "255.255.255.255"), BROADCAST)
    assert switch.from_vm("blue1", asked).dropped(Drop.NO_LOOKUP_RECORD)


@pytest.mark.parametrize(
    ("frame", "right"),
    [
        (_to("224.0.0.250", mac_of("blue2")), "01:00:5e:00:00:fa"),
        (_to("255.255.255.255", mac_of("blue2")), "ff:ff:ff:ff:ff:ff"),
        (_to_ipv6("ff02::16", mac_of("blue2")), "33:33:00:00:00:16"),
    ],
)
def test_a_group_sent_to_a_single_mac_gets_the_groups(switch: MemorySwitch, frame: bytes, right: str) -> None:
    """The destination CA decides, not the frame's MAC."""
    seen = switch.from_vm("blue1", frame)
    assert seen.ports == {"blue4": [(bytes(10), mac(right) + frame[6:])]}
    ((_, sent),) = seen.wire
    assert sent[42:] == mac(right) + frame[6:]


# ---- from the wire ------------------------------------------------------------------------


def _arriving(vsid: int = 5001, group: str = "239.1.1.1", source: str = pa(2, 5001)) -> bytes:
    inner = ethernet(BROADCAST, mac_of("blue2"), 0x0800, ipv4(v4("blue2"), "255.255.255.255", UDP, PAYLOAD))
    return encapsulated(inner, vsid, source, group, mac("01:00:5e:01:01:01"), nic_mac(2))


def test_a_group_of_the_subnet_is_taken(switch: MemorySwitch) -> None:
    for _ in range(2):
        assert switch.from_wire(_arriving()).ports.keys() == {"blue1", "blue4"}


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (_arriving(group="239.1.1.9"), Drop.PA_NOT_LOCAL),
        (_arriving(vsid=5002), Drop.PA_NOT_LOCAL),  # the group is not that subnet's
        (_arriving(vsid=7777), Drop.PA_NOT_LOCAL),
        (_arriving(source="192.168.1.77"), Drop.POLICY_MISMATCH),
        (_arriving(source=pa(1, 5001)), Drop.OWN_PACKET),  # through another NIC of the team
    ],
)
def test_other_groups_and_senders_are_not(switch: MemorySwitch, frame: bytes, reason: Drop) -> None:
    for _ in range(2):
        assert switch.from_wire(frame).dropped(reason)


def test_not_without_a_port_of_the_subnet(switch: MemorySwitch) -> None:
    for name in ("blue1", "blue4"):
        switch.state.remove_port(name)
    assert switch.from_wire(_arriving()).dropped(Drop.PA_NOT_LOCAL)


def test_the_groups_to_join() -> None:
    found = tables(policy(lookup_records=(*records(), ALL, ALL_IPV6, MDNS, OVER_IPV6)))
    assert found.groups([5001, 5002]) == {ip("239.1.1.1"), ip("239.1.1.2"), ip("ff15::7")}
    assert found.groups([5002, 7001]) == set()
