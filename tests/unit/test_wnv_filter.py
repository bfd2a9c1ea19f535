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
from support.vm_packets import PAYLOAD
from support.vm_packets import from_ipv4 as _v4
from support.vm_packets import from_ipv6 as _v6
from testbed.packets import nvgre
from testbed.switch.drops import Drop
from testbed.topology.plan import CustomerRoute, LookupRecord, ProviderRoute


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch() as made:
        yield made


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


def test_a_link_local_address_is_never_routed(switch: MemorySwitch) -> None:
    """A DHCPv6 server's answer goes to the VM that its MAC names, not to the network's way out."""
    gateway = LookupRecord("fd00:0:0:1::200", 5002, "00:15:5d:00:0f:01", pa(3, 5002), "gw")
    default = CustomerRoute(BLUE, 5002, "::/0", "fd00:0:0:1::200")
    switch.state.neighbors[ip(pa(3, 5002))] = nic_mac(3)
    switch.apply(policy(lookup_records=(*records(), gateway), customer_routes=(*routes(), default)))
    assert (
        nvgre.parse(switch.from_vm("blue1", _v6("blue1", "2001:db8::7", gateway_mac(5001))).frame).vsid
        == 5002
    )
    frame = _v6("blue1", "fe80::77", mac_of("blue2"))
    seen = switch.from_vm("blue1", frame)
    outer = nvgre.parse(seen.frame)
    assert (outer.vsid, outer.destination_pa) == (5001, ip(pa(2, 5001)))
    assert seen.frame[42:] == frame
    assert switch.from_vm("blue1", _v6("blue1", "fe80::77", mac("00:15:5d:00:0f:99"))).dropped(
        Drop.NO_LOOKUP_RECORD
    )


def _default(metric: int, next_hop: str) -> CustomerRoute:
    return CustomerRoute(BLUE, 5002, "0.0.0.0/0", next_hop, metric)


def test_the_lowest_metric_wins_among_usable_routes(switch: MemorySwitch) -> None:
    """A route whose next hop has no record, or is a default gateway's address, is not usable."""
    several = (
        _default(1, "10.0.1.99"),
        _default(2, "10.0.1.1"),
        _default(3, v4("web2")),
        _default(4, "10.0.1.7"),
    )
    switch.apply(policy(customer_routes=(*routes(), *several)))
    frame = _v4("blue1", "198.51.100.7", gateway_mac(5001))
    assert switch.from_vm("blue1", frame).frame[42:48] == mac_of("web2")
    switch.apply(policy(customer_routes=(*routes(), *several[:2])))
    assert switch.from_vm("blue1", frame).dropped(Drop.NO_LOOKUP_RECORD)


def test_a_wildcards_address_is_a_known_sender(switch: MemorySwitch) -> None:
    """What comes from behind the gateway VM has its host's PA."""
    wildcard = LookupRecord("0.0.0.0", 5002, "00:15:5d:00:0f:01", pa(3, 5002), type="GatewayWildcard")
    inner = ethernet(
        mac_of("web1"), mac("00:15:5d:00:0f:01"), 0x0800, ipv4("9.9.9.9", v4("web1"), UDP, PAYLOAD)
    )
    arriving = encapsulated(inner, 5002, pa(3, 5002), pa(1, 5002), nic_mac(1))
    assert switch.from_wire(arriving).dropped(Drop.POLICY_MISMATCH)
    switch.apply(policy(lookup_records=(*records(), wildcard)))
    assert switch.from_wire(arriving).ports == {"web1": [(bytes(10), inner)]}


def test_the_ttl_stays_as_it_is(switch: MemorySwitch) -> None:
    for target in ("blue2", "web2"):
        frame = _v4("blue1", v4(target), gateway_mac(5001))
        assert switch.from_vm("blue1", frame).frame[42 + 22] == frame[22]


# ---- address families ---------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
@FAMILIES
def test_any_ca_family_over_any_pa_family(make, address, version: int) -> None:
    """There and back, and the other subnet, by unicast and by group."""
    with MemorySwitch(version=version) as switch:
        frame = make("blue1", address("blue2"), mac_of("blue2"))
        sent = switch.from_vm("blue1", frame).frame
        outer = nvgre.parse(sent)
        assert outer.header == {4: 42, 6: 62}[version]
        assert (outer.source_pa, outer.destination_pa) == (ip(pa(1, 5001, version)), ip(pa(2, 5001, version)))
        assert sent[outer.header :] == frame
        with MemorySwitch(2, version=version) as other:
            sent = nic_mac(2) + sent[6:]
            assert other.from_wire(sent).ports == {"blue2": [(bytes(10), frame)]}
        routed = nvgre.parse(switch.from_vm("blue1", make("blue1", address("web2"), gateway_mac(5001))).frame)
        assert (routed.vsid, routed.destination_pa) == (5002, ip(pa(2, 5002, version)))
        seen = switch.from_vm("blue1", make("blue1", address("blue2"), BROADCAST))
        assert [nvgre.parse(each).destination_pa for _, each in seen.wire] == [
            ip(pa(host, 5001, version)) for host in (2, 3)
        ]


def test_without_an_address_of_the_records_family_nothing_leaves(switch: MemorySwitch) -> None:
    switch.apply(policy(lookup_records=tuple(records(6))))
    seen = switch.from_vm("blue1", _v4("blue1", v4("blue2"), mac_of("blue2")))
    assert seen.dropped(Drop.NO_PROVIDER_ADDRESS)


def test_both_families_side_by_side(switch: MemorySwitch) -> None:
    """Blue3 is behind an IPv6 PA, blue2 behind an IPv4 one."""
    mixed = tuple(
        msgspec.structs.replace(each, provider_address=pa(3, 5001, 6)) if each.vm_name == "blue3" else each
        for each in records()
    )
    addresses = policy().provider_addresses + policy(1, 6).provider_addresses
    switch.apply(policy(lookup_records=mixed, provider_addresses=addresses))
    switch.state.neighbors[ip(pa(3, 5001, 6))] = nic_mac(3)
    seen = switch.from_vm("blue1", _v4("blue1", "255.255.255.255", BROADCAST))
    assert {nvgre.parse(each)[2:4] for _, each in seen.wire} == {
        (ip(pa(1, 5001)), ip(pa(2, 5001))),
        (ip(pa(1, 5001, 6)), ip(pa(3, 5001, 6))),
    }


# ---- FlowID -------------------------------------------------------------------------------


def test_flow_id_is_zero_without_entropy() -> None:
    with MemorySwitch(flow_entropy=False) as switch:
        frames = [
            _v4("blue1", v4("blue2"), mac_of("blue2"), UDP, ports(port, 80) + bytes(20)) for port in range(20)
        ]
        assert set(_flow_ids(switch, frames)) == {0}


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
