"""testbed.wnv.tables: routes, records and addresses of a policy."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.frames import ip
from support.random_input import repeatable
from support.switch import BLUE, RED, gateway_mac, pa, policy, routes, tables
from testbed.topology.plan import CustomerRoute, ProviderAddress, ProviderRoute
from testbed.wnv.routes import Route, RouteTable, parse_prefix


def _hop(vsid: int, address: str, *more: CustomerRoute) -> tuple[int, bytes | None] | None:
    found = tables(policy(customer_routes=(*routes(), *more))).customer_routes(vsid, ip(address))
    return (found[0].vsid, found[0].next_hop or None) if found else None


@pytest.mark.parametrize(
    ("vsid", "address", "expected"),
    [
        (5001, "10.0.0.6", (5001, None)),
        (5001, "10.0.1.6", (5002, None)),  # another subnet of the routing domain
        (5002, "10.0.0.6", (5001, None)),
        (6001, "10.0.0.6", (6001, None)),
        (6001, "10.0.1.6", None),  # blue's alone
        (5001, "fd00:0:0:1::6", (5002, None)),
        (6001, "fd00:0:0:1::6", None),
        (5001, "11.0.0.1", None),
        (7001, "10.0.0.6", None),  # a VSID without routes
        (5001, "::a00:6", None),  # a v4 address in other clothes
    ],
)
def test_routes_stay_in_the_routing_domain(
    vsid: int, address: str, expected: tuple[int, bytes | None] | None
) -> None:
    assert _hop(vsid, address) == expected


def test_the_longest_prefix_wins_whatever_its_metric() -> None:
    wide = CustomerRoute(BLUE, 5002, "10.0.0.0/23", "0.0.0.0", 1)
    default = CustomerRoute(BLUE, 5002, "0.0.0.0/0", "10.0.1.5", 1)
    host = CustomerRoute(BLUE, 5002, "10.0.0.6/32", "10.0.1.9", 999)
    assert _hop(5001, "10.0.0.6", wide, default) == (5001, None)
    assert _hop(5001, "10.0.0.6", wide, default, host) == (5002, ip("10.0.1.9"))
    assert _hop(5001, "192.0.2.1", wide, default) == (5002, ip("10.0.1.5"))
    assert _hop(6001, "192.0.2.1", wide, default) is None


@pytest.mark.parametrize("order", [1, -1])
def test_the_lowest_metric_wins_among_equal_prefixes(order: int) -> None:
    several = [CustomerRoute(BLUE, 5002, "10.9.0.0/16", f"10.0.1.{metric}", metric) for metric in (7, 3, 5)]
    assert _hop(5001, "10.9.9.9", *several[::order]) == (5002, ip("10.0.1.3"))


@pytest.mark.parametrize("order", [1, -1])
def test_equal_routes_are_tried_in_the_same_order_whenever_they_came(order: int) -> None:
    several = [CustomerRoute(BLUE, 5002, "10.9.0.0/16", f"10.0.1.{last}", 7) for last in range(2, 30)]
    assert _hop(5001, "10.9.9.9", *several[::order]) == (5002, ip("10.0.1.2"))


@repeatable
@given(
    st.integers(0, 2**32 - 1), st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)), max_size=8)
)
def test_look_up_is_the_definition(address: int, prefixes: list[tuple[int, int]]) -> None:
    """Against: of all that contain the address, the longest."""
    masks = [(value, 0xFFFFFFFF << 32 - length & 0xFFFFFFFF, length) for value, length in prefixes]
    made = tuple(
        CustomerRoute(
            RED, 6001, f"{'.'.join(map(str, (value & mask).to_bytes(4, 'big')))}/{length}", "10.0.0.9", metric
        )
        for metric, (value, mask, length) in enumerate(masks)
    )
    found = tables(policy(customer_routes=made)).customer_routes(6001, address.to_bytes(4, "big"))
    fitting = [
        (length, metric) for metric, (value, mask, length) in enumerate(masks) if not (address ^ value) & mask
    ]
    longest = max((length for length, _ in fitting), default=None)
    assert [route.metric for route in found] == [metric for length, metric in fitting if length == longest]


def test_provider_routes() -> None:
    gateway = (
        ProviderRoute("0.0.0.0/0", "192.168.0.1", 9),
        ProviderRoute("0.0.0.0/0", "192.168.0.2", 5),
        ProviderRoute("10.99.0.0/16", "192.168.0.3"),
    )
    found = tables(policy(provider_routes=gateway))
    assert found.provider_next_hop(ip("192.168.7.7")) == ip("192.168.7.7")  # on the PA network
    assert found.provider_next_hop(ip("172.16.0.1")) == ip("192.168.0.2")
    assert found.provider_next_hop(ip("10.99.1.1")) == ip("192.168.0.3")
    assert tables(policy()).provider_next_hop(ip("172.16.0.1")) is None


def test_an_address_is_used_once_it_is_preferred_but_is_local_from_the_start() -> None:
    before = tables(policy(), preferred=[pa(1, 5001)])
    assert before.local_pa == {(5001, 4): ip(pa(1, 5001))}
    assert before.local_pas == {ip(pa(1, 5001))}
    assert before.own_pas == {ip(pa(1, vsid)) for vsid in (5001, 5002, 6001)}
    assert before.remote_pas(5002) == (ip(pa(2, 5002)),)
    before.set_preferred(frozenset([pa(1, 5002)]))
    assert before.local_pa == {(5002, 4): ip(pa(1, 5002))}


def test_of_several_addresses_the_lowest_preferred_one_is_used() -> None:
    several = [ProviderAddress(f"192.168.1.{last}", 16, 5001) for last in (9, 7, 8)]
    found = tables(policy(provider_addresses=tuple(several)))
    assert found.local_pa == {(5001, 4): ip("192.168.1.7")}
    found.set_preferred(frozenset(["192.168.1.9", "192.168.1.8"]))
    assert found.local_pa == {(5001, 4): ip("192.168.1.8")}


def test_remote_hosts_of_a_virtual_subnet() -> None:
    found = tables(policy())
    assert found.remote_pas(5001) == (ip(pa(2, 5001)), ip(pa(3, 5001)))
    assert found.remote_pas(5002) == (ip(pa(2, 5002)),)
    assert found.remote_pas(6001) == (ip(pa(2, 6001)),)
    assert found.remote_pas(7001) == ()


def test_senders_are_known_by_routing_domain() -> None:
    found = tables(policy())
    assert found.knows_sender(5001, ip(pa(2, 5001)))
    assert found.knows_sender(5002, ip(pa(2, 5001)))  # routed by the sender's host
    assert not found.knows_sender(6001, ip(pa(2, 5001)))
    assert not found.knows_sender(7001, ip(pa(2, 5001)))
    assert not found.knows_sender(5001, ip("192.168.1.99"))
    assert not found.knows_sender(5001, ip("169.254.254.254"))  # a gateway's is no machine
    assert not tables(policy(customer_routes=())).knows_sender(5001, ip(pa(2, 5001)))


def test_gateways() -> None:
    found = tables(policy())
    for vsid, address in ((5001, "10.0.0.1"), (5002, "10.0.1.1"), (6001, "10.0.0.1")):
        assert found.gateway(vsid, 4) == ip(address)
        assert found.gateway_mac(vsid, 4) == gateway_mac(vsid)
    assert found.gateway(5001, 16) == ip("fd00::1")
    assert found.gateway(7001, 4) is None
    assert found.gateway_mac(7001, 4) is None
    assert found.records[5001, ip("10.0.0.1")].gateway
    assert not found.records[5001, ip("10.0.0.5")].gateway


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)), max_size=8), st.integers(0, 2**32 - 1)
)
def test_the_prefix_that_is_told_is_the_one_that_matches(prefixes: list[tuple[int, int]], value: int) -> None:
    table = RouteTable()
    networks = [ipaddress.ip_network((number, length), strict=False) for number, length in prefixes]
    for network in networks:
        table.add(parse_prefix(str(network)), Route(0, 1, b""))
    address = ipaddress.IPv4Address(value)
    fitting = [network for network in networks if address in network]
    longest = max(fitting, key=lambda network: network.prefixlen, default="")
    assert table.prefix(address.packed) == str(longest)
    assert bool(table.matches(address.packed)) is bool(longest)
