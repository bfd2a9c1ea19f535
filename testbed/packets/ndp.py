"""Neighbor Discovery: Neighbor Solicitation and Advertisement (RFC 4861 sections 4.3 and 4.4)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from testbed.packets import ethernet
from testbed.packets.checksum import Buffer, checksum, ones_sum
from testbed.packets.malformed import MalformedFrame

ROUTER_SOLICITATION = 133
ROUTER_ADVERTISEMENT = 134
NEIGHBOR_SOLICITATION = 135
NEIGHBOR_ADVERTISEMENT = 136
REDIRECT = 137

NEXT_HEADER_ICMPV6 = 58
UNSPECIFIED = b"\0" * 16
ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
_SOLICITED_NODE = bytes.fromhex("ff0200000000000000000001ff")

_IPV6_HEADER = struct.Struct("!IHBB16s16s")
_ICMP_OFFSET = ethernet.HEADER + 40
_FRAGMENT, _AUTHENTICATION = 44, 51
_EXTENSIONS = (0, 43, _FRAGMENT, _AUTHENTICATION, 60)  # hop-by-hop, routing, ..., destination options
_OPTION_SOURCE_LINK = 1
_OPTION_TARGET_LINK = 2

FLAG_ROUTER = 0x80
FLAG_SOLICITED = 0x40
FLAG_OVERRIDE = 0x20


class Neighbor(NamedTuple):
    """An NS or NA. link_address: the source (NS) or target (NA) link-layer option, if any."""

    type: int
    source: bytes
    destination: bytes
    target: bytes
    flags: int = 0
    link_address: bytes | None = None

    @property
    def is_dad(self) -> bool:
        """A solicitation from the unspecified address is a DAD probe (RFC 4862 section 5.4.3)."""
        return self.type == NEIGHBOR_SOLICITATION and self.source == UNSPECIFIED


def solicited_node(address: bytes) -> bytes:
    """The multicast group at which the owner of an address is asked (RFC 4291 section 2.7.1)."""
    return _SOLICITED_NODE + address[13:]


def icmpv6_type(frame: Buffer) -> int | None:
    """The ICMPv6 type of a frame whose Ethernet type is IPv6, or None when it carries none.

    Looks behind extension headers: they would hide a router advertisement otherwise (RFC 7113
    section 2.1). Of a fragment only the first has a type.
    """
    if len(frame) < _ICMP_OFFSET:
        return None
    header, offset = frame[20], _ICMP_OFFSET
    while header != NEXT_HEADER_ICMPV6:
        if header not in _EXTENSIONS or len(frame) < offset + 8:
            return None
        following, length = frame[offset], frame[offset + 1]
        if header == _FRAGMENT:
            if (frame[offset + 2] << 8 | frame[offset + 3]) & 0xFFF8:
                return None
            offset += 8
        else:
            offset += (length + 2) * 4 if header == _AUTHENTICATION else (length + 1) * 8
        header = following
    return frame[offset] if len(frame) > offset else None


def parse(frame: Buffer) -> Neighbor:
    """The NS or NA in a whole frame. Checks what RFC 4861 section 7.1 tells a receiver to check."""
    if len(frame) < _ICMP_OFFSET + 24:
        raise MalformedFrame("ND truncated")
    first, length, next_header, hops, source, destination = _IPV6_HEADER.unpack_from(frame, ethernet.HEADER)
    if first >> 28 != 6 or next_header != NEXT_HEADER_ICMPV6 or hops != 255:
        raise MalformedFrame("ND with hop limit below 255 or behind an extension header")
    if length < 24 or len(frame) < _ICMP_OFFSET + length:
        raise MalformedFrame("ND payload length lies")
    body = bytes(frame[_ICMP_OFFSET : _ICMP_OFFSET + length])
    if body[0] not in (NEIGHBOR_SOLICITATION, NEIGHBOR_ADVERTISEMENT) or body[1] != 0:
        raise MalformedFrame("not a neighbor message")
    if ones_sum(body, _pseudo(source, destination, length)) != 0xFFFF:
        raise MalformedFrame("ND checksum wrong")
    wanted = _OPTION_SOURCE_LINK if body[0] == NEIGHBOR_SOLICITATION else _OPTION_TARGET_LINK
    return Neighbor(body[0], source, destination, body[8:24], body[4], _link_option(body[24:], wanted))


def build(message: Neighbor, destination_mac: bytes, source_mac: bytes) -> bytes:
    """A whole frame with a correct checksum."""
    option = b""
    if message.link_address is not None:
        kind = _OPTION_SOURCE_LINK if message.type == NEIGHBOR_SOLICITATION else _OPTION_TARGET_LINK
        option = bytes((kind, 1)) + message.link_address
    body = bytearray(struct.pack("!BBHI", message.type, 0, 0, message.flags << 24) + message.target + option)
    pseudo = _pseudo(message.source, message.destination, len(body))
    struct.pack_into("!H", body, 2, checksum(body, pseudo))
    header = _IPV6_HEADER.pack(
        6 << 28, len(body), NEXT_HEADER_ICMPV6, 255, message.source, message.destination
    )
    return ethernet.build(destination_mac, source_mac, ethernet.TYPE_IPV6, header + bytes(body))


def _pseudo(source: bytes, destination: bytes, length: int) -> int:
    return ones_sum(source + destination, length + NEXT_HEADER_ICMPV6)


def _link_option(options: bytes, wanted: int) -> bytes | None:
    at, end = 0, len(options)
    while at < end:
        size = options[at + 1] * 8 if at + 1 < end else 0
        if size == 0 or at + size > end:
            raise MalformedFrame("ND option length lies")
        if options[at] == wanted and size == 8:
            return options[at + 2 : at + 8]
        at += size
    return None
