"""NVGRE (RFC 7637 section 3): the outer headers in front of the inner frame, over IPv4 and IPv6.

::

    0        14               34          42
    | Ethernet | outer IPv4   | GRE + key | inner Ethernet frame, untagged, no FCS
    0        14                       54          62
    | Ethernet | outer IPv6           | GRE + key | inner Ethernet frame, untagged, no FCS

The family is that of the provider addresses (PAs), 4 or 16 bytes, whatever the inner frame holds.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from testbed.packets import ethernet
from testbed.packets.checksum import Buffer, ones_sum
from testbed.packets.malformed import MalformedFrame

OUTER_IPV4 = 42  # outer Ethernet 14 + IPv4 20 + GRE 8
OUTER_IPV6 = 62  # outer Ethernet 14 + IPv6 40 + GRE 8
# The IP MTU of the PA network loses as much: there it is the inner Ethernet header that counts.
OVERHEAD_IPV4 = 42
OVERHEAD_IPV6 = 62
PROTOCOL_GRE = 47
GRE_WORDS = b"\x20\x00\x65\x58"  # K set, C and S clear; Transparent Ethernet Bridging

LENGTH_AT = 16  # offsets in the IPv4 frame that differ per packet
CHECKSUM_AT = 24
PAYLOAD_LENGTH_AT = 18  # the only one in the IPv6 frame

_HOP_LIMIT = 64
_FRAGMENT, _AUTHENTICATION = 44, 51
_EXTENSIONS = (0, 43, _FRAGMENT, _AUTHENTICATION, 60, 135, 139, 140)  # IANA, IPv6 extension header types


class Outer(NamedTuple):
    """What the outer headers of a received frame say.

    length: the whole frame's, by the IP header. header: bytes before the inner frame, 42 or 62.
    """

    destination_mac: bytes
    source_mac: bytes
    source_pa: bytes
    destination_pa: bytes
    vsid: int
    flow_id: int
    length: int
    header: int = OUTER_IPV4


def template(
    destination_mac: bytes,
    source_mac: bytes,
    source_pa: bytes,
    destination_pa: bytes,
    vsid: int,
    flow_id: int,
) -> bytes:
    """42 or 62 outer bytes with lengths and checksum zero; both PAs are of one family.

    IPv4: DF is set and the id zero: the sender must not fragment (RFC 7637 section 4.4), and
    an unfragmentable datagram needs no id (RFC 6864 section 4.1). IPv6: the flow label is zero,
    entropy is in the FlowID as over IPv4.
    """
    if len(source_pa) == 4:
        kind = ethernet.TYPE_IPV4
        ip = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0x4000, _HOP_LIMIT, PROTOCOL_GRE, 0, source_pa, destination_pa
        )
    else:
        kind = ethernet.TYPE_IPV6
        ip = struct.pack("!IHBB16s16s", 6 << 28, 0, PROTOCOL_GRE, _HOP_LIMIT, source_pa, destination_pa)
    key = (vsid << 8 | flow_id).to_bytes(4, "big")
    return ethernet.build(destination_mac, source_mac, kind, ip + GRE_WORDS + key)


def header_sum(outer: Buffer) -> int:
    """Partial sum of the template's IPv4 header: add the total length, fold and invert."""
    return ones_sum(outer[14:34])


def carries_gre(frame: Buffer) -> bool:
    """Whether a frame is GRE over IPv4 or IPv6, behind extension headers too (which ``parse`` refuses)."""
    kind = ethernet.ethertype(frame)
    if kind == ethernet.TYPE_IPV4:
        return len(frame) >= 34 and frame[23] == PROTOCOL_GRE
    if kind != ethernet.TYPE_IPV6 or len(frame) < 54:
        return False
    header, offset = frame[20], 54
    while header in _EXTENSIONS:
        if len(frame) < offset + 8:
            return False
        following = frame[offset]
        if header == _FRAGMENT:
            length = 8
        elif header == _AUTHENTICATION:
            length = (frame[offset + 1] + 2) * 4
        else:
            length = (frame[offset + 1] + 1) * 8
        header, offset = following, offset + length
    return header == PROTOCOL_GRE


def parse(frame: Buffer) -> Outer:
    """The outer headers of an NVGRE frame. Raises MalformedFrame."""
    if len(frame) < OUTER_IPV4 + ethernet.HEADER:
        raise MalformedFrame("NVGRE truncated")
    kind = ethernet.ethertype(frame)
    if kind == ethernet.TYPE_IPV6:
        return _parse_ipv6(frame)
    if kind != ethernet.TYPE_IPV4:
        raise MalformedFrame("outer header is not IP")
    if frame[14] != 0x45:
        raise MalformedFrame("outer IPv4 header is not 20 bytes")
    total = frame[16] << 8 | frame[17]
    if total < OVERHEAD_IPV4 or 14 + total > len(frame):
        raise MalformedFrame("outer IPv4 length lies")
    if (frame[20] << 8 | frame[21]) & 0x3FFF:
        raise MalformedFrame("outer fragment")
    if frame[23] != PROTOCOL_GRE or bytes(frame[34:38]) != GRE_WORDS:
        raise MalformedFrame("GRE header is not NVGRE's")
    if ones_sum(frame[14:34]) != 0xFFFF:
        raise MalformedFrame("outer IPv4 checksum wrong")
    return Outer(
        bytes(frame[0:6]),
        bytes(frame[6:12]),
        bytes(frame[26:30]),
        bytes(frame[30:34]),
        int.from_bytes(frame[38:41], "big"),
        frame[41],
        14 + total,
        OUTER_IPV4,
    )


def _parse_ipv6(frame: Buffer) -> Outer:
    if len(frame) < OUTER_IPV6 + ethernet.HEADER:
        raise MalformedFrame("NVGRE truncated")
    if frame[14] >> 4 != 6:
        raise MalformedFrame("outer IPv6 header is of another version")
    payload = frame[18] << 8 | frame[19]
    if payload < 8 + ethernet.HEADER or 54 + payload > len(frame):
        raise MalformedFrame("outer IPv6 length lies")
    if frame[20] in _EXTENSIONS:
        raise MalformedFrame("outer IPv6 extension header or fragment")
    if frame[20] != PROTOCOL_GRE or bytes(frame[54:58]) != GRE_WORDS:
        raise MalformedFrame("GRE header is not NVGRE's")
    return Outer(
        bytes(frame[0:6]),
        bytes(frame[6:12]),
        bytes(frame[22:38]),
        bytes(frame[38:54]),
        int.from_bytes(frame[58:61], "big"),
        frame[61],
        54 + payload,
        OUTER_IPV6,
    )
