"""What the wire brings: decapsulated for a port, refused by name, told where it contradicts the policy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.frames import (
    BROADCAST,
    UDP,
    arp,
    encapsulated,
    ethernet,
    ipv4,
    ipv6,
    mac,
    solicitation,
)
from support.switch import (
    MemorySwitch,
    mac_of,
    nic_mac,
    pa,
    policy,
    v4,
    v6,
)
from support.vm_packets import PAYLOAD
from support.vm_packets import from_ipv4 as _v4
from support.vm_packets import from_ipv6 as _v6
from testbed.switch.drops import Drop


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch() as made:
        yield made


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
        (_arriving(INNER[:12] + b"\x88\xcc" + INNER[14:]), Drop.NOT_IP),
        (_arriving(source=pa(1, 5001)), Drop.OWN_PACKET),
        (_arriving()[:50], Drop.MALFORMED),
        (
            ethernet(nic_mac(1), nic_mac(2), 0x0800, ipv4(pa(2, 5001), pa(1, 5001), UDP, PAYLOAD)),
            Drop.NOT_NVGRE,
        ),
        (ethernet(BROADCAST, nic_mac(2), 0x0806, bytes(46)), Drop.NEIGHBOR_CONSUMED),
        (ethernet(nic_mac(1), nic_mac(2), 0x0806, bytes(46)), Drop.NEIGHBOR_CONSUMED),
        (solicitation(pa(1, 5001, 6), pa(2, 5001, 6), nic_mac(2)), Drop.NEIGHBOR_CONSUMED),
        (ethernet(nic_mac(1), nic_mac(2), 0x86DD, ipv6("fe80::2", "fe80::1", UDP, PAYLOAD)), Drop.NOT_NVGRE),
    ],
)
def test_what_the_wire_brings_in_vain(switch: MemorySwitch, frame: bytes, reason: Drop) -> None:
    for _ in range(2):  # the second may come from the flow cache
        assert switch.from_wire(frame).dropped(reason)


def _events(switch: MemorySwitch) -> list[tuple[str, str, dict]]:
    return [(event.kind, event.object, event.fields) for event in switch.state.events.take()]


ARP_INNER = arp(1, (mac_of("blue2"), v4("blue2")), (bytes(6), v4("blue1")), mac_of("blue1"))


@pytest.mark.parametrize(
    ("inner", "family", "ca"),
    [
        (INNER, 4, v4("blue2")),
        (ARP_INNER, 4, v4("blue2")),
        (_v6("blue2", v6("blue1"), mac_of("blue1")), 6, "fd00::6"),
        (INNER[:30], 0, ""),
        (INNER[:12] + b"\x88\xcc" + INNER[14:], 0, ""),
    ],
)
@pytest.mark.parametrize(("vsid", "source"), [(5001, "192.168.1.77"), (7777, pa(2, 5001))])
def test_what_contradicts_the_policy_is_told(
    switch: MemorySwitch, inner: bytes, family: int, ca: str, vsid: int, source: str
) -> None:
    assert switch.from_wire(_arriving(inner, vsid=vsid, source=source)).dropped(Drop.POLICY_MISMATCH)
    told = {"ca_family": family, "pa_family": 4, "vsid": vsid, "ca": ca, "pa": source}
    assert _events(switch) == [("policy-mismatch", "nic1", told)]
    assert {counted_vsid for _, _, counted_vsid, _ in switch.datapath.drops} == {5001 if vsid == 5001 else 0}


def test_what_is_right_is_no_event(switch: MemorySwitch) -> None:
    switch.from_wire(_arriving())
    switch.from_wire(_arriving(to="192.168.1.99"))
    assert _events(switch) == []


def test_an_inner_broadcast_reaches_all_ports_of_the_subnet(switch: MemorySwitch) -> None:
    inner = _v4("blue2", "255.255.255.255", BROADCAST)
    seen = switch.from_wire(_arriving(inner))
    assert seen.ports == {"blue1": [(bytes(10), inner)], "blue4": [(bytes(10), inner)]}


def test_a_tentative_address_takes_nothing(switch: MemorySwitch) -> None:
    switch.apply(policy(), preferred=[])
    assert switch.from_wire(_arriving()).dropped(Drop.PA_NOT_LOCAL)
