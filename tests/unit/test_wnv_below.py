"""The filter below the switch (Windows Server 2012): the switch goes first, by MAC."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from support.frames import (
    BROADCAST,
    UDP,
    arp,
    encapsulated,
    ethernet,
    icmpv6,
    ip,
    ipv4,
    ipv6,
    mac,
    ports,
    solicitation,
)
from support.switch import MemorySwitch, gateway_mac, mac_of, nic_mac, pa, policy, records, v4, v6
from testbed.packets import arp as arp_codec
from testbed.packets import ndp, nvgre
from testbed.switch.drops import Drop
from testbed.switch.extensions.api import Deny, Extension, Frame
from testbed.telemetry import EventLog
from testbed.topology.plan import LookupRecord

PAYLOAD = ports(1000, 2000) + bytes(30)
UNKNOWN = mac("00:15:5d:99:99:99")
GROUP = LookupRecord("255.255.255.255", 5001, "ff:ff:ff:ff:ff:ff", "239.1.1.1")
LEARNER = LookupRecord("0.0.0.0", 5001, "00:15:5d:00:0e:01", pa(2, 5001), type="L2Only")


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch(mode="below-switch") as made:
        yield made


def _v4(source: str, destination: str, to: bytes) -> bytes:
    return ethernet(to, mac_of(source), 0x0800, ipv4(v4(source), destination, UDP, PAYLOAD))


def _v6(source: str, destination: str, to: bytes) -> bytes:
    return ethernet(to, mac_of(source), 0x86DD, ipv6(v6(source), destination, UDP, PAYLOAD))


FAMILIES = pytest.mark.parametrize(("make", "address"), [(_v4, v4), (_v6, v6)], ids=["ipv4", "ipv6"])


@FAMILIES
def test_a_known_mac_is_switched_whatever_the_address(switch: MemorySwitch, make, address) -> None:
    for target in (address("blue4"), address("blue2")):
        frame = make("blue1", target, mac_of("blue4"))
        assert switch.from_vm("blue1", frame).ports == {"blue4": [(bytes(10), frame)]}


def test_anything_is_switched_inside_the_subnet(switch: MemorySwitch) -> None:
    frame = ethernet(mac_of("blue4"), mac_of("blue1"), 0x88CC, bytes(50))
    assert switch.from_vm("blue1", frame).ports == {"blue4": [(bytes(10), frame)]}


@FAMILIES
def test_a_remote_vm_is_reached_by_its_address(switch: MemorySwitch, make, address) -> None:
    frame = make("blue1", address("blue2"), mac_of("blue2"))
    seen = switch.from_vm("blue1", frame)
    assert not seen.drops
    assert nvgre.parse(seen.frame).destination_pa == ip(pa(2, 5001))
    assert seen.frame[42:] == frame
    # the address decides among the MACs that are known
    other = make("blue1", address("blue3"), mac_of("blue2"))
    sent = switch.from_vm("blue1", other).frame
    assert nvgre.parse(sent).destination_pa == ip(pa(3, 5001))
    assert sent[42:48] == mac_of("blue3")


@FAMILIES
def test_the_gateways_mac_leads_to_another_subnet(switch: MemorySwitch, make, address) -> None:
    frame = make("blue1", address("web2"), gateway_mac(5001))
    sent = switch.from_vm("blue1", frame).frame
    assert nvgre.parse(sent).vsid == 5002
    assert sent[42:] == mac_of("web2") + gateway_mac(5002) + frame[12:]


@FAMILIES
def test_routed_back_to_a_port_of_this_host(switch: MemorySwitch, make, address) -> None:
    frame = make("blue1", address("web1"), gateway_mac(5001))
    seen = switch.from_vm("blue1", frame)
    assert seen.wire == []
    assert seen.ports == {"web1": [(bytes(10), mac_of("web1") + gateway_mac(5002) + frame[12:])]}


class _NobodyEnters(Extension):
    """Denies every copy for web1."""

    def egress(self, frame: Frame) -> Deny | None:
        return Deny("closed") if frame.destination == "web1" else None


def test_what_is_routed_back_passes_the_egress_of_its_port() -> None:
    guard = _NobodyEnters("guard", None, EventLog())
    with MemorySwitch(mode="below-switch", extensions=[guard]) as switch:
        seen = switch.from_vm("blue1", _v4("blue1", v4("web1"), gateway_mac(5001)))
        assert (seen.wire, seen.ports, seen.drops) == ([], {}, {("blue1", "guard:closed"): 1})


def test_what_the_filter_refuses(switch: MemorySwitch) -> None:
    cases = {
        Drop.UNKNOWN_MAC: _v4("blue1", v4("blue2"), UNKNOWN),
        Drop.NOT_IP: ethernet(mac_of("blue2"), mac_of("blue1"), 0x88CC, bytes(50)),
        Drop.GATEWAY_ADDRESS: _v4("blue1", "10.0.0.1", gateway_mac(5001)),
        Drop.NO_CUSTOMER_ROUTE: _v4("blue1", "172.16.0.1", gateway_mac(5001)),
        Drop.NO_LOOKUP_RECORD: _v4("blue1", "10.0.0.99", gateway_mac(5001)),
        Drop.MALFORMED: _v4("blue1", v4("blue2"), mac_of("blue2"))[:33],
    }
    for reason, frame in cases.items():
        for _ in range(2):
            assert switch.from_vm("blue1", frame).dropped(reason), reason


def test_macs_are_known_by_subnet(switch: MemorySwitch) -> None:
    assert switch.from_vm("blue1", _v4("blue1", v4("blue2"), mac_of("web2"))).dropped(Drop.UNKNOWN_MAC)


@pytest.mark.parametrize(
    "frame",
    [
        _v4("blue1", "255.255.255.255", BROADCAST),
        _v4("blue1", "224.0.0.251", mac("01:00:5e:00:00:fb")),
        _v6("blue1", "ff02::16", mac("33:33:00:00:00:16")),
        ethernet(BROADCAST, mac_of("blue1"), 0x88CC, bytes(50)),
        icmpv6(
            "fe80::1", "ff02::1", b"\x86\0\0\0\x40\0\x07\x08" + bytes(8), b"\x33\x33\0\0\0\1", mac_of("blue1")
        ),
    ],
)
def test_flooded_frames_end_at_the_filter_and_local_ports_have_them(
    switch: MemorySwitch, frame: bytes
) -> None:
    """Nor do a PA group or L2Only records change that: 2012 has neither."""
    for extra in ((), (GROUP, LEARNER)):
        switch.apply(policy(lookup_records=(*records(), *extra)))
        for _ in range(2):
            seen = switch.from_vm("blue1", frame)
            assert seen.wire == []
            assert seen.ports == {"blue4": [(bytes(10), frame)]}
            assert seen.drops == {("blue1", Drop.FLOODED): 1}
    switch.state.remove_port("blue4")
    switch.state.forget_flows()
    assert switch.from_vm("blue1", frame).dropped(Drop.FLOODED)


# ---- ARP and ND -------------------------------------------------------------------------------


def _request(target: str, sender_ip: str = v4("blue1"), to: bytes = BROADCAST) -> bytes:
    return arp(1, (mac_of("blue1"), sender_ip), (bytes(6), target), to)


def _solicited(target: str, source: str = v6("blue1"), to: bytes | None = None) -> bytes:
    return solicitation(target, source, mac_of("blue1"), to)


@pytest.mark.parametrize(
    ("target", "owner"), [(v4("blue2"), mac_of("blue2")), ("10.0.0.1", gateway_mac(5001))]
)
@pytest.mark.parametrize("sender_ip", [v4("blue1"), "0.0.0.0"])
def test_arp_is_answered_from_the_records(
    switch: MemorySwitch, target: str, owner: bytes, sender_ip: str
) -> None:
    """Broadcast (the local ports get it too) and unicast."""
    frame = _request(target, sender_ip)
    seen = switch.from_vm("blue1", frame)
    assert (seen.wire, seen.drops) == ([], {})
    assert seen.ports["blue4"] == [(bytes(10), frame)]
    ((_, answer),) = seen.ports["blue1"]
    assert (arp_codec.parse(answer).sender_mac, answer[:6]) == (owner, mac_of("blue1"))
    seen = switch.from_vm("blue1", _request(target, sender_ip, owner))
    assert arp_codec.parse(seen.frame).sender_mac == owner
    assert seen.ports.keys() == {"blue1"}


@pytest.mark.parametrize(
    ("target", "source"), [(v6("blue2"), v6("blue1")), (v6("blue2"), "::"), ("fd00::1", v6("blue1"))]
)
def test_solicitations_are_answered_as_arp_is(switch: MemorySwitch, target: str, source: str) -> None:
    frame = _solicited(target, source)
    seen = switch.from_vm("blue1", frame)
    assert (seen.wire, seen.drops) == ([], {})
    assert seen.ports["blue4"] == [(bytes(10), frame)]
    ((_, answer),) = seen.ports["blue1"]
    owner = gateway_mac(5001) if target == "fd00::1" else mac_of("blue2")
    assert ndp.parse(answer).link_address == owner


def test_a_unicast_solicitation_is_answered_too(switch: MemorySwitch) -> None:
    seen = switch.from_vm("blue1", _solicited(v6("blue2"), to=mac_of("blue2")))
    assert ndp.parse(seen.frame).link_address == mac_of("blue2")
    assert seen.ports.keys() == {"blue1"}


def test_a_vm_of_this_host_answers_by_itself(switch: MemorySwitch) -> None:
    for frame in (_request(v4("blue4")), _solicited(v6("blue4"))):
        seen = switch.from_vm("blue1", frame)
        assert seen.ports == {"blue4": [(bytes(10), frame)]}
        assert seen.drops == {("blue1", Drop.NEIGHBOR_CONSUMED): 1}
    direct = _request(v4("blue4"), to=mac_of("blue4"))
    seen = switch.from_vm("blue1", direct)
    assert (seen.ports, seen.drops) == ({"blue4": [(bytes(10), direct)]}, {})


def _copy_lost(switch: MemorySwitch, frame: bytes, reason: Drop) -> bool:
    seen = switch.from_vm("blue1", frame)
    return (seen.wire, seen.ports, seen.drops) == (
        [],
        {"blue4": [(bytes(10), frame)]},
        {("blue1", reason): 1},
    )


def test_what_is_not_answered(switch: MemorySwitch) -> None:
    own = (mac_of("blue1"), v4("blue1"))
    assert _copy_lost(switch, _request("10.0.0.99"), Drop.NO_LOOKUP_RECORD)
    assert _copy_lost(switch, _solicited("fd00::99"), Drop.NO_LOOKUP_RECORD)
    assert _copy_lost(switch, _request(v4("blue1"), "0.0.0.0"), Drop.NEIGHBOR_CONSUMED)
    assert _copy_lost(switch, arp(1, own, own, BROADCAST), Drop.NEIGHBOR_CONSUMED)
    assert _copy_lost(switch, arp(2, own, own, BROADCAST), Drop.NEIGHBOR_CONSUMED)
    assert _copy_lost(switch, _request(v4("blue2"))[:40], Drop.MALFORMED)
    body = b"\x88\0\0\0\x20\0\0\0" + ip(v6("blue1")) + b"\2\1" + mac_of("blue1")
    frame = icmpv6(v6("blue1"), "ff02::1", body, b"\x33\x33\0\0\0\1", mac_of("blue1"))
    assert _copy_lost(switch, frame, Drop.NEIGHBOR_CONSUMED)
    # no flooding for addresses to be learned: 2012 learns none
    switch.apply(policy(lookup_records=(*records(), LEARNER)))
    assert _copy_lost(switch, _request("10.0.0.99"), Drop.NO_LOOKUP_RECORD)


def test_a_record_without_a_port_here_is_answered_for(switch: MemorySwitch) -> None:
    """Its VM does not run: nobody else would answer."""
    switch.state.remove_port("blue4")
    seen = switch.from_vm("blue1", _request(v4("blue4")))
    assert arp_codec.parse(seen.frame).sender_mac == mac_of("blue4")


# ---- binding --------------------------------------------------------------------------------


def _arriving(inner: bytes, vsid: int = 5001, source: str = pa(2, 5001), to: str = pa(1, 5001)) -> bytes:
    return encapsulated(inner, vsid, source, to, nic_mac(1), nic_mac(2))


INNER = _v4("blue2", v4("blue1"), mac_of("blue1"))


def test_a_nic_without_the_filter_carries_nothing_virtual() -> None:
    with MemorySwitch(mode="below-switch", bound=False, plain_ports=["plain1"]) as switch:
        frame = _v4("blue1", v4("blue2"), mac_of("blue2"))
        for _ in range(2):
            assert switch.from_vm("blue1", frame).dropped(Drop.WNV_UNBOUND)
            assert switch.from_wire(_arriving(INNER)).dropped(Drop.WNV_UNBOUND)
        assert _copy_lost(switch, _request(v4("blue2")), Drop.WNV_UNBOUND)
        near = _v4("blue1", v4("blue4"), mac_of("blue4"))
        assert switch.from_vm("blue1", near).ports == {"blue4": [(bytes(10), near)]}
        plain, outside = mac("00:15:5d:aa:00:00"), mac("02:00:00:00:77:77")
        out, back = ethernet(outside, plain, 0x88B5, bytes(50)), ethernet(plain, outside, 0x88B5, bytes(50))
        assert switch.from_vm("plain1", out).wire == [(bytes(10), out)]
        assert switch.from_wire(back).ports == {"plain1": [(bytes(10), back)]}


def test_without_a_nic(switch: MemorySwitch) -> None:
    switch.lose_nics()
    assert switch.from_vm("blue1", _v4("blue1", v4("blue2"), mac_of("blue2"))).dropped(Drop.NO_UPLINK)
    assert _copy_lost(switch, _v4("blue1", "255.255.255.255", BROADCAST), Drop.NO_UPLINK)


# ---- from the wire ------------------------------------------------------------------------


def test_decapsulated_and_switched_by_the_inner_mac(switch: MemorySwitch) -> None:
    for _ in range(2):
        assert switch.from_wire(_arriving(INNER)).ports == {"blue1": [(bytes(10), INNER)]}
    everybody = _v4("blue2", "255.255.255.255", BROADCAST)
    assert switch.from_wire(_arriving(everybody)).ports.keys() == {"blue1", "blue4"}


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (_arriving(UNKNOWN + INNER[6:]), Drop.NO_PORT),
        (_arriving(INNER, vsid=7777), Drop.POLICY_MISMATCH),
        (_arriving(INNER, to="192.168.1.99"), Drop.PA_NOT_LOCAL),
        (_arriving(INNER[:12] + b"\x81\0\0\5" + INNER[12:]), Drop.INNER_TAGGED),
        (
            ethernet(nic_mac(1), nic_mac(2), 0x0800, ipv4(pa(2, 5001), pa(1, 5001), UDP, PAYLOAD)),
            Drop.NOT_NVGRE,
        ),
    ],
)
def test_what_the_wire_brings_in_vain(switch: MemorySwitch, frame: bytes, reason: Drop) -> None:
    for _ in range(2):
        assert switch.from_wire(frame).dropped(reason)


def test_plain_ip_of_rule_nat_goes_to_its_vm_alone(switch: MemorySwitch) -> None:
    """Even with a group MAC; and not through a NIC without the filter."""
    outside = {v4("blue1"): pa(1, 5001), v4("blue2"): pa(2, 5001)}
    found = [
        msgspec.structs.replace(
            each, rule="TranslationMethodNat", provider_address=outside[each.customer_address]
        )
        if each.customer_address in outside and each.virtual_subnet_id == 5001
        else each
        for each in records()
    ]
    switch.apply(policy(lookup_records=tuple(found)))
    packet = ipv4(pa(2, 5001), pa(1, 5001), 253, PAYLOAD)
    for to in (nic_mac(1), BROADCAST):
        seen = switch.from_wire(ethernet(to, nic_mac(2), 0x0800, packet))
        assert seen.ports.keys() == {"blue1"}
    switch.nic.wnv_binding = False
    assert switch.from_wire(ethernet(nic_mac(1), nic_mac(2), 0x0800, packet)).dropped(Drop.NOT_NVGRE)


def test_a_held_packet_goes_to_the_wire_alone(switch: MemorySwitch) -> None:
    del switch.state.neighbors[ip(pa(2, 5001))]
    frame = _v4("blue1", v4("blue2"), mac_of("blue2"))
    assert switch.from_vm("blue1", frame).wire == []
    assert switch.neighbor(pa(2, 5001), nic_mac(2)).frame[42:] == frame
