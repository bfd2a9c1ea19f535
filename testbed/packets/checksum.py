"""The Internet checksum (RFC 1071)."""

from __future__ import annotations

from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview


def ones_sum(data: Buffer, start: int = 0) -> int:
    """One's-complement sum of ``data`` as 16-bit big-endian words, folded to 16 bits.

    An odd last byte counts as the high half of a word.
    """
    # 2**16 is 1 modulo 0xFFFF, so the sum of all words is the big integer modulo 0xFFFF.
    value = int.from_bytes(data, "big")
    if len(data) & 1:
        value <<= 8
    total = start + value
    if total == 0:
        return 0
    return total % 0xFFFF or 0xFFFF


def checksum(data: Buffer, start: int = 0) -> int:
    """The checksum to put into a header whose checksum field is zero in ``data``."""
    return ones_sum(data, start) ^ 0xFFFF
