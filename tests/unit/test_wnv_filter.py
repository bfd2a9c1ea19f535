"""Forwarding by destination CA, encapsulation and decapsulation, through the whole pipeline."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from support.frames import (
    BROADCAST,
    ICMP,
    TCP,
    UDP,
    encapsulated,
    ethernet,
    ip,
    ipv4,
    ipv6,
    mac,
    ports,
)
from support.switch import (
    BLUE,
    MemorySwitch,
    gateway_mac,
    mac_of,
    nic_mac,
    pa,
    policy,
    records,
    routes,
    v4,
    v6,
)
from testbed.packets import nvgre
from testbed.switch.drops import Drop
from testbed.topology.plan import CustomerRoute, LookupRecord, ProviderRoute

PAYLOAD = ports(1000, 2000) + bytes(30)


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch() as made:
        yield made


def _v4(source: str, destination: str, to: bytes, protocol: int = UDP, payload: bytes = PAYLOAD) -> bytes:
    return ethernet(to, mac_of(source), 0x0800, ipv4(v4(source), destination, protocol, payload))


def _v6(source: str, destination: str, to: bytes, protocol: int = UDP, payload: bytes = PAYLOAD) -> bytes:
    return ethernet(to, mac_of(source), 0x86DD, ipv6(v6(source), destination, protocol, payload))


FAMILIES = pytest.mark.parametrize(("make", "address"), [(_v4, v4), (_v6, v6)], ids=["ipv4", "ipv6"])


@FAMILIES
def test_to_another_host_of_the_subnet(switch: MemorySwitch, make, address) -> None:
    frame = make("blue1", address("blue2"), mac_of("blue2"))
    seen = switch.from_vm("blue1", frame)
    assert not seen.ports
    assert not seen.drops
    outer = nvgre.parse(seen.frame)
    assert (outer.destination_mac, outer.source_mac) == (nic_mac(2), nic_mac(1))
    assert (outer.source_pa, outer.destination_pa) == (ip(pa(1, 5001)), ip(pa(2, 5001)))
    assert outer.vsid == 5001
    assert outer.length == len(seen.frame)
    assert seen.frame[42:] == frame


@FAMILIES
def test_a_local_provider_address_means_no_tunnel(switch: MemorySwitch, make, address) -> None:
    frame = make("blue1", address("blue4"), mac_of("blue4"))
    seen = switch.from_vm("blue1", frame)
    assert not seen.wire
    assert seen.ports == {"blue4": [(bytes(10), frame)]}


@FAMILIES
def test_a_wrong_destination_mac_is_rewritten(switch: MemorySwitch, make, address) -> None:
    wrong = mac("00:15:5d:99:99:99")
    remote = make("blue1", address("blue2"), wrong)
    assert switch.from_vm("blue1", remote).frame[42:] == mac_of("blue2") + remote[6:]
    local = make("blue1", address("blue4"), wrong)
    assert switch.from_vm("blue1", local).frame == mac_of("blue4") + local[6:]


@FAMILIES
def test_routed_to_another_subnet_of_the_routing_domain(switch: MemorySwitch, make, address) -> None:
    """With the destination's VSID, and the gateway of the destination's subnet as source MAC."""
    frame = make("blue1", address("web2"), gateway_mac(5001))
    seen = switch.from_vm("blue1", frame)
    outer = nvgre.parse(seen.frame)
    assert outer.vsid == 5002
    assert (outer.source_pa, outer.destination_pa) == (ip(pa(1, 5001)), ip(pa(2, 5002)))
    assert seen.frame[42:] == mac_of("web2") + gateway_mac(5002) + frame[12:]
    local = make("blue1", address("web1"), gateway_mac(5001))
    seen = switch.from_vm("blue1", local)
    assert seen.ports == {"web1": [(bytes(10), mac_of("web1") + gateway_mac(5002) + local[12:])]}


@FAMILIES
def test_never_into_another_routing_domain(switch: MemorySwitch, make, address) -> None:
    """Red has no 5002, though this host and the other both have VMs there."""
    frame = make("red1", address("web1"), gateway_mac(6001))
    assert switch.from_vm("red1", frame).dropped(Drop.NO_CUSTOMER_ROUTE)
    assert switch.from_vm("red1", make("red1", address("web2"), mac_of("web2"))).dropped(
        Drop.NO_CUSTOMER_ROUTE
    )


def test_equal_addresses_are_kept_apart_by_the_vsid(switch: MemorySwitch) -> None:
    """Blue1 and red1, blue2 and red2 have the same CAs, and here the same PAs."""
    same = [
        msgspec.structs.replace(record, provider_address=record.provider_address.replace(".3.", ".1."))
        for record in records()
    ]
    changed = policy(lookup_records=tuple(same))
    changed = msgspec.structs.replace(
        changed,
        provider_addresses=tuple(
            msgspec.structs.replace(a, provider_address=a.provider_address.replace(".3.", ".1."))
            for a in changed.provider_addresses
        ),
    )
    switch.apply(changed)
    for name, other, vsid in (("blue1", "blue2", 5001), ("red1", "red2", 6001)):
        sent = switch.from_vm(name, _v4(name, "10.0.0.6", mac_of(other)))
        assert nvgre.parse(sent.frame).vsid == vsid
        assert sent.frame[42:48] == mac_of(other)
        back = _v4(other, "10.0.0.5", mac_of(name))
        arrived = switch.from_wire(encapsulated(back, vsid, pa(2, 5001), pa(1, 5001), nic_mac(1)))
        assert arrived.ports == {name: [(bytes(10), back)]}


def test_what_the_filter_refuses_from_a_vm(switch: MemorySwitch) -> None:
    def frame(destination: str, to: bytes = b"\2\0\0\0\0\1") -> bytes:
        return _v4("blue1", destination, to)

    cases = {
        Drop.NO_CUSTOMER_ROUTE: frame("172.16.0.1"),
        Drop.NO_LOOKUP_RECORD: frame("10.0.0.99"),
        Drop.GATEWAY_ADDRESS: frame("10.0.0.1"),
        Drop.NOT_IP: ethernet(BROADCAST, mac_of("blue1"), 0x88CC, bytes(50)),
        Drop.MALFORMED: frame("10.0.0.6")[:33],
    }
    for reason, sent in cases.items():
        assert switch.from_vm("blue1", sent).dropped(reason), reason
    tagged = frame("10.0.0.6")[:12] + b"\x81\0\0\5" + frame("10.0.0.6")[12:]
    assert switch.from_vm("blue1", tagged).dropped(Drop.NOT_IP)


def test_without_a_preferred_address_nothing_leaves_but_neighbors_here_are_reached(
    switch: MemorySwitch,
) -> None:
    switch.apply(policy(), preferred=[])
    away = _v4("blue1", v4("blue2"), mac_of("blue2"))
    assert switch.from_vm("blue1", away).dropped(Drop.NO_PROVIDER_ADDRESS)
    assert switch.from_vm("blue1", _v4("blue1", v4("blue4"), mac_of("blue4"))).ports.keys() == {"blue4"}
    assert switch.from_vm("blue1", _v4("blue1", v4("web1"), gateway_mac(5001))).ports.keys() == {"web1"}


def test_a_local_record_without_a_port(switch: MemorySwitch) -> None:
    switch.state.remove_port("blue4")
    assert switch.from_vm("blue1", _v4("blue1", v4("blue4"), mac_of("blue4"))).dropped(Drop.NO_PORT)


def _elsewhere(address: str) -> MemorySwitch:
    """A switch where blue2 is behind a PA of another network."""
    made = MemorySwitch()
    changed = tuple(
        msgspec.structs.replace(record, provider_address=address) if record.vm_name == "blue2" else record
        for record in records()
    )
    made.apply(
        policy(lookup_records=changed, provider_routes=(ProviderRoute("172.16.0.0/12", "192.168.0.254"),))
    )
    return made


def test_a_provider_route_leads_through_a_gateway() -> None:
    """The outer MAC is the next hop's, the outer destination the record's PA."""
    with _elsewhere("172.16.0.2") as switch:
        router = mac("02:00:00:00:00:fe")
        switch.state.neighbors[ip("192.168.0.254")] = router
        outer = nvgre.parse(switch.from_vm("blue1", _v4("blue1", v4("blue2"), mac_of("blue2"))).frame)
        assert outer.destination_mac == router
        assert outer.destination_pa == ip("172.16.0.2")


def test_without_a_provider_route() -> None:
    with _elsewhere("203.0.113.2") as switch:
        frame = _v4("blue1", v4("blue2"), mac_of("blue2"))
        assert switch.from_vm("blue1", frame).dropped(Drop.NO_PROVIDER_ROUTE)


def test_off_net_traffic_goes_to_the_next_hop_of_the_default_route(switch: MemorySwitch) -> None:
    """By the record of the next hop, in the VSID of the route."""
    gateway = LookupRecord("10.0.1.200", 5002, "00:15:5d:00:0f:01", pa(3, 5002), "gw")
    default = CustomerRoute(BLUE, 5002, "0.0.0.0/0", "10.0.1.200")
    switch.state.neighbors[ip(pa(3, 5002))] = nic_mac(3)
    switch.apply(policy(lookup_records=(*records(), gateway), customer_routes=(*routes(), default)))
    frame = _v4("blue1", "198.51.100.7", gateway_mac(5001))
    seen = switch.from_vm("blue1", frame)
    outer = nvgre.parse(seen.frame)
    assert (outer.vsid, outer.destination_pa) == (5002, ip(pa(3, 5002)))
    assert seen.frame[42:] == mac("00:15:5d:00:0f:01") + gateway_mac(5002) + frame[12:]


# ---- FlowID -------------------------------------------------------------------------------


def _flow_ids(switch: MemorySwitch, frames: list[bytes]) -> list[int]:
    return [nvgre.parse(switch.from_vm("blue1", frame).frame).flow_id for frame in frames]


@pytest.mark.parametrize("protocol", [TCP, UDP])
@FAMILIES
def test_flow_id_is_constant_in_a_flow_and_spreads_flows(
    switch: MemorySwitch, make, address, protocol: int
) -> None:
    def frame(port: int, size: int) -> bytes:
        return make("blue1", address("blue2"), mac_of("blue2"), protocol, ports(port, 80) + bytes(size))

    same = _flow_ids(switch, [frame(5000, size) for size in (20, 100, 1000)])
    switch.apply(policy())  # decided anew
    assert {*same, *_flow_ids(switch, [frame(5000, 50)])} == {same[0]}
    many = _flow_ids(switch, [frame(port, 20) for port in range(5000, 5400)])
    assert all(0 <= flow_id <= 255 for flow_id in many)
    assert len(set(many)) > 128


def test_flow_id_of_fragments_and_of_icmp_does_not_look_for_ports(switch: MemorySwitch) -> None:
    def frame(flags: int, payload: bytes, protocol: int = UDP) -> bytes:
        packet = ipv4(v4("blue1"), v4("blue2"), protocol, payload, flags)
        return ethernet(mac_of("blue2"), mac_of("blue1"), 0x0800, packet)

    fragments = [frame(0x2000, ports(1, 2) + bytes(20)), frame(0x0004, b"\7" * 24), frame(0x2008, b"\1" * 24)]
    assert len(set(_flow_ids(switch, fragments))) == 1
    pings = [frame(0, b"\x08\0" + bytes([sequence]) * 10, ICMP) for sequence in range(9)]
    assert len(set(_flow_ids(switch, pings))) == 1


# ---- from the wire ------------------------------------------------------------------------

INNER = _v4("blue2", v4("blue1"), mac_of("blue1"))


def _arriving(
    inner: bytes = INNER, vsid: int = 5001, source: str = "", to: str = "", nic: bytes = b""
) -> bytes:
    return encapsulated(inner, vsid, source or pa(2, 5001), to or pa(1, 5001), nic or nic_mac(1), flow_id=9)


@pytest.mark.parametrize("padding", [0, 4])
def test_decapsulated_without_ethernet_padding(switch: MemorySwitch, padding: int) -> None:
    assert switch.from_wire(_arriving() + bytes(padding)).ports == {"blue1": [(bytes(10), INNER)]}


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (_arriving(source="192.168.1.77"), Drop.POLICY_MISMATCH),
        (_arriving(source=pa(2, 6001)), Drop.POLICY_MISMATCH),  # red's host address, blue's VSID
        (_arriving(vsid=7777), Drop.POLICY_MISMATCH),
        (_arriving(vsid=6001), Drop.POLICY_MISMATCH),
        (_arriving(vsid=5002), Drop.NO_PORT),  # blue1's MAC is not in that subnet
        (_arriving(to="192.168.1.99"), Drop.PA_NOT_LOCAL),
        (_arriving(nic=nic_mac(3)), Drop.NOT_FOR_US),
        (_arriving(INNER[:12] + b"\x81\0\0\5" + INNER[12:]), Drop.INNER_TAGGED),
        (_arriving(INNER[:12] + b"\x88\xa8\0\5" + INNER[12:]), Drop.INNER_TAGGED),
        (_arriving(mac("00:15:5d:99:99:99") + INNER[6:]), Drop.NO_PORT),
        (_arriving()[:50], Drop.MALFORMED),
        (
            ethernet(nic_mac(1), nic_mac(2), 0x0800, ipv4(pa(2, 5001), pa(1, 5001), UDP, PAYLOAD)),
            Drop.NOT_NVGRE,
        ),
        (ethernet(BROADCAST, nic_mac(2), 0x0806, bytes(46)), Drop.NEIGHBOR_CONSUMED),
        (ethernet(nic_mac(1), nic_mac(2), 0x0806, bytes(46)), Drop.NEIGHBOR_CONSUMED),
    ],
)
def test_what_the_wire_brings_in_vain(switch: MemorySwitch, frame: bytes, reason: Drop) -> None:
    for _ in range(2):  # the second may come from the flow cache
        assert switch.from_wire(frame).dropped(reason)


def test_an_inner_broadcast_reaches_all_ports_of_the_subnet(switch: MemorySwitch) -> None:
    inner = _v4("blue2", "255.255.255.255", BROADCAST)
    seen = switch.from_wire(_arriving(inner))
    assert seen.ports == {"blue1": [(bytes(10), inner)], "blue4": [(bytes(10), inner)]}


def test_a_tentative_address_takes_nothing(switch: MemorySwitch) -> None:
    switch.apply(policy(), preferred=[])
    assert switch.from_wire(_arriving()).dropped(Drop.PA_NOT_LOCAL)


# ---- VSID 0 -------------------------------------------------------------------------------


def test_ports_without_a_virtual_subnet_are_plain_layer_2() -> None:
    with MemorySwitch(plain_ports=["plain1", "plain2"]) as switch:
        one, two = mac("00:15:5d:aa:00:00"), mac("00:15:5d:aa:00:01")
        outside = mac("02:00:00:00:77:77")
        near = ethernet(two, one, 0x88B5, bytes(50))
        assert switch.from_vm("plain1", near).ports == {"plain2": [(bytes(10), near)]}
        far = ethernet(outside, one, 0x8100, bytes(50))
        assert switch.from_vm("plain1", far).wire == [(bytes(10), far)]
        group = ethernet(BROADCAST, one, 0x0806, bytes(50))
        seen = switch.from_vm("plain1", group)
        assert (seen.wire, seen.ports) == ([(bytes(10), group)], {"plain2": [(bytes(10), group)]})
        back = ethernet(one, outside, 0x88B5, bytes(50))
        assert switch.from_wire(back).ports == {"plain1": [(bytes(10), back)]}
        assert switch.from_wire(BROADCAST + back[6:]).ports.keys() == {"plain1", "plain2"}


def test_gre_for_a_plain_port_is_its_own_affair() -> None:
    with MemorySwitch(plain_ports=["plain1"]) as switch:
        tunnel = ethernet(
            mac("00:15:5d:aa:00:00"), nic_mac(2), 0x0800, ipv4("9.9.9.9", "9.9.9.8", 47, bytes(40))
        )
        for _ in range(2):
            assert switch.from_wire(tunnel).ports == {"plain1": [(bytes(10), tunnel)]}


@pytest.mark.parametrize("kind", [0x0806, 0x0800])
def test_frames_for_the_nic_itself_are_named_with_plain_ports_too(kind: int) -> None:
    with MemorySwitch(plain_ports=["plain1"]) as switch:
        seen = switch.from_wire(ethernet(nic_mac(1), nic_mac(2), kind, bytes(46)))
        assert seen.dropped(Drop.NEIGHBOR_CONSUMED if kind == 0x0806 else Drop.NOT_NVGRE)
