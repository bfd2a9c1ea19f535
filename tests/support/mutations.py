"""Ways to spoil a frame, every one of them: for frames that are taken from a corpus."""

from __future__ import annotations

from collections.abc import Iterator

from support.corpus import IGMP
from support.frames import ICMP, ICMPV6

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
        byte = frame[at]  # half of one may be a length: 0 and 15 are lies then
        for value in {*_VALUES, byte ^ 1, (byte + 8) & 0xFF, byte & 0xF0, byte | 0x0F}:
            if value != frame[at]:
                yield frame[:at] + bytes((value,)) + frame[at + 1 :]


def spoiled(frame: bytes) -> Iterator[bytes]:
    """All of them; a checksum that covers the lie is wrong then."""
    yield from truncated(frame)
    yield from lying(frame)


def resealed(frame: bytes) -> Iterator[bytes]:
    """Lies under right checksums; and the frame cut behind each byte of its payload, lengths agreeing."""
    yield from map(sealed, lying(frame))
    start, at = (34, 16) if frame[12] == 0x08 else (54, 18)
    for end in range(start, len(frame)):
        length = end - (14 if at == 16 else 54)
        yield sealed(frame[:at] + length.to_bytes(2, "big") + frame[at + 2 : end])


def sealed(frame: bytes) -> bytes:
    """The frame with right checksums of IPv4, ICMP, IGMP and ICMPv6, as far as it has them."""
    made = bytearray(frame)
    if frame[12:14] == b"\x08\0" and len(frame) >= 34:
        start, end = 14 + (frame[14] & 15) * 4, min(len(frame), 14 + int.from_bytes(frame[16:18], "big"))
        if start >= 34 and start <= len(frame):
            _seal(made, 24, 14, start, b"")
        if frame[23] in (ICMP, IGMP):
            _seal(made, start + 2, start, end, b"")
    elif frame[12:14] == b"\x86\xdd" and len(frame) >= 56:
        end = min(len(frame), 54 + int.from_bytes(frame[18:20], "big"))
        following, start = (frame[54], 54 + (frame[55] + 1) * 8) if frame[20] == 0 else (frame[20], 54)
        if following == ICMPV6:
            pseudo = frame[22:54] + max(end - start, 0).to_bytes(4, "big") + bytes((0, 0, 0, ICMPV6))
            _seal(made, start + 2, start, end, pseudo)
    return bytes(made)


def _seal(frame: bytearray, at: int, start: int, end: int, pseudo: bytes) -> None:
    if start < at and at + 2 <= end:
        frame[at : at + 2] = b"\0\0"
        data = pseudo + bytes(frame[start:end])
        words = int.from_bytes(data + bytes(len(data) % 2), "big")
        frame[at : at + 2] = (0xFFFF - words % 0xFFFF).to_bytes(2, "big")
