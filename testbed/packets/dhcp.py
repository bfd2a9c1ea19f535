"""DHCP for IPv4 (RFC 2131, options RFC 2132), as far as one who overhears it has to read it."""

from __future__ import annotations

import struct
from typing import NamedTuple

from testbed.packets.checksum import Buffer
from testbed.packets.malformed import MalformedFrame

SERVER_PORT, CLIENT_PORT = 67, 68
BOOTREQUEST, BOOTREPLY = 1, 2
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)  # RFC 2132 section 9.6

# op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file, cookie
_FIXED = struct.Struct("!4B4s4x4s4s4s4s16s64x128x4s")
SIZE = _FIXED.size
_COOKIE = b"\x63\x82\x53\x63"
_ETHERNET = 1
_PAD, _END, _MESSAGE_TYPE = 0, 255, 53


class Dhcp(NamedTuple):
    """A DHCP message. transaction: 4 bytes; client: the client's MAC; yours: the address it is given."""

    operation: int
    kind: int
    transaction: bytes
    client: bytes
    yours: bytes


def parse(payload: Buffer) -> Dhcp:
    """The message in a UDP payload. Raises MalformedFrame, also for BOOTP and for clients off Ethernet."""
    if len(payload) < SIZE:
        raise MalformedFrame("DHCP truncated")
    operation, hardware, size, _, transaction, _, yours, _, _, client, cookie = _FIXED.unpack_from(payload)
    if operation not in (BOOTREQUEST, BOOTREPLY) or (hardware, size) != (_ETHERNET, 6):
        raise MalformedFrame("DHCP of no Ethernet client")
    if cookie != _COOKIE:
        raise MalformedFrame("BOOTP without DHCP's options")
    return Dhcp(operation, _kind(bytes(payload[SIZE:])), transaction, client[:6], yours)


def _kind(options: bytes) -> int:
    """The message type. Every DHCP message has one, and it never overflows into other fields."""
    at = 0
    while at < len(options) and options[at] != _END:
        if options[at] == _PAD:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0xFF
        if at + 2 + size > len(options):
            raise MalformedFrame("DHCP option length lies")
        if options[at] == _MESSAGE_TYPE:
            if size != 1:
                raise MalformedFrame("DHCP message type of another size")
            return options[at + 2]
        at += 2 + size
    raise MalformedFrame("DHCP without a message type")
