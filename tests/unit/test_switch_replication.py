"""Several copies of one packet, and packets that wait for a PA neighbor."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from support.frames import BROADCAST, UDP, ethernet, ip, ipv4, mac, ports, vnet
from support.switch import MemorySwitch, mac_of, nic_mac, pa, policy, records, v4
from testbed.packets import nvgre
from testbed.switch.datapath import HELD_PER_NEXT_HOP
from testbed.switch.drops import Drop
from testbed.topology.plan import ProviderRoute

GROUP = mac("01:00:5e:00:00:fb")


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch() as made:
        yield made


def _udp(name: str, target: str, to: bytes, port: int = 1) -> bytes:
    return ethernet(to, mac_of(name), 0x0800, ipv4(v4(name), target, UDP, ports(port, 2) + bytes(40)))


def _to_all(port: int = 1) -> bytes:
    return _udp("blue1", "255.255.255.255", BROADCAST, port)


def _targets(wire: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [nvgre.parse(frame).destination_pa for _, frame in wire]


def _forget(switch: MemorySwitch, *hosts: int) -> None:
    for host in hosts:
        del switch.state.neighbors[ip(pa(host, 5001))]


@pytest.mark.parametrize(("target", "to"), [("255.255.255.255", BROADCAST), ("224.0.0.251", GROUP)])
def test_one_copy_per_remote_host_and_local_port(switch: MemorySwitch, target: str, to: bytes) -> None:
    frame, header = _udp("blue1", target, to), vnet(34, 6)
    for _ in range(2):
        seen = switch.from_vm("blue1", frame, header)
        assert not seen.drops
        assert seen.ports == {"blue4": [(header, frame)]}  # not the sender, not web1, not red1
        assert _targets(seen.wire) == [ip(pa(2, 5001)), ip(pa(3, 5001))]
        for number, (moved, sent) in zip((2, 3), seen.wire, strict=True):
            assert moved == vnet(76, 6, header=42)
            assert sent[:6] == nic_mac(number)
            assert nvgre.parse(sent).vsid == 5001
            assert sent[42:] == frame


def test_nobody_to_send_to(switch: MemorySwitch) -> None:
    switch.apply(policy(lookup_records=()))
    switch.state.remove_port("blue4")
    assert switch.from_vm("blue1", _to_all()).dropped(Drop.NO_LOOKUP_RECORD)


def test_copies_without_a_route_are_lost_by_name_and_the_others_leave(switch: MemorySwitch) -> None:
    moved = tuple(
        msgspec.structs.replace(record, provider_address="203.0.113.3")
        if record.vm_name == "blue3"
        else record
        for record in records()
    )
    switch.apply(policy(lookup_records=moved))
    for _ in range(2):
        seen = switch.from_vm("blue1", _to_all())
        assert seen.drops == {("blue1", Drop.NO_PROVIDER_ROUTE): 1}
        assert _targets(seen.wire) == [ip(pa(2, 5001))]
        assert seen.ports.keys() == {"blue4"}


def test_two_hosts_behind_one_gateway_get_two_copies(switch: MemorySwitch) -> None:
    moved = tuple(
        msgspec.structs.replace(record, provider_address=f"172.16.0.{record.vm_name[-1]}")
        if record.vm_name in ("blue2", "blue3")
        else record
        for record in records()
    )
    route = ProviderRoute("172.16.0.0/12", "192.168.0.254")
    switch.apply(policy(lookup_records=moved, provider_routes=(route,)))
    first = switch.from_vm("blue1", _to_all())
    assert (first.wire, list(first.ports)) == ([], ["blue4"])
    assert switch.unresolved == [ip("192.168.0.254")]
    seen = switch.neighbor("192.168.0.254", nic_mac(9))
    assert _targets(seen.wire) == [ip("172.16.0.2"), ip("172.16.0.3")]
    assert not seen.ports


# ---- waiting for a PA neighbor ------------------------------------------------------------


def test_packets_leave_in_order_when_the_neighbor_is_resolved(switch: MemorySwitch) -> None:
    _forget(switch, 2)
    frames = [_udp("blue1", v4("blue2"), mac_of("blue2"), port) for port in range(5)]
    headers = [vnet(34, 6 + port) for port in range(5)]
    for frame, header in zip(frames, headers, strict=True):
        seen = switch.from_vm("blue1", frame, header)
        assert (seen.wire, seen.drops) == ([], {})
    assert switch.unresolved == [ip(pa(2, 5001))]  # asked once
    assert switch.cached() == 0
    seen = switch.neighbor(pa(2, 5001), nic_mac(2))
    assert [sent[42:] for _, sent in seen.wire] == frames
    assert [header for header, _ in seen.wire] == [vnet(76, 6 + port, header=42) for port in range(5)]
    assert {sent[:6] for _, sent in seen.wire} == {nic_mac(2)}
    assert switch.neighbor(pa(2, 5001), nic_mac(2)).wire == []  # once


def test_packets_are_dropped_by_name_when_the_neighbor_does_not_answer(switch: MemorySwitch) -> None:
    _forget(switch, 2)
    for port in range(3):
        switch.from_vm("blue1", _udp("blue1", v4("blue2"), mac_of("blue2"), port))
    assert switch.neighbor(pa(2, 5001), None).dropped(Drop.PA_UNREACHABLE, 3)
    # the next one asks again
    switch.from_vm("blue1", _udp("blue1", v4("blue2"), mac_of("blue2")))
    assert switch.unresolved == [ip(pa(2, 5001))] * 2


def test_only_so_many_wait(switch: MemorySwitch) -> None:
    _forget(switch, 2)
    dropped = 0
    for port in range(HELD_PER_NEXT_HOP + 7):
        seen = switch.from_vm("blue1", _udp("blue1", v4("blue2"), mac_of("blue2"), port))
        dropped += seen.drops.get(("blue1", Drop.PA_UNREACHABLE), 0)
    assert dropped == 7
    assert len(switch.neighbor(pa(2, 5001), nic_mac(2)).wire) == HELD_PER_NEXT_HOP


def test_other_flows_do_not_wait(switch: MemorySwitch) -> None:
    _forget(switch, 2)
    switch.from_vm("blue1", _udp("blue1", v4("blue2"), mac_of("blue2")))
    assert switch.from_vm("blue1", _udp("blue1", v4("blue3"), mac_of("blue3"))).wire
    assert switch.from_vm("blue1", _udp("blue1", v4("blue4"), mac_of("blue4"))).ports


def test_what_waits_is_decided_anew(switch: MemorySwitch) -> None:
    """The policy may have changed meanwhile."""
    _forget(switch, 2)
    switch.from_vm("blue1", _udp("blue1", v4("blue2"), mac_of("blue2")))
    switch.apply(policy(lookup_records=()))
    assert switch.neighbor(pa(2, 5001), nic_mac(2)).dropped(Drop.NO_LOOKUP_RECORD)


def test_what_waits_for_a_removed_port_is_named(switch: MemorySwitch) -> None:
    _forget(switch, 2)
    switch.from_vm("blue1", _udp("blue1", v4("blue2"), mac_of("blue2")))
    switch.state.remove_port("blue1")
    assert switch.neighbor(pa(2, 5001), nic_mac(2)).drops == {("blue1", Drop.PORT_REMOVED): 1}


def test_a_lost_host_holds_up_its_own_copy_only(switch: MemorySwitch) -> None:
    _forget(switch, 2)
    for _ in range(2):
        seen = switch.from_vm("blue1", _to_all())
        assert _targets(seen.wire) == [ip(pa(3, 5001))]
        assert seen.ports.keys() == {"blue4"}
        assert not seen.drops
    assert switch.neighbor(pa(2, 5001), None).dropped(Drop.PA_UNREACHABLE, 2)


def test_the_copy_that_waited_is_the_only_one_sent_later(switch: MemorySwitch) -> None:
    _forget(switch, 2, 3)
    first = switch.from_vm("blue1", _to_all())
    assert (first.wire, list(first.ports)) == ([], ["blue4"])
    assert switch.unresolved == [ip(pa(2, 5001)), ip(pa(3, 5001))]
    second = switch.neighbor(pa(3, 5001), nic_mac(3))
    assert (_targets(second.wire), second.ports) == ([ip(pa(3, 5001))], {})
    third = switch.neighbor(pa(2, 5001), nic_mac(2))
    assert (_targets(third.wire), third.ports) == ([ip(pa(2, 5001))], {})
    assert third.frame[42:] == _to_all()
    assert switch.cached() == 0
    switch.from_vm("blue1", _to_all())
    assert switch.cached() == 1
