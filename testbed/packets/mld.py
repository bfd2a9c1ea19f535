"""Multicast Listener Discovery of a host: queries it hears, reports it sends.

RFC 3810; RFC 2710 for version 1. Queries and records are those of :mod:`testbed.packets.igmp`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from testbed.packets.datagram import ICMPV6, Datagram, check_payload, with_checksum
from testbed.packets.igmp import Query, Record, decode_code
from testbed.packets.malformed import MalformedFrame

QUERY = 130
_V1_REPORT, _V1_DONE, _V2_REPORT = 131, 132, 143
ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
ALL_ROUTERS = bytes.fromhex("ff020000000000000000000000000002")
ALL_V2_ROUTERS = bytes.fromhex("ff020000000000000000000000000016")
ANY = bytes(16)


def parse_query(datagram: Datagram) -> Query | None:
    """The query in an ICMPv6 datagram; None when it is another message.

    Checks of RFC 3810 section 6.2: link-local source, hop limit 1, router alert; versions are told
    apart by length (section 8.1).
    """
    if datagram.protocol != ICMPV6 or len(datagram.source) != 16:
        raise MalformedFrame("not ICMPv6")
    check_payload(datagram, 8, "ICMPv6")
    body = datagram.payload
    if body[0] != QUERY:
        return None
    if datagram.source[0] != 0xFE or datagram.source[1] & 0xC0 != 0x80:
        raise MalformedFrame("MLD query from an address that is not link-local")
    if datagram.hops != 1 or not datagram.router_alert:
        raise MalformedFrame("MLD query with a hop limit above 1 or without router alert")
    if len(body) < 24 or 24 < len(body) < 28:
        raise MalformedFrame("MLD query of a length of no version")
    group, code = body[8:24], body[4] << 8 | body[5]
    if any(group) and group[0] != 0xFF:
        raise MalformedFrame("MLD query for an address that is no group")
    if not any(group) and datagram.destination != ALL_NODES:
        raise MalformedFrame("general MLD query that is not for all nodes")
    if len(body) == 24:
        return Query(group, code / 1000, older=True)
    count = body[26] << 8 | body[27]
    if len(body) < 28 + 16 * count:
        raise MalformedFrame("MLD query's number of sources lies")
    sources = tuple(body[at : at + 16] for at in range(28, 28 + 16 * count, 16))
    interval = float(decode_code(body[25], 8))
    return Query(group, decode_code(code, 16) / 1000, False, interval, sources)


def build_report(source: bytes, records: Sequence[Record]) -> Datagram:
    """A version 2 report. source: a link-local address, or :: (RFC 3810 section 5.2.13)."""
    body = struct.pack("!BBHHH", _V2_REPORT, 0, 0, 0, len(records))
    body += b"".join(struct.pack("!BBH16s", record.kind, 0, 0, record.group) for record in records)
    return _datagram(source, ALL_V2_ROUTERS, body)


def build_v1_report(source: bytes, group: bytes) -> Datagram:
    """A version 1 report, sent to the group itself."""
    return _datagram(source, group, struct.pack("!BBHHH16s", _V1_REPORT, 0, 0, 0, 0, group))


def build_v1_done(source: bytes, group: bytes) -> Datagram:
    """A version 1 done message: the group has been left."""
    return _datagram(source, ALL_ROUTERS, struct.pack("!BBHHH16s", _V1_DONE, 0, 0, 0, 0, group))


def _datagram(source: bytes, destination: bytes, body: bytes) -> Datagram:
    return with_checksum(Datagram(source, destination, ICMPV6, body, 1, True))
