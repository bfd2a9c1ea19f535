"""What suites read out of captured frames: TCP segments, their checksums, the stream that they make up."""

from __future__ import annotations

from typing import Any

import pytest

from support import frames as wire
from testbed.conformance import frames
from testbed.testing.segments import Segment, parse, stream

ONE, OTHER = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
ADDRESSES = {4: ("10.0.0.5", "10.0.0.6"), 6: ("fd00::5", "fd00::6")}
KINDS = {4: frames.TYPE_IPV4, 6: frames.TYPE_IPV6}


def frame(version: int, payload: bytes = b"payload") -> bytes:
    packet = frames.tcp_reset(*ADDRESSES[version], payload, (1025, 9))
    return frames.ethernet(OTHER, ONE, KINDS[version], packet)


@pytest.mark.parametrize("version", [4, 6])
def test_a_segment_is_read(version: int) -> None:
    found = parse(frame(version) + bytes(6))  # padding is not part of it
    assert found
    assert (found.source, found.destination) == ADDRESSES[version]
    assert (found.ports, found.data, found.is_good) == ((1025, 9), b"payload", True)
    assert found.size == len(frame(version)) - 14


@pytest.mark.parametrize("version", [4, 6])
def test_every_wrong_byte_is_a_wrong_checksum(version: int) -> None:
    good = frame(version)
    start = 14 + (20 if version == 4 else 40)
    for at in range(start + 13, len(good)):  # from the flags on: what is before says what it is
        found = parse(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert found
        assert not found.is_good, at


def test_what_is_no_whole_segment_is_none() -> None:
    good = frame(4)
    assert parse(good[:-1]) is None
    assert parse(good[:20] + b"\x20\0" + good[22:]) is None  # a fragment
    assert parse(frames.ethernet(OTHER, ONE, frames.TYPE_IPV4, frames.udp(*ADDRESSES[4], b"x"))) is None
    assert parse(wire.arp(1, (ONE, "10.0.0.5"), (OTHER, "10.0.0.6"), OTHER)) is None


def segment(sequence: int, data: bytes) -> Any:
    return Segment("10.0.0.5", "10.0.0.6", (1, 2), sequence % (1 << 32), data, 0, 0, True)


@pytest.mark.parametrize("first", [0, 7, (1 << 32) - 5])
def test_a_stream_is_put_together(first: int) -> None:
    pieces = [(6, b"gh"), (0, b"abc"), (3, b""), (2, b"cdef"), (0, b"ab")]
    assert stream(segment(first + at, data) for at, data in pieces) == b"abcdefgh"
    assert stream([]) == b""
    with pytest.raises(AssertionError, match="bytes 3 to 6 are missing"):
        stream(segment(first + at, data) for at, data in pieces[:2])
