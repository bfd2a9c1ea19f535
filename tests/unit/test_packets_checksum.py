"""testbed.packets.checksum against RFC 1071's own loop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.frames import naive_checksum
from support.random_input import repeatable
from testbed.packets.checksum import checksum, ones_sum


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0xFFFF),
        (bytes(20), 0xFFFF),
        (b"\xff\xff", 0),
        (b"\xff\xff" * 3, 0),
        (b"\x01", 0xFEFF),
        (b"\x00\x01\xf2\x03\xf4\xf5\xf6\xf7", 0x220D),  # the example of RFC 1071 section 3
    ],
)
def test_known_sums(data: bytes, expected: int) -> None:
    assert checksum(data) == expected == naive_checksum(data)


@repeatable
@given(st.binary(max_size=200))
def test_is_the_naive_loop(data: bytes) -> None:
    for view in (data, bytearray(data), memoryview(data)):
        assert checksum(view) == naive_checksum(data)


@repeatable
@given(st.integers(0, 0xFFFF), st.binary(max_size=60).filter(lambda data: len(data) % 2 == 0))
def test_start_is_one_more_word(start: int, data: bytes) -> None:
    assert checksum(data, start) == naive_checksum(start.to_bytes(2, "big") + data)


@repeatable
@given(st.binary(min_size=2, max_size=40).filter(lambda data: len(data) % 2 == 0 and any(data)))
def test_a_packet_with_its_checksum_sums_to_all_ones(data: bytes) -> None:
    assert ones_sum(data + checksum(data).to_bytes(2, "big")) == 0xFFFF
