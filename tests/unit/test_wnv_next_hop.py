"""select_next_hop: where a packet would go, from the functions that forward it."""

from __future__ import annotations

import pytest

from support.switch import BLUE, MemorySwitch, gateway_mac, mac_of, policy, routes, v4, v6
from testbed.errors import BadInput
from testbed.topology.plan import CustomerRoute
from testbed.topology.schema import WnvMode


def _text(mac: bytes) -> str:
    return mac.hex(":")


@pytest.mark.parametrize("mode", ["in-switch", "below-switch"])
@pytest.mark.parametrize(
    ("source", "destination", "hop", "source_mac", "hop_mac"),
    [
        (v4("blue1"), v4("blue2"), v4("blue2"), _text(mac_of("blue1")), _text(mac_of("blue2"))),
        (v6("blue1"), v6("web2"), v6("web2"), _text(mac_of("blue1")), _text(mac_of("web2"))),
        (None, v4("web1"), v4("web1"), "", _text(mac_of("web1"))),
        ("10.0.0.99", "198.51.100.7", v4("web2"), "", _text(mac_of("web2"))),
        (None, "10.0.0.1", "10.0.0.1", "", _text(gateway_mac(5001))),
    ],
)
def test_the_next_hop(
    mode: WnvMode, source: str | None, destination: str, hop: str, source_mac: str, hop_mac: str
) -> None:
    with MemorySwitch(mode=mode) as switch:
        default = CustomerRoute(BLUE, 5002, "0.0.0.0/0", v4("web2"))
        switch.apply(policy(customer_routes=(*routes(), default)))
        assert switch.wnv.select_next_hop(source, destination, 5001) == {
            "source_customer_address": source or "",
            "destination_customer_address": destination,
            "source_virtual_subnet_id": 5001,
            "next_hop_address": hop,
            "source_mac_address": source_mac,
            "next_hop_mac_address": hop_mac,
        }


@pytest.mark.parametrize(
    ("source", "destination", "vsid", "says"),
    [
        (None, "172.16.0.1", 5001, "no-customer-route: add a customer route"),
        (None, "10.0.0.99", 5001, "no-lookup-record: add a lookup record"),
        (None, v4("blue2"), 7001, "no-customer-route"),
        (None, v4("web2"), 6001, "no-customer-route"),
        (None, "10.0.0", 5001, "destination_ca '10.0.0' is no IP address"),
        ("blue1", v4("blue2"), 5001, "source_ca 'blue1' is no IP address"),
        (None, "224.0.0.1", 5001, "is a group"),
        (None, "255.255.255.255", 5001, "is a group"),
    ],
)
def test_nowhere(source: str | None, destination: str, vsid: int, says: str) -> None:
    with MemorySwitch() as switch, pytest.raises(BadInput) as caught:
        switch.wnv.select_next_hop(source, destination, vsid)
    assert says in str(caught.value)
