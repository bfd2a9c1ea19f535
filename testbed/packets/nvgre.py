"""NVGRE over IPv4 (RFC 7637 section 3): the 42 bytes in front of the inner frame.

::

    0        14               34          42
    | Ethernet | outer IPv4   | GRE + key | inner Ethernet frame, untagged, no FCS
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from testbed.packets import ethernet
from testbed.packets.checksum import Buffer, ones_sum
from testbed.packets.malformed import MalformedFrame

OUTER = 42  # outer Ethernet + IPv4 + GRE
OVERHEAD = 42  # what the IP MTU of the PA network loses: IPv4 20 + GRE 8 + inner Ethernet 14
PROTOCOL_GRE = 47
GRE_WORDS = b"\x20\x00\x65\x58"  # K set, C and S clear; Transparent Ethernet Bridging

LENGTH_AT = 16  # offsets in the frame that differ per packet
CHECKSUM_AT = 24


class Outer(NamedTuple):
    """What the outer headers of a received frame say. length: the whole frame's, by the IP header."""

    destination_mac: bytes
    source_mac: bytes
    source_pa: bytes
    destination_pa: bytes
    vsid: int
    flow_id: int
    length: int


def template(
    destination_mac: bytes,
    source_mac: bytes,
    source_pa: bytes,
    destination_pa: bytes,
    vsid: int,
    flow_id: int,
) -> bytes:
    """42 outer bytes with IP length and checksum zero.

    DF is set and the id zero: the sender must not fragment (RFC 7637 section 4.4), and
    an unfragmentable datagram needs no id (RFC 6864 section 4.1).
    """
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0x4000, 64, PROTOCOL_GRE, 0, source_pa, destination_pa)
    return ethernet.build(
        destination_mac,
        source_mac,
        ethernet.TYPE_IPV4,
        ip + GRE_WORDS + (vsid << 8 | flow_id).to_bytes(4, "big"),
    )


def header_sum(outer: Buffer) -> int:
    """Partial sum of the template's IPv4 header: add the total length, fold and invert."""
    return ones_sum(outer[14:34])


def parse(frame: Buffer) -> Outer:
    """The outer headers of an NVGRE frame over IPv4."""
    if len(frame) < OUTER + ethernet.HEADER:
        raise MalformedFrame("NVGRE truncated")
    if frame[14] != 0x45:
        raise MalformedFrame("outer IPv4 header is not 20 bytes")
    total = frame[16] << 8 | frame[17]
    if total < OVERHEAD or 14 + total > len(frame):
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
    )
