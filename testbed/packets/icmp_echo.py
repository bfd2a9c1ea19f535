"""ICMP echo of both families (RFC 792, RFC 4443 section 4)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from testbed.packets.datagram import ICMP, ICMPV6, Datagram, check_payload, with_checksum
from testbed.packets.malformed import MalformedFrame

_HEADER = struct.Struct("!BBHHH")
_REQUEST = {ICMP: 8, ICMPV6: 128}
_REPLY = {ICMP: 0, ICMPV6: 129}


class Echo(NamedTuple):
    """An echo request, or the reply to one. source and destination: 4 or 16 bytes."""

    source: bytes
    destination: bytes
    is_reply: bool
    identifier: int
    sequence: int
    payload: bytes = b""

    def reply(self) -> Echo:
        """What the destination answers."""
        return self._replace(source=self.destination, destination=self.source, is_reply=True)


def parse(datagram: Datagram) -> Echo | None:
    """The echo in an ICMP or ICMPv6 datagram; None when it is another message."""
    protocol = ICMP if len(datagram.source) == 4 else ICMPV6
    if datagram.protocol != protocol:
        raise MalformedFrame("not the ICMP of its family")
    check_payload(datagram, _HEADER.size, "ICMP")
    kind, code, _, identifier, sequence = _HEADER.unpack_from(datagram.payload)
    if kind not in (_REQUEST[protocol], _REPLY[protocol]) or code != 0:
        return None
    reply = kind == _REPLY[protocol]
    body = datagram.payload[_HEADER.size :]
    return Echo(datagram.source, datagram.destination, reply, identifier, sequence, body)


def build(echo: Echo) -> Datagram:
    """The datagram of an echo, with its checksum."""
    protocol = ICMP if len(echo.source) == 4 else ICMPV6
    kind = (_REPLY if echo.is_reply else _REQUEST)[protocol]
    payload = _HEADER.pack(kind, 0, 0, echo.identifier, echo.sequence) + echo.payload
    return with_checksum(Datagram(echo.source, echo.destination, protocol, payload))
