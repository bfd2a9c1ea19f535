"""What the shipped extensions read in a frame: addresses, protocol, ports. Never raises on any bytes."""

from __future__ import annotations

from typing import NamedTuple

from testbed.packets import ethernet
from testbed.packets.checksum import Buffer

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
UNKNOWN = -1  # protocol: the chain of headers ends early

_TAGS = (ethernet.TYPE_VLAN, ethernet.TYPE_QINQ)
_FRAGMENT, _AUTHENTICATION = 44, 51
_EXTENSIONS = (0, 43, 60, 135, 139, 140)  # IANA, IPv6 extension header types of (length + 1) * 8 bytes


class Headers(NamedTuple):
    """IP headers. Addresses: 4 or 16 bytes. offset, end: of what the last IP header carries, in the frame.

    fragment: the packet is one; later: and not the first, so that it carries no transport header.
    """

    source: bytes
    destination: bytes
    protocol: int
    offset: int
    end: int
    fragment: bool = False
    later: bool = False


def network(frame: Buffer) -> tuple[int, int]:
    """Ethernet type and the offset behind it, behind VLAN tags as well; type 0 in a truncated frame."""
    offset = ethernet.HEADER
    while len(frame) >= offset:
        kind = frame[offset - 2] << 8 | frame[offset - 1]
        if kind not in _TAGS:
            return kind, offset
        offset += 4
    return 0, len(frame)


def parse(frame: Buffer) -> Headers | None:
    """The IP headers of an Ethernet frame; None when it carries no IP or less than one IP header."""
    kind, offset = network(frame)
    if kind == ethernet.TYPE_IPV4:
        return parse_ipv4(frame, offset)
    return parse_ipv6(frame, offset) if kind == ethernet.TYPE_IPV6 else None


def parse_ipv4(data: Buffer, start: int) -> Headers | None:
    """The IPv4 header at ``start``."""
    if len(data) < start + 20 or data[start] >> 4 != 4:
        return None
    size = (data[start] & 15) * 4
    if size < 20:
        return None
    fragment = data[start + 6] << 8 | data[start + 7]
    return Headers(
        bytes(data[start + 12 : start + 16]),
        bytes(data[start + 16 : start + 20]),
        data[start + 9],
        min(start + size, len(data)),
        _end(data, start, data[start + 2] << 8 | data[start + 3], size),
        bool(fragment & 0x3FFF),
        bool(fragment & 0x1FFF),
    )


def parse_ipv6(data: Buffer, start: int) -> Headers | None:
    """The IPv6 header at ``start``, and its extension headers."""
    if len(data) < start + 40 or data[start] >> 4 != 6:
        return None
    source, destination = bytes(data[start + 8 : start + 24]), bytes(data[start + 24 : start + 40])
    payload = data[start + 4] << 8 | data[start + 5]
    end = _end(data, start, payload + 40 if payload else 0, 40)
    header, offset, fragment = data[start + 6], start + 40, False
    while header in _EXTENSIONS or header in (_FRAGMENT, _AUTHENTICATION):
        if end < offset + 8:
            return Headers(source, destination, UNKNOWN, end, end, fragment)
        following = data[offset]
        if header == _FRAGMENT:
            place = data[offset + 2] << 8 | data[offset + 3]
            if place & 0xFFF8:
                return Headers(source, destination, following, offset + 8, end, fragment=True, later=True)
            fragment = fragment or bool(place & 1)
            offset += 8
        else:
            length = data[offset + 1]
            offset += (length + 2) * 4 if header == _AUTHENTICATION else (length + 1) * 8
        header = following
    if offset > end:
        return Headers(source, destination, UNKNOWN, end, end, fragment)
    return Headers(source, destination, header, offset, end, fragment)


def ports(frame: Buffer, headers: Headers) -> tuple[int, int] | None:
    """Source and destination port of TCP and UDP; None of anything else and of later fragments.

    An IP length that ends before them hides nothing: packets of a flow differ in their lengths, and the
    decision on one of them holds for all.
    """
    at = headers.offset
    if headers.protocol not in (TCP, UDP) or headers.later or len(frame) < at + 4:
        return None
    return frame[at] << 8 | frame[at + 1], frame[at + 2] << 8 | frame[at + 3]


def icmp_type(frame: Buffer, headers: Headers) -> int | None:
    """The type of an ICMP or ICMPv6 message."""
    if headers.protocol not in (ICMP, ICMPV6) or headers.later or headers.end <= headers.offset:
        return None
    return frame[headers.offset]


def payload(frame: Buffer, headers: Headers) -> tuple[int, int]:
    """Where the transport payload starts and ends; of other protocols and fragments all behind IP."""
    at, end = headers.offset, headers.end
    if headers.later:
        return at, end
    if headers.protocol == TCP and end >= at + 20:
        at += (frame[at + 12] >> 4) * 4
    elif headers.protocol == UDP:
        at += 8
    return min(at, end), end


def _end(data: Buffer, start: int, total: int, header: int) -> int:
    """Where the packet ends: by its length, or (a super-packet has none to tell) with the data."""
    return min(len(data), start + total) if total >= header else len(data)
