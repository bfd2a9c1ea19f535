"""ICMP redirects that a router sends to an NVGRE endpoint (RFC 792; RFC 4861 sections 4.5 and 8.1)."""

from __future__ import annotations

from typing import NamedTuple

from testbed.packets import ethernet
from testbed.packets.checksum import Buffer
from testbed.packets.datagram import GRE, ICMP, ICMPV6, Datagram, check_payload
from testbed.packets.malformed import MalformedFrame

_TYPE_V4, _TYPE_V6 = 5, 137
_OPTION_REDIRECTED = 4
_KEYED = 0x2000  # GRE: K
_BRIDGED = 0x6558
_NVGRE = 8


class Redirect(NamedTuple):
    """``router`` says: to ``destination`` by way of ``better``. Addresses are 4 or 16 bytes.

    source, vsid, customer_address: of the packet that caused it; the latter two as far as the router
    quoted it (0, b"" otherwise). customer_address is the inner destination.
    """

    router: bytes
    destination: bytes
    better: bytes
    source: bytes
    vsid: int = 0
    customer_address: bytes = b""


def parse(datagram: Datagram) -> Redirect | None:
    """The redirect in an ICMP or ICMPv6 datagram; None when it is another message."""
    if datagram.protocol == ICMP and len(datagram.source) == 4:
        check_payload(datagram, 8, "ICMP")
        if datagram.payload[0] != _TYPE_V4:
            return None
        return _parse_v4(datagram)
    if datagram.protocol == ICMPV6 and len(datagram.source) == 16:
        check_payload(datagram, 8, "ICMPv6")
        if datagram.payload[0] != _TYPE_V6:
            return None
        return _parse_v6(datagram)
    raise MalformedFrame("not the ICMP of its family")


def _parse_v4(datagram: Datagram) -> Redirect:
    body = datagram.payload
    if body[1] > 3 or len(body) < 28 or body[8] >> 4 != 4:
        raise MalformedFrame("ICMP redirect without the packet it is about")
    found = Redirect(datagram.source, body[24:28], body[4:8], body[20:24])
    size = (body[8] & 0xF) * 4
    return _with_inner(found, body[8 + size :]) if size >= 20 and body[17] == GRE else found


def _parse_v6(datagram: Datagram) -> Redirect:
    body = datagram.payload
    if datagram.hops != 255 or datagram.source[0] != 0xFE or datagram.source[1] & 0xC0 != 0x80:
        raise MalformedFrame("ICMPv6 redirect that did not come from a router of the link")
    if len(body) < 40 or body[1] != 0 or body[24] == 0xFF:
        raise MalformedFrame("ICMPv6 redirect truncated, or for a multicast address")
    found = Redirect(datagram.source, body[24:40], body[8:24], datagram.destination)
    options = body[40:]
    while options:
        if len(options) < 2 or options[1] == 0 or len(options) < options[1] * 8:
            raise MalformedFrame("ND option length lies")
        packet = options[8 : options[1] * 8]
        if options[0] == _OPTION_REDIRECTED and len(packet) >= 40 and packet[0] >> 4 == 6:
            return _with_inner(found, packet[40:]) if packet[6] == GRE else found
        options = options[options[1] * 8 :]
    return found


def _with_inner(found: Redirect, gre: Buffer) -> Redirect:
    """The redirect with what the quoted packet's GRE header and inner frame tell."""
    words = bytes(gre[:_NVGRE])
    if len(words) < _NVGRE or words[:4] != (_KEYED << 16 | _BRIDGED).to_bytes(4, "big"):
        return found
    found = found._replace(vsid=int.from_bytes(words[4:7], "big"))
    inner = bytes(gre[_NVGRE:])
    if len(inner) >= 34 and ethernet.ethertype(inner) == ethernet.TYPE_IPV4:
        return found._replace(customer_address=inner[30:34])
    if len(inner) >= 54 and ethernet.ethertype(inner) == ethernet.TYPE_IPV6:
        return found._replace(customer_address=inner[38:54])
    return found
