"""VMs whose address nobody knows (L2Only records): flooding in their subnet, forwarding by their MAC."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.frames import BROADCAST, UDP, arp, ethernet, icmpv6, ip, ipv4, ipv6, mac, ports, solicitation
from support.switch import MemorySwitch, gateway_mac, mac_of, pa, policy, records, v4, v6
from testbed.packets import arp as arp_codec
from testbed.packets import ndp, nvgre
from testbed.switch.drops import Drop
from testbed.topology.plan import LookupRecord

NEW = mac("00:15:5d:00:0e:01")  # a VM of host 2
NEAR = mac("00:15:5d:00:0e:02")  # and one of this host
FREE = "10.0.0.77"
FREE_IPV6 = "fd00::77"
ALL_NODES_MAC = b"\x33\x33\0\0\0\1"


def _learners(*families: str) -> tuple[LookupRecord, ...]:
    return tuple(
        LookupRecord(family, 5001, own.hex(":"), pa(host, 5001), type="L2Only")
        for family in families
        for own, host in ((NEW, 2), (NEAR, 1))
    )


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch() as made:
        made.add_port("near", NEAR, 5001)
        made.apply(policy(lookup_records=(*records(), *_learners("0.0.0.0", "::"))))
        yield made


def _flooded(switch: MemorySwitch, frame: bytes, sender: str = "blue1") -> bool:
    """Whether it left unchanged for each remote host of the subnet, and for each local port but its own."""
    seen = switch.from_vm(sender, frame)
    outers = [nvgre.parse(each) for _, each in seen.wire]
    return (
        not seen.drops
        and [outer.destination_pa for outer in outers] == [ip(pa(2, 5001)), ip(pa(3, 5001))]
        and all(each[42:] == frame for _, each in seen.wire)
        and seen.ports == {name: [(bytes(10), frame)] for name in {"blue1", "blue4", "near"} - {sender}}
    )


def _request(target: str, sender_ip: str | None = None, name: str = "blue1", to: bytes = BROADCAST) -> bytes:
    return arp(1, (mac_of(name), sender_ip or v4(name)), (bytes(6), target), to)


def _announcement(address: str, own: bytes, operation: int = 1) -> bytes:
    return arp(operation, (own, address), (own, address), BROADCAST)


def _advertisement(
    address: str, own: bytes, to: bytes = ALL_NODES_MAC, destination: str = "ff02::1"
) -> bytes:
    body = b"\x88\0\0\0\x20\0\0\0" + ip(address) + b"\2\1" + own
    return icmpv6(address, destination, body, to, own)


def test_an_unknown_target_is_flooded(switch: MemorySwitch) -> None:
    assert _flooded(switch, _request(FREE))
    assert _flooded(switch, _request(FREE, "0.0.0.0"))  # a DAD probe
    assert _flooded(switch, solicitation(FREE_IPV6, v6("blue1"), mac_of("blue1")))
    assert _flooded(switch, solicitation(FREE_IPV6, "::", mac_of("blue1")))


def test_a_known_target_is_answered_as_ever(switch: MemorySwitch) -> None:
    seen = switch.from_vm("blue1", _request(v4("blue2")))
    assert (seen.wire, list(seen.ports)) == ([], ["blue1"])
    assert arp_codec.parse(seen.frame).sender_mac == mac_of("blue2")
    seen = switch.from_vm("blue1", solicitation(v6("blue2"), "::", mac_of("blue1")))
    assert ndp.parse(seen.frame).link_address == mac_of("blue2")
    assert switch.from_vm("blue1", _request(v4("blue1"), "0.0.0.0")).dropped(Drop.NEIGHBOR_CONSUMED)


def test_another_subnet_of_the_network_is_not_flooded(switch: MemorySwitch) -> None:
    frame = _request("10.0.1.77", name="web1")
    assert switch.from_vm("web1", frame).dropped(Drop.NO_LOOKUP_RECORD)


def test_no_longer_once_the_records_are_gone(switch: MemorySwitch) -> None:
    switch.apply(policy())
    assert switch.from_vm("blue1", _request(FREE)).dropped(Drop.NO_LOOKUP_RECORD)
    assert switch.from_vm("blue1", _announcement(v4("blue1"), mac_of("blue1"))).dropped(
        Drop.NEIGHBOR_CONSUMED
    )


def test_announcements_are_flooded(switch: MemorySwitch) -> None:
    assert _flooded(switch, _announcement(FREE, NEAR), "near")
    assert _flooded(switch, _announcement(FREE, NEAR, 2), "near")
    assert _flooded(switch, _announcement(v4("blue1"), mac_of("blue1")))
    assert _flooded(switch, _advertisement(FREE_IPV6, NEAR), "near")
    assert _flooded(switch, _advertisement(v6("blue1"), mac_of("blue1")))


def test_announcements_that_contradict_a_record_are_not(switch: MemorySwitch) -> None:
    seen = switch.from_vm("near", _announcement(v4("blue2"), NEAR))
    assert arp_codec.parse(seen.frame).sender_mac == mac_of("blue2")  # the owner defends its address
    assert switch.from_vm("near", _announcement(v4("blue2"), NEAR, 2)).dropped(Drop.NEIGHBOR_CONSUMED)
    assert switch.from_vm("near", _advertisement(v6("blue2"), NEAR)).dropped(Drop.NEIGHBOR_CONSUMED)


def _udp(destination: str, to: bytes, source: str = "blue1") -> bytes:
    payload = ports(67, 68) + bytes(30)
    if ":" in destination:
        return ethernet(to, mac_of(source), 0x86DD, ipv6(v6(source), destination, UDP, payload))
    return ethernet(to, mac_of(source), 0x0800, ipv4(v4(source), destination, UDP, payload))


@pytest.mark.parametrize("destination", [FREE, "172.16.0.9", FREE_IPV6, "fe80::77"])
def test_the_frames_mac_finds_a_vm_without_an_address(switch: MemorySwitch, destination: str) -> None:
    """So a DHCP server reaches its client: within the subnet, whatever the routes say."""
    frame = _udp(destination, NEW)
    sent = switch.from_vm("blue1", frame)
    assert nvgre.parse(sent.frame).destination_pa == ip(pa(2, 5001))
    assert sent.frame[42:] == frame
    near = _udp(destination, NEAR)
    assert switch.from_vm("blue1", near).ports == {"near": [(bytes(10), near)]}


def test_a_record_of_the_destination_goes_before_the_mac(switch: MemorySwitch) -> None:
    assert switch.from_vm("blue1", _udp(v4("blue4"), NEW)).ports.keys() == {"blue4"}


@pytest.mark.parametrize("to", [mac_of("blue2"), gateway_mac(5001), mac("00:15:5d:99:99:99")])
def test_other_macs_find_nobody(switch: MemorySwitch, to: bytes) -> None:
    assert switch.from_vm("blue1", _udp(FREE, to)).dropped(Drop.NO_LOOKUP_RECORD)
    assert switch.from_vm("blue1", _request(FREE, to=to)).dropped(Drop.NO_LOOKUP_RECORD)


def test_the_mac_is_the_subnets_own(switch: MemorySwitch) -> None:
    assert switch.from_vm("web1", _udp("10.0.1.77", NEW, "web1")).dropped(Drop.NO_LOOKUP_RECORD)
    assert switch.from_vm("red1", _udp(FREE, NEW, "red1")).dropped(Drop.NO_LOOKUP_RECORD)


def test_each_family_has_its_record(switch: MemorySwitch) -> None:
    switch.apply(policy(lookup_records=(*records(), *_learners("0.0.0.0"))))
    assert switch.from_vm("blue1", _udp(FREE, NEAR)).ports.keys() == {"near"}
    assert switch.from_vm("blue1", _udp(FREE_IPV6, NEAR)).dropped(Drop.NO_LOOKUP_RECORD)


def test_unicast_arp_and_nd_reach_it(switch: MemorySwitch) -> None:
    asked = _request(FREE, to=NEAR)
    assert switch.from_vm("blue1", asked).ports == {"near": [(bytes(10), asked)]}
    asked = solicitation(FREE_IPV6, v6("blue1"), mac_of("blue1"), NEAR)
    assert switch.from_vm("blue1", asked).ports == {"near": [(bytes(10), asked)]}
    answer = _advertisement(FREE_IPV6, NEAR, mac_of("blue1"), v6("blue1"))
    assert switch.from_vm("near", answer).ports == {"blue1": [(bytes(10), answer)]}


def test_a_dhcp_request_reaches_everybody(switch: MemorySwitch) -> None:
    frame = ethernet(
        BROADCAST, NEAR, 0x0800, ipv4("0.0.0.0", "255.255.255.255", UDP, ports(68, 67) + bytes(30))
    )
    assert _flooded(switch, frame, "near")
