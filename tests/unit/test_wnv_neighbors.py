"""ARP and Neighbor Discovery of the VMs: answered by the filter, forwarded, or ended."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from support.frames import BROADCAST, arp, icmpv6, ip, mac, solicitation
from support.switch import MemorySwitch, gateway_mac, mac_of, policy, records, v4, v6
from testbed.packets import arp as arp_codec
from testbed.packets import ndp, nvgre
from testbed.switch.drops import Drop
from testbed.topology.plan import LookupRecord

NOBODY = (bytes(6), "0.0.0.0")
ALL_NODES_MAC = b"\x33\x33\0\0\0\1"


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch() as made:
        yield made


def _request(
    target: str, sender: str = "blue1", sender_ip: str | None = None, to: bytes = BROADCAST
) -> bytes:
    return arp(1, (mac_of(sender), sender_ip or v4(sender)), (bytes(6), target), to)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (v4("blue2"), mac_of("blue2")),  # on another host
        (v4("blue4"), mac_of("blue4")),  # on this one
        ("10.0.0.1", gateway_mac(5001)),
    ],
)
def test_a_broadcast_request_is_answered_here(switch: MemorySwitch, target: str, expected: bytes) -> None:
    seen = switch.from_vm("blue1", _request(target))
    assert list(seen.ports) == ["blue1"]
    assert not seen.wire
    assert not seen.drops
    assert seen.frame[:12] == mac_of("blue1") + expected
    assert arp_codec.parse(seen.frame) == arp_codec.Arp(
        2, expected, ip(target), mac_of("blue1"), ip(v4("blue1"))
    )


def test_tenants_with_the_same_addresses_get_their_own_answers(switch: MemorySwitch) -> None:
    blue = switch.from_vm("blue1", _request("10.0.0.6"))
    red = switch.from_vm("red1", _request("10.0.0.6", "red1"))
    assert arp_codec.parse(blue.frame).sender_mac == mac_of("blue2")
    assert arp_codec.parse(red.frame).sender_mac == mac_of("red2")


@pytest.mark.parametrize("target", ["10.0.0.99", v4("web2"), "0.0.0.0", "255.255.255.255"])
def test_without_a_record_of_the_subnet_nobody_is_asked(switch: MemorySwitch, target: str) -> None:
    assert switch.from_vm("blue1", _request(target)).dropped(Drop.NO_LOOKUP_RECORD)


def test_a_probe_for_the_own_address_is_not_answered(switch: MemorySwitch) -> None:
    probe = _request(v4("blue1"), sender_ip="0.0.0.0")
    assert switch.from_vm("blue1", probe).dropped(Drop.NEIGHBOR_CONSUMED)


@pytest.mark.parametrize("owner", ["blue2", "blue4"])
def test_a_probe_for_another_ones_address_finds_the_owner(switch: MemorySwitch, owner: str) -> None:
    seen = switch.from_vm("blue1", _request(v4(owner), sender_ip="0.0.0.0"))
    answer = arp_codec.parse(seen.frame)
    assert (answer.operation, answer.sender_mac, answer.sender_ip) == (2, mac_of(owner), ip(v4(owner)))
    assert seen.ports.keys() == {"blue1"}


def test_announcements_and_broadcast_replies_end_here(switch: MemorySwitch) -> None:
    own = (mac_of("blue1"), v4("blue1"))
    assert switch.from_vm("blue1", arp(1, own, own, BROADCAST)).dropped(Drop.NEIGHBOR_CONSUMED)
    assert switch.from_vm("blue1", arp(2, own, own, BROADCAST)).dropped(Drop.NEIGHBOR_CONSUMED)


@pytest.mark.parametrize("operation", [1, 2])
def test_unicast_arp_is_forwarded(switch: MemorySwitch, operation: int) -> None:
    own = (mac_of("blue1"), v4("blue1"))
    local = arp(operation, own, (mac_of("blue4"), v4("blue4")), mac_of("blue4"))
    seen = switch.from_vm("blue1", local)
    assert seen.ports.keys() == {"blue4"}
    assert seen.frame == local
    remote = arp(operation, own, (mac_of("blue2"), v4("blue2")), mac_of("blue2"))
    seen = switch.from_vm("blue1", remote)
    assert not seen.ports
    assert seen.frame[nvgre.OUTER_IPV4 :] == remote


def test_unicast_to_the_gateway_is_answered_here(switch: MemorySwitch) -> None:
    seen = switch.from_vm("blue1", _request("10.0.0.1", to=gateway_mac(5001)))
    assert arp_codec.parse(seen.frame).sender_mac == gateway_mac(5001)
    assert seen.ports.keys() == {"blue1"}
    own = (mac_of("blue1"), v4("blue1"))
    reply = arp(2, own, (gateway_mac(5001), "10.0.0.1"), gateway_mac(5001))
    assert switch.from_vm("blue1", reply).dropped(Drop.NEIGHBOR_CONSUMED)


@pytest.mark.parametrize("target", [v4("web1"), v4("web2"), "10.0.0.99"])
def test_unicast_arp_does_not_leave_its_subnet(switch: MemorySwitch, target: str) -> None:
    for to in (gateway_mac(5001), mac_of("web2")):
        assert switch.from_vm("blue1", _request(target, to=to)).dropped(Drop.NO_LOOKUP_RECORD)


def test_an_announcement_of_another_ones_address_is_answered_by_its_owner(switch: MemorySwitch) -> None:
    own = (mac_of("blue1"), v4("blue2"))
    seen = switch.from_vm("blue1", arp(1, own, own, BROADCAST))
    assert arp_codec.parse(seen.frame).sender_mac == mac_of("blue2")
    assert seen.ports.keys() == {"blue1"}


# ---- Neighbor Discovery -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "expected", "flags"),
    [
        (v6("blue2"), mac_of("blue2"), 0x60),
        (v6("blue4"), mac_of("blue4"), 0x60),
        ("fd00::1", gateway_mac(5001), 0xE0),  # a router
    ],
)
def test_a_multicast_solicitation_is_answered_here(
    switch: MemorySwitch, target: str, expected: bytes, flags: int
) -> None:
    seen = switch.from_vm("blue1", solicitation(target, v6("blue1"), mac_of("blue1")))
    assert not seen.wire
    assert not seen.drops
    assert seen.ports.keys() == {"blue1"}
    assert seen.frame[:12] == mac_of("blue1") + expected
    assert ndp.parse(seen.frame) == ndp.Neighbor(
        136, ip(target), ip(v6("blue1")), ip(target), flags, expected
    )


def test_a_dad_probe_for_the_own_address_is_not_answered(switch: MemorySwitch) -> None:
    seen = switch.from_vm("blue1", solicitation(v6("blue1"), "::", mac_of("blue1")))
    assert seen.dropped(Drop.NEIGHBOR_CONSUMED)


@pytest.mark.parametrize("owner", ["blue2", "blue4"])
def test_a_dad_probe_for_another_ones_address_is_answered_to_all_nodes(
    switch: MemorySwitch, owner: str
) -> None:
    seen = switch.from_vm("blue1", solicitation(v6(owner), "::", mac_of("blue1")))
    assert seen.ports.keys() == {"blue1"}
    assert seen.frame[:6] == ALL_NODES_MAC
    assert ndp.parse(seen.frame) == ndp.Neighbor(
        136, ip(v6(owner)), ip("ff02::1"), ip(v6(owner)), 0x20, mac_of(owner)
    )


def test_without_a_record_nobody_is_solicited(switch: MemorySwitch) -> None:
    seen = switch.from_vm("blue1", solicitation("fd00::99", v6("blue1"), mac_of("blue1")))
    assert seen.dropped(Drop.NO_LOOKUP_RECORD)


def test_a_unicast_solicitation_and_its_answer_are_forwarded(switch: MemorySwitch) -> None:
    asked = solicitation(v6("blue2"), v6("blue1"), mac_of("blue1"), mac_of("blue2"))
    assert switch.from_vm("blue1", asked).frame[nvgre.OUTER_IPV4 :] == asked
    asked = solicitation(v6("blue4"), v6("blue1"), mac_of("blue1"), mac_of("blue4"))
    assert switch.from_vm("blue1", asked).frame == asked
    answer = b"\x88\0\0\0\x60\0\0\0" + ip(v6("blue4")) + b"\2\1" + mac_of("blue4")
    frame = icmpv6(v6("blue4"), v6("blue1"), answer, mac_of("blue1"), mac_of("blue4"))
    assert switch.from_vm("blue4", frame).ports == {"blue1": [(bytes(10), frame)]}


@pytest.mark.parametrize("kind", [135, 136])
@pytest.mark.parametrize("target", [v6("web1"), v6("web2"), "fd00::99"])
def test_unicast_nd_does_not_leave_its_subnet(switch: MemorySwitch, target: str, kind: int) -> None:
    body = bytes([kind, 0, 0, 0, 0x60, 0, 0, 0]) + ip(target if kind == 135 else v6("blue1"))
    frame = icmpv6(v6("blue1"), target, body, gateway_mac(5001), mac_of("blue1"))
    assert switch.from_vm("blue1", frame).dropped(Drop.NO_LOOKUP_RECORD)


def test_an_advertisement_for_the_gateway_ends_here(switch: MemorySwitch) -> None:
    body = b"\x88\0\0\0\x60\0\0\0" + ip(v6("blue1")) + b"\2\1" + mac_of("blue1")
    frame = icmpv6(v6("blue1"), "fd00::1", body, gateway_mac(5001), mac_of("blue1"))
    assert switch.from_vm("blue1", frame).dropped(Drop.NEIGHBOR_CONSUMED)


def test_a_unicast_solicitation_of_the_gateway_is_answered_here(switch: MemorySwitch) -> None:
    asked = solicitation("fd00::1", v6("blue1"), mac_of("blue1"), gateway_mac(5001))
    seen = switch.from_vm("blue1", asked)
    assert seen.ports.keys() == {"blue1"}
    assert ndp.parse(seen.frame).link_address == gateway_mac(5001)


def test_unsolicited_advertisements_end_here(switch: MemorySwitch) -> None:
    body = b"\x88\0\0\0\x20\0\0\0" + ip(v6("blue2")) + b"\2\1" + mac_of("blue1")
    frame = icmpv6(v6("blue1"), "ff02::1", body, ALL_NODES_MAC, mac_of("blue1"))
    assert switch.from_vm("blue1", frame).dropped(Drop.NEIGHBOR_CONSUMED)


def _behind(extension: bytes, frame: bytes, kind: int) -> bytes:
    """The frame with an extension header in front of its ICMPv6 message."""
    length = int.from_bytes(frame[18:20], "big") + len(extension)
    return frame[:18] + length.to_bytes(2, "big") + bytes([kind]) + frame[21:54] + extension + frame[54:]


@pytest.mark.parametrize("body", [b"\x86\0\0\0\x40\0\x07\x08" + bytes(8), b"\x89\0" + bytes(38)])
@pytest.mark.parametrize("destination", [ALL_NODES_MAC, mac_of("blue4")])
def test_routers_among_the_vms_are_blocked(switch: MemorySwitch, body: bytes, destination: bytes) -> None:
    """Router advertisements and redirects, also behind extension headers (RFC 7113)."""
    frame = icmpv6("fe80::1", "ff02::1", body, destination, mac_of("blue1"))
    assert switch.from_vm("blue1", frame).dropped(Drop.ROUTER_BLOCKED)
    for kind in (0, 60):
        hidden = _behind(b"\x3a\0\1\4\0\0\0\0", frame, kind)
        assert switch.from_vm("blue1", hidden).dropped(Drop.ROUTER_BLOCKED)


def test_a_solicitation_behind_an_extension_header_is_refused(switch: MemorySwitch) -> None:
    hidden = _behind(b"\x3a\0\1\4\0\0\0\0", solicitation(v6("blue2"), v6("blue1"), mac_of("blue1")), 0)
    assert switch.from_vm("blue1", hidden).dropped(Drop.MALFORMED)


def test_router_solicitations_end_here(switch: MemorySwitch) -> None:
    frame = icmpv6(v6("blue1"), "ff02::2", b"\x85\0" + bytes(6), b"\x33\x33\0\0\0\2", mac_of("blue1"))
    assert switch.from_vm("blue1", frame).dropped(Drop.NEIGHBOR_CONSUMED)


def test_ping_of_the_gateway_is_not_answered(switch: MemorySwitch) -> None:
    echo = b"\x80\0\0\0\0\1\0\1"
    frame = icmpv6(v6("blue1"), "fd00::1", echo, gateway_mac(5001), mac_of("blue1"), 64)
    assert switch.from_vm("blue1", frame).dropped(Drop.GATEWAY_ADDRESS)


def test_a_record_moves_with_its_vm(switch: MemorySwitch) -> None:
    """The record decides, not what was answered before."""
    assert arp_codec.parse(switch.from_vm("blue1", _request(v4("blue2"))).frame).sender_mac == mac_of("blue2")
    other = mac("00:15:5d:77:77:77")
    moved = [
        r if r.customer_address != v4("blue2") or r.virtual_subnet_id != 5001 else _with_mac(r, other)
        for r in records()
    ]
    switch.apply(policy(lookup_records=tuple(moved)))
    assert arp_codec.parse(switch.from_vm("blue1", _request(v4("blue2"))).frame).sender_mac == other


def _with_mac(record: LookupRecord, new: bytes) -> LookupRecord:
    return msgspec.structs.replace(record, mac_address=new.hex(":"))
