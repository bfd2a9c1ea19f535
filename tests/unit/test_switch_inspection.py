"""While extensions look into received frames, a flow's key holds its inner packet."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from support.frames import ICMP, TCP, UDP, encapsulated, ethernet, ipv4, ipv6, ports
from support.switch import MemorySwitch, mac_of, nic_mac, pa, v4, v6
from testbed.switch.datapath import Datapath, _inner_key
from testbed.switch.extensions.load import load
from testbed.telemetry import EventLog
from testbed.topology.plan import ExtensionPlan


def _v4(
    port: int = 1, protocol: int = UDP, fragment: int = 0, size: int = 40, source: str = "blue2"
) -> bytes:
    packet = ipv4(v4(source), v4("blue1"), protocol, ports(port, 2) + bytes(size), fragment)
    return ethernet(mac_of("blue1"), mac_of(source), 0x0800, packet)


def _v6(port: int = 1, protocol: int = UDP, size: int = 40, source: str = "blue2") -> bytes:
    packet = ipv6(v6(source), v6("blue1"), protocol, ports(port, 2) + bytes(size))
    return ethernet(mac_of("blue1"), mac_of(source), 0x86DD, packet)


def _arriving(inner: bytes, flow_id: int = 0) -> bytes:
    return encapsulated(inner, 5001, pa(2, 5001), pa(1, 5001), nic_mac(1), nic_mac(2), flow_id)


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch() as made:
        made.datapath.inspects = True
        yield made


@pytest.mark.parametrize("make", [_v4, _v6])
def test_each_inner_flow_has_a_key(switch: MemorySwitch, make: Callable[..., bytes]) -> None:
    for count, frame in enumerate([make(1), make(2), make(1, TCP), make(source="blue3")], 1):
        for _ in range(2):
            assert switch.from_wire(_arriving(frame)).ports
            assert switch.cached() == count
    assert switch.from_wire(_arriving(make(1, size=99), 77)).ports  # neither length nor FlowID
    assert switch.cached() == 4


def test_the_cache_is_used(switch: MemorySwitch, monkeypatch: pytest.MonkeyPatch) -> None:
    for frame in (_v4(), _v6()):
        switch.from_wire(_arriving(frame))
    monkeypatch.setattr(Datapath, "_first_from_wire", None)  # calling it is a TypeError
    for frame in (_v4(), _v6()):
        assert switch.from_wire(_arriving(frame)).frame == frame


def test_without_inspection_they_share_one(switch: MemorySwitch) -> None:
    switch.datapath.inspects = False
    for frame in (_v4(1), _v4(2), _v4(1, TCP), _v4(1, ICMP)):
        switch.from_wire(_arriving(frame))
        assert switch.cached() == 1


NEVER = {
    "ICMP": _v4(protocol=ICMP),
    "ICMPv6": _v6(protocol=58),
    "first fragment": _v4(fragment=0x2000),
    "later fragment": _v4(fragment=0x0007),
    "IPv6 fragment": _v6(protocol=44),
    "IPv4 options": _v4()[:14] + b"\x46" + _v4()[15:],
    "short": _v4()[:37],
    "short IPv6": _v6()[:57],
    "ARP": ethernet(mac_of("blue1"), mac_of("blue2"), 0x0806, bytes(40)),
}


@pytest.mark.parametrize("frame", NEVER.values(), ids=NEVER.keys())
def test_what_has_none(switch: MemorySwitch, frame: bytes) -> None:
    for _ in range(2):
        seen = switch.from_wire(_arriving(frame))
        assert seen.ports or seen.drops
    assert switch.cached() == 0


def test_padding_is_no_port(switch: MemorySwitch) -> None:
    """What follows the outer IP packet is not looked at."""
    assert switch.from_wire(_arriving(_v4()[:37]) + bytes(9)).ports
    assert switch.cached() == 0


@pytest.mark.parametrize("frame", [_v4(), _v6()])
def test_every_byte_of_the_flow_is_in_the_key(frame: bytes) -> None:
    """But for lengths, times to live, labels and checksums."""
    end = 38 if frame[12] == 8 else 58
    free = {15, 16, 17, 18, 19, 22, 24, 25} if frame[12] == 8 else {15, 16, 17, 18, 19, 21}
    data = bytearray(frame)
    key = _inner_key(data, 0, len(data))
    assert key
    for position in range(end):
        data[position] ^= 0x10
        assert (_inner_key(data, 0, len(data)) == key) is (position in free), position
        data[position] ^= 0x10


def test_frames_over_ipv6() -> None:
    from unit.test_switch_ipv6_pa import arriving, over_ipv6

    with over_ipv6() as switch:
        switch.datapath.inspects = True
        for count, frame in enumerate([_v4(1), _v4(2), _v6(1), _v6(2)], 1):
            for _ in range(2):
                assert switch.from_wire(arriving(frame)).frame == frame
                assert switch.cached() == count
        for frame in NEVER.values():
            switch.from_wire(arriving(frame))
            assert switch.cached() == 4


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("lie", ["version", "length"])
def test_a_first_packet_that_lies_opens_no_way_for_its_flow(version: int, lie: str) -> None:
    """The extension's decision on it holds for the packets of its key, so it must be theirs."""
    settings = {"rules": [{"action": "deny", "protocol": "udp", "remote_ports": [2]}]}
    body = ports(1, 2) + bytes(40)
    if version == 4:
        kind, packet = 0x0800, ipv4(v4("blue1"), v4("blue2"), UDP, body)
        at, short = 16, b"\0\x16"
    else:
        kind, packet = 0x86DD, ipv6(v6("blue1"), v6("blue2"), UDP, body)
        at, short = 18, b"\0\x02"
    frame = ethernet(mac_of("blue2"), mac_of("blue1"), kind, packet)
    lying = frame[:at] + short + frame[at + 2 :] if lie == "length" else frame[:14] + b"\x95" + frame[15:]
    acl = load([ExtensionPlan("acl", settings)], EventLog())
    with MemorySwitch(extensions=acl) as switch:
        switch.from_vm("blue1", lying)
        assert switch.from_vm("blue1", frame).drops == {("blue1", "acl:rule-0"): 1}
