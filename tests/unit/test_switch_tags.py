"""VLAN tags of a VM's frames: stripped inside virtual subnets, kept outside (RFC 7637 section 3.3)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.frames import TCP, UDP, arp, ethernet, ip, ipv4, ipv6, ports, vnet
from support.random_frames import tenant_frames, vnet_headers
from support.random_input import repeatable
from support.switch import PLAIN, MemorySwitch, mac_of, nic_mac, pa, v4, v6
from testbed.switch.drops import Drop
from testbed.switch.pipeline import PORT

Q = b"\x81\0\x20\5"
AD = b"\x88\xa8\0\7"


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch(plain_ports=["plain1", "plain2"]) as made:
        yield made


def _frame(target: str = "blue2", size: int = 40) -> bytes:
    packet = ipv4(v4("blue1"), v4(target), TCP, ports(1, 2) + bytes(16 + size))
    return ethernet(mac_of(target), mac_of("blue1"), 0x0800, packet)


def _frame6() -> bytes:
    packet = ipv6(v6("blue1"), v6("blue2"), UDP, ports(1, 2) + bytes(40))
    return ethernet(mac_of("blue2"), mac_of("blue1"), 0x86DD, packet)


def tagged(frame: bytes, *tags: bytes) -> bytes:
    return frame[:12] + b"".join(tags) + frame[12:]


@pytest.mark.parametrize("tags", [(Q,), (AD,), (AD, Q), (Q, Q, AD, Q)])
@pytest.mark.parametrize("frame", [_frame(), _frame6(), _frame("blue4")])
def test_all_tags_go(switch: MemorySwitch, frame: bytes, tags: tuple[bytes, ...]) -> None:
    plain = switch.from_vm("blue1", frame)
    for _ in range(2):
        assert switch.from_vm("blue1", tagged(frame, *tags)) == plain


@pytest.mark.parametrize("tags", [(Q,), (AD, Q)])
@pytest.mark.parametrize("header", [vnet(34, 16), vnet(34, 16, gso_type=1, gso_size=1000, header=54), PLAIN])
def test_offload_metadata_moves(switch: MemorySwitch, header: bytes, tags: tuple[bytes, ...]) -> None:
    size = 5000 if header[1] else 40
    plain = switch.from_vm("blue1", _frame(size=size), header)
    assert plain.wire
    more = 4 * len(tags)
    moved = header
    if header[0]:
        fields = [int.from_bytes(header[at : at + 2], "little") for at in (2, 4, 6, 8)]
        moved = vnet(
            fields[2] + more,
            16,
            gso_type=header[1],
            gso_size=fields[1],
            header=fields[0] and fields[0] + more,
        )
    assert switch.from_vm("blue1", tagged(_frame(size=size), *tags), moved) == plain


def test_a_tagged_arp_request_is_answered(switch: MemorySwitch) -> None:
    request = arp(1, (mac_of("blue1"), v4("blue1")), (bytes(6), v4("blue2")), b"\xff" * 6)
    assert switch.from_vm("blue1", request).ports
    assert switch.from_vm("blue1", tagged(request, Q)) == switch.from_vm("blue1", request)


def test_a_tagged_packet_that_waits_leaves_without_its_tag(switch: MemorySwitch) -> None:
    del switch.state.neighbors[ip(pa(2, 5001))]
    switch.from_vm("blue1", tagged(_frame(), Q))
    ((_, sent),) = switch.neighbor(pa(2, 5001), nic_mac(2)).wire
    assert sent[42:] == _frame()


@pytest.mark.parametrize("cut", [12, 13, 14, 15, 16, 17])
def test_a_tag_cut_short(switch: MemorySwitch, cut: int) -> None:
    switch.from_vm("blue1", tagged(_frame(), Q))  # what is left in the buffer must not be read
    assert switch.from_vm("blue1", tagged(_frame(), Q)[:cut]).dropped(Drop.MALFORMED)
    assert switch.datapath.drops == {(PORT, "blue1", 5001, Drop.MALFORMED): 1}


@pytest.mark.parametrize("start", [0, 14, 17])
def test_a_checksum_over_the_tag(switch: MemorySwitch, start: int) -> None:
    assert switch.from_vm("blue1", tagged(_frame(), Q), vnet(start, 2)).dropped(Drop.MALFORMED)
    assert switch.from_vm("blue1", tagged(_frame(), Q), vnet(18, 2)).wire


def test_vsid_0_keeps_its_tags(switch: MemorySwitch) -> None:
    macs = switch.state.ports["plain2"].mac + switch.state.ports["plain1"].mac
    near = macs + Q + b"\x08\x00" + bytes(46)
    assert switch.from_vm("plain1", near).ports == {"plain2": [(PLAIN, near)]}
    far = b"\2\0\0\0\x77\1" + near[6:]
    assert switch.from_vm("plain1", far).wire == [(PLAIN, far)]
    assert switch.from_wire(macs + AD + Q + bytes(50)).ports.keys() == {"plain2"}


@repeatable
@given(
    frame=tenant_frames("blue1"),
    tags=st.lists(st.sampled_from([Q, AD]), min_size=1, max_size=3),
    cut=st.integers(0, 40),
    vnet=vnet_headers(),
)
def test_tagged_or_not_is_the_same(frame: bytes, tags: list[bytes], cut: int, vnet: bytes) -> None:
    with MemorySwitch() as switch:
        if not vnet[0] & 1 and len(frame) >= 14:
            assert switch.from_vm("blue1", tagged(frame, *tags), vnet) == switch.from_vm("blue1", frame, vnet)
        seen = switch.from_vm("blue1", tagged(frame, *tags)[: 12 + cut], vnet)
        assert seen.wire or seen.ports or seen.drops
