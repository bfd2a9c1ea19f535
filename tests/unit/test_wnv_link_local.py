"""Link-local addresses of VMs have no records: packets for them go by the frame's MAC, inside the subnet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.frames import icmpv6, ip
from support.switch import MemorySwitch, gateway_mac, mac_of, pa, policy, records, v6
from testbed.packets import nvgre
from testbed.switch.drops import Drop

PROBER = "fe80::215:5dff:fe00:1"  # a guest's kernel probes its neighbors from its link-local address


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch() as made:
        yield made


def advertisement(to: bytes) -> bytes:
    """blue1's answer to a unicast solicitation of the VM with this MAC."""
    body = bytes([136, 0, 0, 0, 0x60, 0, 0, 0]) + ip(v6("blue1"))
    return icmpv6(v6("blue1"), PROBER, body, to, mac_of("blue1"))


def echo(to: bytes) -> bytes:
    """A ping of the same."""
    return icmpv6("fe80::1:1", PROBER, bytes([128, 0, 0, 0, 0, 1, 0, 1]), to, mac_of("blue1"))


@pytest.mark.parametrize("make", [advertisement, echo])
def test_they_reach_the_vm_on_another_host(switch: MemorySwitch, make) -> None:
    frame = make(mac_of("blue2"))
    seen = switch.from_vm("blue1", frame)
    outer = nvgre.parse(seen.frame)
    assert (outer.destination_pa, outer.vsid, seen.frame[42:]) == (ip(pa(2, 5001)), 5001, frame)


@pytest.mark.parametrize("make", [advertisement, echo])
def test_they_reach_the_vm_of_this_host(switch: MemorySwitch, make) -> None:
    assert switch.from_vm("blue1", make(mac_of("blue4"))).ports["blue4"]


@pytest.mark.parametrize("make", [advertisement, echo])
@pytest.mark.parametrize("to", ["web2", "red2"])
def test_they_do_not_leave_their_subnet(switch: MemorySwitch, make, to: str) -> None:
    seen = switch.from_vm("blue1", make(mac_of(to)))
    assert not seen.wire
    assert not seen.ports
    assert sum(seen.drops.values()) == 1


def test_the_gateway_is_no_machine(switch: MemorySwitch) -> None:
    seen = switch.from_vm("blue1", echo(gateway_mac(5001)))
    assert not seen.wire
    assert not seen.ports


def test_a_removed_machine_is_not_found(switch: MemorySwitch) -> None:
    switch.apply(policy(lookup_records=tuple(each for each in records() if each.vm_name != "blue2")))
    assert switch.from_vm("blue1", advertisement(mac_of("blue2"))).dropped(Drop.NO_LOOKUP_RECORD)
