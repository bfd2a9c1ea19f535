"""Offload metadata: the vnet header moves with the outer bytes, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.frames import TCP, encapsulated, ethernet, ipv4, ports, vnet
from support.switch import PLAIN, MemorySwitch, gateway_mac, mac_of, nic_mac, pa, v4
from testbed.packets import nvgre
from testbed.switch.drops import Drop

TCPV4 = 1  # VIRTIO_NET_HDR_GSO_TCPV4
DATA_VALID = b"\x02" + bytes(9)  # VIRTIO_NET_HDR_F_DATA_VALID: the checksum was verified


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch() as made:
        yield made


def _tcp(name: str, target: str, size: int = 100, to: bytes | None = None) -> bytes:
    packet = ipv4(v4(name), v4(target), TCP, ports(1, 2) + bytes(16 + size))
    return ethernet(to or mac_of(target), mac_of(name), 0x0800, packet)


SUPER = vnet(34, 16, gso_type=TCPV4, gso_size=1418, header=54)
SUPER_TUNNELLED = vnet(76, 16, gso_type=TCPV4, gso_size=1418, header=96)
PARTIAL = vnet(34, 16)


@pytest.mark.parametrize(
    ("before", "after", "size"),
    [
        (SUPER, SUPER_TUNNELLED, 5000),
        (PARTIAL, vnet(76, 16, header=42), 1000),
        (PLAIN, PLAIN, 1000),
    ],
)
def test_offsets_move_out_with_the_encapsulation(
    switch: MemorySwitch, before: bytes, after: bytes, size: int
) -> None:
    frame = _tcp("blue1", "blue2", size)
    for _ in range(2):  # the full path, then the flow cache
        ((header, sent),) = switch.from_vm("blue1", frame, before).wire
        assert header == after
        assert sent[42:] == frame


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (SUPER_TUNNELLED, SUPER),
        (vnet(76, 16), PARTIAL),
        (vnet(76, 16, header=42), PARTIAL),
        (PLAIN, PLAIN),
        (DATA_VALID, DATA_VALID),
    ],
)
def test_offsets_move_back_with_the_decapsulation(switch: MemorySwitch, before: bytes, after: bytes) -> None:
    inner = _tcp("blue2", "blue1", 5000)
    frame = encapsulated(inner, 5001, pa(2, 5001), pa(1, 5001), nic_mac(1))
    for _ in range(2):
        assert switch.from_wire(frame, before).ports == {"blue1": [(after, inner)]}


@pytest.mark.parametrize("header", [SUPER, PARTIAL, PLAIN, DATA_VALID])
def test_between_two_vms_of_a_host_nothing_moves(switch: MemorySwitch, header: bytes) -> None:
    frame = _tcp("blue1", "blue4", 5000)
    for _ in range(2):
        assert switch.from_vm("blue1", frame, header).ports == {"blue4": [(header, frame)]}
    routed = _tcp("blue1", "web1", 5000, gateway_mac(5001))
    assert switch.from_vm("blue1", routed, header).ports["web1"][0][0] == header


def test_there_and_back_again(switch: MemorySwitch) -> None:
    """What host 1 sends, host 2 takes: frame and metadata arrive as they left."""
    frame = _tcp("blue1", "blue2", 60000)
    ((header, sent),) = switch.from_vm("blue1", frame, SUPER).wire
    with MemorySwitch(2) as other:
        assert other.from_wire(sent, header).ports == {"blue2": [(SUPER, frame)]}


# IPv4's total length holds 65535 bytes, of which the outer headers take 28
@pytest.mark.parametrize(("length", "fits"), [(65507, True), (65508, False), (80000, False)])
def test_what_exceeds_an_ipv4_datagram_is_oversize(switch: MemorySwitch, length: int, fits: bool) -> None:
    base = _tcp("blue1", "blue2", 0)
    frame = base + bytes(length - len(base))
    for _ in range(2):
        seen = switch.from_vm("blue1", frame, SUPER)
        if fits:
            assert nvgre.parse(seen.frame).length == 42 + length
        else:
            assert seen.dropped(Drop.TX_OVERSIZE)
    local = ethernet(mac_of("blue4"), mac_of("blue1"), 0x0800, ipv4(v4("blue1"), v4("blue4"), TCP, bytes(60)))
    assert switch.from_vm("blue1", local + bytes(length - len(local))).ports.keys() == {"blue4"}


@pytest.mark.parametrize("header", [vnet(34, 16, header=0xFFFF), vnet(0xFFF0, 16, header=54)])
def test_headers_that_pass_16_bits_are_refused(switch: MemorySwitch, header: bytes) -> None:
    frame = _tcp("blue1", "blue2", 1000)
    for _ in range(2):
        assert switch.from_vm("blue1", frame, header).dropped(Drop.TX_OVERSIZE)
    assert switch.from_vm("blue1", frame, SUPER).wire


@pytest.mark.parametrize("start", [0, 34, 41])
def test_a_checksum_in_the_outer_headers_is_malformed(switch: MemorySwitch, start: int) -> None:
    frame = encapsulated(_tcp("blue2", "blue1"), 5001, pa(2, 5001), pa(1, 5001), nic_mac(1))
    for _ in range(2):
        assert switch.from_wire(frame, vnet(start, 6)).dropped(Drop.MALFORMED)
    assert switch.from_wire(frame, vnet(42, 6)).ports
