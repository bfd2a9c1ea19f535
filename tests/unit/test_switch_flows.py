"""The flow cache: same bytes as the full path, forgotten when anything changes."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import pytest

from support.frames import BROADCAST, ICMP, TCP, UDP, encapsulated, ethernet, ipv4, ipv6, ports
from support.switch import MemorySwitch, gateway_mac, mac_of, nic_mac, pa, policy, v4, v6
from testbed.switch import datapath
from testbed.switch.drops import Drop


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch() as made:
        yield made


def _udp(name: str, target: str, to: bytes, port: int = 1, size: int = 40, protocol: int = UDP) -> bytes:
    return ethernet(to, mac_of(name), 0x0800, ipv4(v4(name), target, protocol, ports(port, 2) + bytes(size)))


def _v6(name: str, target: str, to: bytes, protocol: int = TCP) -> bytes:
    return ethernet(to, mac_of(name), 0x86DD, ipv6(v6(name), target, protocol, ports(1, 2) + bytes(40)))


CACHED = {
    "remote": _udp("blue1", v4("blue2"), mac_of("blue2")),
    "remote, wrong MAC": _udp("blue1", v4("blue2"), b"\2" * 6),
    "tcp": _udp("blue1", v4("blue2"), mac_of("blue2"), protocol=TCP),
    "ipv6": _v6("blue1", v6("blue2"), mac_of("blue2")),
    "local": _udp("blue1", v4("blue4"), mac_of("blue4")),
    "routed": _udp("blue1", v4("web2"), gateway_mac(5001)),
    "routed, local": _v6("blue1", v6("web1"), gateway_mac(5001)),
    "broadcast": _udp("blue1", "255.255.255.255", BROADCAST),
    "nowhere": _udp("blue1", "10.0.0.99", gateway_mac(5001)),
}


@pytest.mark.parametrize("frame", CACHED.values(), ids=CACHED.keys())
def test_later_packets_leave_as_the_first_did(switch: MemorySwitch, frame: bytes) -> None:
    first = switch.from_vm("blue1", frame)
    assert switch.cached() == 1
    assert switch.from_vm("blue1", frame) == first
    assert switch.from_vm("blue1", frame) == first
    assert switch.cached() == 1


def test_a_later_packet_of_another_length_has_its_own_outer_length(switch: MemorySwitch) -> None:
    with MemorySwitch(cached=False) as slow:
        for size in (40, 1, 1400, 40000, 0, 777):
            frame = _udp("blue1", v4("blue2"), mac_of("blue2"), size=size)
            assert switch.from_vm("blue1", frame) == slow.from_vm("blue1", frame)
    assert switch.cached() == 1


def test_from_the_wire(switch: MemorySwitch) -> None:
    inner = _udp("blue2", v4("blue1"), mac_of("blue1"))
    frame = encapsulated(inner, 5001, pa(2, 5001), pa(1, 5001), nic_mac(1), flow_id=3)
    first = switch.from_wire(frame)
    assert first.ports == {"blue1": [(bytes(10), inner)]}
    assert switch.cached() == 1
    assert switch.from_wire(frame) == first
    # another flow of the same two MACs shares the entry
    other = encapsulated(inner + bytes(9), 5001, pa(2, 5001), pa(1, 5001), nic_mac(1), flow_id=4)
    assert switch.from_wire(other).frame == inner + bytes(9)
    assert switch.cached() == 1


def test_a_cached_flow_still_checks_the_outer_header(switch: MemorySwitch) -> None:
    inner = _udp("blue2", v4("blue1"), mac_of("blue1"))
    frame = encapsulated(inner, 5001, pa(2, 5001), pa(1, 5001), nic_mac(1))
    assert switch.from_wire(frame).ports
    for position in (15, 18, 22, 24, 25):  # service, id, time to live, checksum
        broken = frame[:position] + bytes([frame[position] ^ 4]) + frame[position + 1 :]
        assert switch.from_wire(broken).dropped(Drop.MALFORMED)
    lies = encapsulated(inner, 5001, pa(2, 5001), pa(1, 5001), nic_mac(1))[:-1]
    assert switch.from_wire(lies).dropped(Drop.MALFORMED)


@pytest.mark.parametrize(
    "frame",
    [
        ethernet(mac_of("blue2"), mac_of("blue1"), 0x0800, ipv4(v4("blue1"), v4("blue2"), ICMP, bytes(40))),
        ethernet(
            mac_of("blue2"), mac_of("blue1"), 0x0800, ipv4(v4("blue1"), v4("blue2"), UDP, bytes(40), 0x2000)
        ),
        ethernet(
            mac_of("blue2"), mac_of("blue1"), 0x0800, ipv4(v4("blue1"), v4("blue2"), UDP, bytes(40), 0x0001)
        ),
        _v6("blue1", v6("blue2"), mac_of("blue2"), 58),
        _v6("blue1", v6("blue2"), mac_of("blue2"), 44),
        _udp("blue1", v4("blue2"), mac_of("blue2"))[:37],
    ],
    ids=["icmp", "first fragment", "later fragment", "icmpv6", "ipv6 fragment", "too short for ports"],
)
def test_what_is_never_cached(switch: MemorySwitch, frame: bytes) -> None:
    assert switch.from_vm("blue1", frame) == switch.from_vm("blue1", frame)
    assert switch.cached() == 0


def _changes() -> dict[str, Callable[[MemorySwitch], object]]:
    return {
        "policy": lambda switch: switch.apply(policy()),
        "neighbor": lambda switch: switch.neighbor(pa(2, 5001), b"\2\0\0\0\0\x99"),
        "neighbor lost": lambda switch: switch.neighbor(pa(2, 5001), None),
    }


@pytest.mark.parametrize("change", _changes().values(), ids=_changes().keys())
def test_a_change_empties_the_cache(switch: MemorySwitch, change: Callable[[MemorySwitch], object]) -> None:
    switch.from_vm("blue1", CACHED["remote"])
    inner = _udp("blue2", v4("blue1"), mac_of("blue1"))
    switch.from_wire(encapsulated(inner, 5001, pa(2, 5001), pa(1, 5001), nic_mac(1)))
    assert switch.cached() == 2
    change(switch)
    assert switch.cached() == 0


def test_a_new_neighbor_mac_is_used_at_once(switch: MemorySwitch) -> None:
    assert switch.from_vm("blue1", CACHED["remote"]).frame[:6] == nic_mac(2)
    switch.neighbor(pa(2, 5001), b"\2\0\0\0\0\x99")
    assert switch.from_vm("blue1", CACHED["remote"]).frame[:6] == b"\2\0\0\0\0\x99"


def test_a_withdrawn_policy_stops_a_flow(switch: MemorySwitch) -> None:
    switch.from_vm("blue1", CACHED["remote"])
    switch.apply(policy(lookup_records=()))
    assert switch.from_vm("blue1", CACHED["remote"]).dropped(Drop.NO_LOOKUP_RECORD)


def test_a_full_cache_is_emptied(switch: MemorySwitch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datapath, "FLOWS", 8)
    for port in range(20):
        frame = _udp("blue1", v4("blue2"), mac_of("blue2"), port)
        assert switch.from_vm("blue1", frame).frame[42:] == frame
        assert 1 <= switch.cached() <= 8


@pytest.mark.parametrize(
    ("code", "reason"), [(errno.EMSGSIZE, Drop.TX_OVERSIZE), (errno.ENOBUFS, Drop.TX_REFUSED)]
)
def test_what_the_nic_refuses_is_named(switch: MemorySwitch, code: int, reason: Drop) -> None:
    switch.nic.error = OSError(code, "refused")
    for _ in range(2):
        seen = switch.from_vm("blue1", CACHED["remote"])
        assert seen.dropped(reason)
        assert seen.drops == {("nic1", reason): 1}
    assert switch.nic.tx_packets == 0


def test_what_a_vm_does_not_take_is_named(switch: MemorySwitch) -> None:
    switch.unplug("blue4")
    seen = switch.from_vm("blue1", CACHED["local"])
    assert seen.drops == {("blue4", Drop.PORT_REFUSED): 1}
    inner = _udp("blue2", v4("blue4"), mac_of("blue4"))
    arriving = encapsulated(inner, 5001, pa(2, 5001), pa(1, 5001), nic_mac(1))
    assert switch.from_wire(arriving).drops == {("blue4", Drop.PORT_REFUSED): 1}


def test_without_an_uplink(switch: MemorySwitch) -> None:
    switch.lose_nics()
    assert switch.from_vm("blue1", CACHED["remote"]).dropped(Drop.NO_UPLINK)
    seen = switch.from_vm("blue1", CACHED["broadcast"])
    assert seen.ports.keys() == {"blue4"}  # who is here gets it
    assert seen.drops == {("blue1", Drop.NO_UPLINK): 2}  # one copy for each remote host


def test_counters(switch: MemorySwitch) -> None:
    frame = CACHED["remote"]
    for _ in range(3):
        switch.from_vm("blue1", frame)
    inner = _udp("blue2", v4("blue1"), mac_of("blue1"))
    arriving = encapsulated(inner, 5001, pa(2, 5001), pa(1, 5001), nic_mac(1))
    for _ in range(2):
        switch.from_wire(arriving)
    port = switch.state.ports["blue1"].counters()
    assert (port["from_vm_packets"], port["from_vm_bytes"]) == (3, 3 * len(frame))
    assert (port["to_vm_packets"], port["to_vm_bytes"]) == (2, 2 * len(inner))
    nic = switch.nic.counters()
    assert (nic["tx_packets"], nic["tx_bytes"]) == (3, 3 * (len(frame) + 42))
    assert (nic["rx_packets"], nic["rx_bytes"]) == (2, 2 * len(arriving))
