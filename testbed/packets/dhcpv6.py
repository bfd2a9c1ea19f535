"""DHCP for IPv6 (RFC 8415), as far as one who overhears it has to read it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from testbed.packets.checksum import Buffer
from testbed.packets.malformed import MalformedFrame

CLIENT_PORT, SERVER_PORT = 546, 547
# RFC 8415 section 7.3
SOLICIT, ADVERTISE, REQUEST, CONFIRM, RENEW, REBIND, REPLY = range(1, 8)
_LAST_OF_CLIENT = 11  # INFORMATION-REQUEST; behind it are the relays' own messages, of another form

HEADER = 4
_OPTION = struct.Struct("!HH")
_IA_NA, _IA_ADDRESS = 3, 5
_IA_NA_FIXED = 12  # IAID, T1, T2 (section 21.4)
_IA_ADDRESS_FIXED = 24  # address, preferred and valid lifetime (section 21.6)


class Dhcpv6(NamedTuple):
    """A message between client and server. transaction: 3 bytes.

    addresses: those of its IA_NAs whose valid lifetime is not 0.
    """

    kind: int
    transaction: bytes
    addresses: tuple[bytes, ...]


def parse(payload: Buffer) -> Dhcpv6:
    """The message in a UDP payload. Raises MalformedFrame, also for messages between relays."""
    if len(payload) < HEADER:
        raise MalformedFrame("DHCPv6 truncated")
    data = bytes(payload)
    if not SOLICIT <= data[0] <= _LAST_OF_CLIENT:
        raise MalformedFrame("DHCPv6 of a relay, or unknown")
    given = tuple(
        address
        for kind, association in _options(data[HEADER:])
        if kind == _IA_NA
        for address in _addresses(association)
    )
    return Dhcpv6(data[0], data[1:HEADER], given)


def _addresses(association: bytes) -> Iterator[bytes]:
    if len(association) < _IA_NA_FIXED:
        raise MalformedFrame("DHCPv6 identity association truncated")
    for kind, address in _options(association[_IA_NA_FIXED:]):
        if kind != _IA_ADDRESS:
            continue
        if len(address) < _IA_ADDRESS_FIXED:
            raise MalformedFrame("DHCPv6 address truncated")
        if any(address[20:24]):  # the valid lifetime
            yield address[:16]


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if at + _OPTION.size > len(data):
            raise MalformedFrame("DHCPv6 option truncated")
        kind, size = _OPTION.unpack_from(data, at)
        at += _OPTION.size
        if at + size > len(data):
            raise MalformedFrame("DHCPv6 option length lies")
        yield kind, data[at : at + size]
        at += size
