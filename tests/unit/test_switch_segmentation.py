"""A super-packet cut by the switch: each frame is what the guest's own stack would have sent."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from support.frames import TCP, ethernet, ip, ipv4, ipv6, naive_checksum, ports, vnet
from support.switch import MemoryUplink, nic_mac
from testbed.packets import nvgre
from testbed.switch.buffer import INNER, FrameBuffer
from testbed.switch.segmentation import FRAMES, Segmenter

MACS = bytes.fromhex("00155d00000200155d000001")
FIN, PSH, ACK, CWR = 1, 8, 16, 0x80
OPTIONS = bytes.fromhex("0101080a0000000100000002")  # two NOPs and a timestamp
CA = {4: ("10.0.0.5", "10.0.0.6"), 6: ("fd00::5", "fd00::6")}
PA = {4: ("192.168.0.1", "192.168.0.2"), 6: ("fd01::1", "fd01::2")}


class Frame(NamedTuple):
    """One segment, taken apart; addresses and lengths have been checked."""

    outer_id: int | None
    inner_id: int | None
    sequence: int
    flags: int
    options: bytes
    payload: bytes


@pytest.fixture
def uplink() -> Iterator[MemoryUplink]:
    made = MemoryUplink("nic1", nic_mac(1))
    made.cable.setblocking(False)
    yield made
    made.close()


def cut(
    uplink: MemoryUplink,
    payload: bytes,
    *,
    mss: int = 1000,
    version: int = 4,
    over: int = 0,
    flags: int = ACK,
    sequence: int = 1000,
    identification: int = 7,
) -> list[bytes]:
    """The frames of a super-packet; ``over``: the outer version, 0 for none."""
    offset = (20 + len(OPTIONS)) // 4 << 4
    tcp = ports(5000, 80) + struct.pack("!IIBBHHH", sequence, 9, offset, flags, 500, 0, 0) + OPTIONS + payload
    make, kind = (ipv4, 0x0800) if version == 4 else (ipv6, 0x86DD)
    frame = bytearray(ethernet(MACS[:6], MACS[6:], kind, make(*CA[version], TCP, tcp)))
    if version == 4:
        struct.pack_into("!H", frame, 18, identification)
    start = 34 if version == 4 else 54
    buffer = FrameBuffer()
    buffer.vnet[:] = vnet(start, 16, gso_type=1 if version == 4 else 4, gso_size=mss)
    end = INNER + len(frame)
    buffer.view[INNER:end] = frame
    header = b""
    if over:
        header = nvgre.template(nic_mac(2), nic_mac(1), ip(PA[over][0]), ip(PA[over][1]), 5001, 3) + MACS
    before = bytes(buffer.view[INNER:end])
    sent, refused = Segmenter(buffer).send(uplink, header, end)
    assert bytes(buffer.view[INNER:end]) == before  # the packet may be for others too
    frames = []
    while True:
        try:
            frames.append(uplink.cable.recv(4096))
        except BlockingIOError:
            break
    assert (sent, refused) == (len(frames), 0)
    return frames


def completed(data: bytes) -> bytes:
    """What the kernel makes of a frame with an open checksum."""
    needs, gso, _, _, start, offset = struct.unpack_from("=BBHHHH", data)
    frame = bytearray(data[10:])
    assert (needs, gso) == (1, 0)
    total = naive_checksum(bytes(frame[start:]))
    struct.pack_into("!H", frame, start + offset, total)
    return bytes(frame)


def parse(frame: bytes, version: int, over: int) -> Frame:
    outer_id = None
    at = 0
    if over == 4:
        outer_id = _ipv4(frame, 14, len(frame) - 14)
        at = 42
    elif over == 6:
        assert struct.unpack_from("!H", frame, 18)[0] == len(frame) - 54
        at = 62
    if over:
        assert frame[:12] == nic_mac(2) + nic_mac(1)
        assert frame[at - 8 : at] == b"\x20\x00\x65\x58" + (5001).to_bytes(3, "big") + b"\x03"
    assert frame[at : at + 12] == MACS
    inner_id = None
    if version == 4:
        inner_id = _ipv4(frame, at + 14, len(frame) - at - 14)
        tcp, pseudo = at + 34, frame[at + 26 : at + 34]
    else:
        assert struct.unpack_from("!H", frame, at + 18)[0] == len(frame) - at - 54
        tcp, pseudo = at + 54, frame[at + 22 : at + 54]
    segment = frame[tcp:]
    assert naive_checksum(pseudo + struct.pack("!HH", TCP, len(segment)) + segment) == 0
    _, _, sequence, _, offset, flags = struct.unpack_from("!HHIIBB", segment)
    header = offset >> 2
    return Frame(outer_id, inner_id, sequence, flags, segment[20:header], segment[header:])


def _ipv4(frame: bytes, at: int, length: int) -> int:
    assert naive_checksum(frame[at : at + 20]) == 0
    total, identification = struct.unpack_from("!HH", frame, at + 2)
    assert total == length
    return int(identification)


@pytest.mark.parametrize("over", [0, 4, 6])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [1, 1000, 1001, 2000, 64000, 64001])
def test_all_frames_together_are_the_super_packet(
    uplink: MemoryUplink, version: int, over: int, size: int
) -> None:
    payload = random.Random(size).randbytes(size)
    frames = [
        parse(completed(data), version, over) for data in cut(uplink, payload, version=version, over=over)
    ]
    assert b"".join(frame.payload for frame in frames) == payload
    assert [frame.sequence for frame in frames] == [1000 + 1000 * i for i in range(len(frames))]
    assert all(len(frame.payload) == 1000 for frame in frames[:-1])  # at most one is short
    assert {frame.options for frame in frames} == {OPTIONS}
    assert [frame.outer_id for frame in frames] == [i if over == 4 else None for i in range(len(frames))]
    assert [frame.inner_id for frame in frames] == [
        7 + i if version == 4 else None for i in range(len(frames))
    ]


def test_flags_are_where_they_belong(uplink: MemoryUplink) -> None:
    frames = [
        parse(completed(data), 4, 4) for data in cut(uplink, bytes(3500), flags=FIN | PSH | ACK | CWR, over=4)
    ]
    assert [frame.flags for frame in frames] == [ACK | CWR, ACK, ACK, FIN | PSH | ACK]
    (only,) = [parse(completed(data), 4, 4) for data in cut(uplink, bytes(10), flags=PSH | CWR, over=4)]
    assert only.flags == PSH | CWR


@pytest.mark.parametrize(("first", "then"), [(0x7FFF, 0), (0x1234, 0x1235), (0xFFFF, 0x8000)])
def test_the_identification_wraps_at_15_bits(uplink: MemoryUplink, first: int, then: int) -> None:
    frames = [parse(completed(data), 4, 4) for data in cut(uplink, bytes(1500), over=4, identification=first)]
    assert [frame.inner_id for frame in frames] == [first, then]


def test_sequence_numbers_wrap(uplink: MemoryUplink) -> None:
    frames = [parse(completed(data), 4, 0) for data in cut(uplink, bytes(2500), sequence=0xFFFFFFFF - 1499)]
    assert [frame.sequence for frame in frames] == [0xFFFFFFFF - 1499, 0xFFFFFFFF - 499, 500]


def test_more_frames_than_one_system_call_sends(uplink: MemoryUplink) -> None:
    payload = random.Random(1).randbytes(100 * FRAMES + 50)
    frames = [parse(completed(data), 4, 4) for data in cut(uplink, payload, mss=50, over=4)]
    assert len(frames) == 2 * FRAMES + 1
    assert b"".join(frame.payload for frame in frames) == payload
    assert [frame.inner_id for frame in frames] == [7 + i for i in range(len(frames))]


def test_a_nic_that_takes_no_more(uplink: MemoryUplink) -> None:
    """Its queue is full after some frames; the rest is counted as refused."""
    payload = bytes(64000)
    uplink.socket.setblocking(False)
    uplink.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    frame = bytearray(ethernet(MACS[:6], MACS[6:], 0x0800, ipv4(*CA[4], TCP, bytes(12) + b"\x50" + bytes(7))))
    buffer = FrameBuffer()
    buffer.vnet[:] = vnet(34, 16, gso_type=1, gso_size=1000)
    end = INNER + len(frame) + len(payload)
    buffer.view[INNER:end] = bytes(frame) + payload
    sent, refused = Segmenter(buffer).send(uplink, b"", end)
    assert (sent + refused, sent > 0, refused > 0) == (64, True, True)
