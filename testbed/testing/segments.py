"""TCP segments as a test reads them in captured frames, and the stream that they make up.

Without the switch's codecs: a fault must not agree with itself.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from typing import NamedTuple

from testbed.conformance import frames

_TCP = 6


class Segment(NamedTuple):
    """size: bytes of the IP packet. data: the payload. is_good: whether all its checksums are right.

    identification: of IPv4, -1 of IPv6, which has none.
    """

    source: str
    destination: str
    ports: tuple[int, int]
    sequence: int
    data: bytes
    size: int
    identification: int
    is_good: bool


def parse(frame: bytes) -> Segment | None:
    """The segment in an Ethernet frame; None when it is none, or a piece of one."""
    kind = frame[12:14]
    if kind == b"\x08\x00" and frame[23] == _TCP and not int.from_bytes(frame[20:22], "big") & 0x3FFF:
        at, size = 14 + (frame[14] & 15) * 4, int.from_bytes(frame[16:18], "big")
        addresses, header_good = (frame[26:30], frame[30:34]), frames.checksum(frame[14:at]) == 0
        identification = int.from_bytes(frame[18:20], "big")
    elif kind == b"\x86\xdd" and frame[20] == _TCP:
        at, size, header_good, identification = 54, 40 + int.from_bytes(frame[18:20], "big"), True, -1
        addresses = frame[22:38], frame[38:54]
    else:
        return None
    tcp = frame[at : 14 + size]
    if len(tcp) < 20 or len(frame) < 14 + size:
        return None
    pseudo = b"".join(addresses) + struct.pack("!II", len(tcp), _TCP)
    source, destination = (str(ipaddress.ip_address(each)) for each in addresses)
    one, other, sequence = struct.unpack_from("!HHI", tcp)
    good = header_good and frames.checksum(pseudo + tcp) == 0
    data = tcp[tcp[12] >> 2 & 60 :]
    return Segment(source, destination, (one, other), sequence, data, size, identification, good)


def stream(segments: Iterable[Segment]) -> bytes:
    """What one direction of a connection has carried, in its order; what was sent again counts once.

    Raises AssertionError where a piece is missing.
    """
    pieces = [each for each in segments if each.data]
    if not pieces:
        return b""
    first = pieces[0].sequence
    placed = sorted(((each.sequence - first + (1 << 31)) % (1 << 32), each.data) for each in pieces)
    base = placed[0][0]
    found = bytearray()
    for position, data in placed:
        at = position - base
        assert at <= len(found), f"bytes {len(found)} to {at} are missing"
        found[at : at + len(data)] = data
    return bytes(found)
