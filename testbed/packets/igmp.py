"""IGMP of a host: queries it hears, reports it sends (RFC 3376; RFC 2236 for version 2)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from testbed.packets.datagram import IGMP, Datagram, check_payload, with_checksum
from testbed.packets.malformed import MalformedFrame

QUERY = 0x11
_V2_REPORT, _V2_LEAVE, _V3_REPORT = 0x16, 0x17, 0x22
ALL_SYSTEMS = bytes([224, 0, 0, 1])
ALL_ROUTERS = bytes([224, 0, 0, 2])
ALL_V3_ROUTERS = bytes([224, 0, 0, 22])
ANY = bytes(4)
_INTERNETWORK_CONTROL = 0xC0  # type of service of every IGMPv3 message (RFC 3376 section 4)
_V1_MAX_RESPONSE = 10.0  # a version 1 query has none: RFC 3376 section 7.2.1


class Query(NamedTuple):
    """A membership query, of IGMP or MLD. group: 4 or 16 bytes, unspecified in a general query.

    older: of a version without source lists. max_response, interval: seconds; interval 0: not told.
    sources: a group-and-source-specific query's.
    """

    group: bytes
    max_response: float
    older: bool
    interval: float = 0.0
    sources: tuple[bytes, ...] = ()

    @property
    def is_general(self) -> bool:
        """Whether it asks for all groups."""
        return not any(self.group)


class Record(NamedTuple):
    """A group record without sources. kind: see the constants of this module; MLD has the same."""

    kind: int
    group: bytes


IS_EXCLUDE = 2  # current state: a member, whatever the source
TO_INCLUDE = 3  # with no sources: has left
TO_EXCLUDE = 4  # has joined


def decode_code(code: int, bits: int) -> int:
    """A Max Resp Code or QQIC of ``bits`` (8 or 16); with the top bit set it is an exponent and a mantissa.

    RFC 3376 section 4.1.1, RFC 3810 section 5.1.3.
    """
    if code < 1 << (bits - 1):
        return code
    mantissa_bits = bits - 4
    mantissa = code & ((1 << mantissa_bits) - 1)
    exponent = code >> mantissa_bits & 7
    return (mantissa | 1 << mantissa_bits) << (exponent + 3)


def parse_query(datagram: Datagram) -> Query | None:
    """The query in an IGMP datagram; None when it is another message.

    Versions are told apart by length (RFC 3376 section 7.1).
    """
    if datagram.protocol != IGMP or len(datagram.source) != 4:
        raise MalformedFrame("not IGMP")
    check_payload(datagram, 8, "IGMP")
    body = datagram.payload
    if body[0] != QUERY:
        return None
    group = body[4:8]
    if any(group) and group[0] & 0xF0 != 0xE0:
        raise MalformedFrame("IGMP query for an address that is no group")
    if not any(group) and datagram.destination != ALL_SYSTEMS:
        raise MalformedFrame("general IGMP query that is not for all systems")
    if len(body) == 8:
        return Query(group, body[1] / 10 if body[1] else _V1_MAX_RESPONSE, older=True)
    if len(body) < 12:
        raise MalformedFrame("IGMP query of a length between versions 2 and 3")
    count = body[10] << 8 | body[11]
    if len(body) < 12 + 4 * count:
        raise MalformedFrame("IGMP query's number of sources lies")
    sources = tuple(body[at : at + 4] for at in range(12, 12 + 4 * count, 4))
    interval = float(decode_code(body[9], 8))
    return Query(group, decode_code(body[1], 8) / 10, False, interval, sources)


def build_report(source: bytes, records: Sequence[Record]) -> Datagram:
    """A version 3 report. source: an address of the host, or 0.0.0.0 (RFC 3376 section 4.2.13)."""
    body = struct.pack("!BBHHH", _V3_REPORT, 0, 0, 0, len(records))
    body += b"".join(struct.pack("!BBH4s", record.kind, 0, 0, record.group) for record in records)
    return _datagram(source, ALL_V3_ROUTERS, body)


def build_v2_report(source: bytes, group: bytes) -> Datagram:
    """A version 2 report, sent to the group itself."""
    return _datagram(source, group, struct.pack("!BBH4s", _V2_REPORT, 0, 0, group))


def build_v2_leave(source: bytes, group: bytes) -> Datagram:
    """A version 2 leave message."""
    return _datagram(source, ALL_ROUTERS, struct.pack("!BBH4s", _V2_LEAVE, 0, 0, group))


def _datagram(source: bytes, destination: bytes, body: bytes) -> Datagram:
    return with_checksum(Datagram(source, destination, IGMP, body, 1, True, _INTERNETWORK_CONTROL))
