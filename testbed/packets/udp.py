"""Where UDP is in a frame, for who overhears it. Guests leave checksums to the NIC: nobody looks at them."""

from __future__ import annotations

from typing import NamedTuple

from testbed.packets import ethernet
from testbed.packets.checksum import Buffer

PROTOCOL = 17
HEADER = 8

_IPV4_HEADER, _IPV6_HEADER = 20, 40
_FRAGMENT = 0x3FFF


class Udp(NamedTuple):
    """A UDP datagram: its ports, and where in the frame its payload is."""

    source: int
    destination: int
    start: int
    end: int


def find(frame: Buffer) -> Udp | None:
    """The datagram of a whole frame; None for fragments, lying lengths, extension headers, anything else."""
    at = _header_at(frame)
    if at is None or len(frame) < at + HEADER:
        return None
    end = at + (frame[at + 4] << 8 | frame[at + 5])
    if not at + HEADER <= end <= len(frame):
        return None
    source, destination = frame[at] << 8 | frame[at + 1], frame[at + 2] << 8 | frame[at + 3]
    return Udp(source, destination, at + HEADER, end)


def _header_at(frame: Buffer) -> int | None:
    kind = ethernet.ethertype(frame) if len(frame) >= ethernet.HEADER else 0
    if kind == ethernet.TYPE_IPV4 and len(frame) >= ethernet.HEADER + _IPV4_HEADER:
        size = (frame[14] & 0xF) * 4
        fragment = (frame[20] << 8 | frame[21]) & _FRAGMENT
        if frame[14] >> 4 == 4 and size >= _IPV4_HEADER and frame[23] == PROTOCOL and not fragment:
            return ethernet.HEADER + size
        return None
    if kind != ethernet.TYPE_IPV6 or len(frame) < ethernet.HEADER + _IPV6_HEADER:
        return None
    return ethernet.HEADER + _IPV6_HEADER if frame[14] >> 4 == 6 and frame[20] == PROTOCOL else None
