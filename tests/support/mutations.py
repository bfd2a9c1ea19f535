"""Ways to spoil a frame, every one of them: for frames that are taken from a corpus."""

from __future__ import annotations

from collections.abc import Iterator

HEADERS = 112  # bytes of a frame in which a lie can matter
_VALUES = (0x00, 0x01, 0x80, 0xFF)


def truncated(frame: bytes) -> Iterator[bytes]:
    """The frame cut behind each byte; long ones are cut in their headers and at their end."""
    length = len(frame)
    for end in range(length):
        if end < 2 * HEADERS or end > length - HEADERS:
            yield frame[:end]


def lying(frame: bytes) -> Iterator[bytes]:
    """The frame with each byte of its headers set to values that lengths, versions and flags lie with."""
    for at in range(min(len(frame), HEADERS)):
        for value in {*_VALUES, frame[at] ^ 1, (frame[at] + 8) & 0xFF}:
            if value != frame[at]:
                yield frame[:at] + bytes((value,)) + frame[at + 1 :]


def spoiled(frame: bytes) -> Iterator[bytes]:
    """All of them."""
    yield from truncated(frame)
    yield from lying(frame)
