"""Whole IPv4 and IPv6 datagrams in Ethernet frames, for the protocols that control itself speaks.

The switch's path has faster readers of its own; here every header is checked in full.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from testbed.packets import ethernet
from testbed.packets.checksum import Buffer, checksum, ones_sum
from testbed.packets.malformed import MalformedFrame

ICMP, IGMP, GRE, ICMPV6 = 1, 2, 47, 58
HOP_BY_HOP = 0

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_DONT_FRAGMENT = 0x4000
_ROUTER_ALERT_V4 = b"\x94\x04\x00\x00"  # RFC 2113 section 2.1
_ROUTER_ALERT_V6 = b"\x05\x02\x00\x00"  # RFC 2711 section 2.1
_PADDING_V6 = b"\x01\x00"  # PadN without data: fills the 8 bytes


class Datagram(NamedTuple):
    """An IP datagram. source and destination: 4 or 16 bytes, which is its family.

    protocol: IPv4 protocol, or IPv6 next header after a hop-by-hop header, if there was one.
    router_alert: the option that has routers look inside (RFC 2113, RFC 2711).
    """

    source: bytes
    destination: bytes
    protocol: int
    payload: bytes
    hops: int = 64
    router_alert: bool = False
    traffic_class: int = 0


def is_of_pa_space(frame: Buffer) -> bool:
    """Whether a frame is ARP, ICMP, IGMP, ICMPv6, or IPv6 with hop-by-hop options (as MLD is).

    What the endpoint of a tunnel says and hears beside its tunnels; told by 24 bytes.
    """
    if len(frame) < 24:
        return False
    match ethernet.ethertype(frame):
        case ethernet.TYPE_IPV4:
            return frame[23] in (ICMP, IGMP)
        case ethernet.TYPE_IPV6:
            return frame[20] in (ICMPV6, HOP_BY_HOP)
        case kind:
            return kind == ethernet.TYPE_ARP


def parse(frame: Buffer) -> Datagram:
    """The datagram of a whole frame. A fragment of an IPv4 datagram is MalformedFrame too."""
    match ethernet.ethertype(frame):
        case ethernet.TYPE_IPV4:
            return _parse_ipv4(bytes(frame[ethernet.HEADER :]))
        case ethernet.TYPE_IPV6:
            return _parse_ipv6(bytes(frame[ethernet.HEADER :]))
    raise MalformedFrame("neither IPv4 nor IPv6")


def build(datagram: Datagram, destination_mac: bytes, source_mac: bytes) -> bytes:
    """A whole frame. IPv4: not to be fragmented, id 0 (RFC 6864 section 4.1)."""
    if len(datagram.source) == 4:
        options = _ROUTER_ALERT_V4 if datagram.router_alert else b""
        packet = _build_ipv4(datagram, options) + datagram.payload
        return ethernet.build(destination_mac, source_mac, ethernet.TYPE_IPV4, packet)
    payload, protocol = datagram.payload, datagram.protocol
    if datagram.router_alert:
        payload = bytes((protocol, 0)) + _ROUTER_ALERT_V6 + _PADDING_V6 + payload
        protocol = HOP_BY_HOP
    first = 6 << 28 | datagram.traffic_class << 20
    header = _IPV6.pack(first, len(payload), protocol, datagram.hops, datagram.source, datagram.destination)
    return ethernet.build(destination_mac, source_mac, ethernet.TYPE_IPV6, header + payload)


def pseudo_header(datagram: Datagram) -> int:
    """Partial sum of the IPv6 pseudo-header (RFC 8200 section 8.1), or 0 for IPv4."""
    if len(datagram.source) == 4:
        return 0
    return ones_sum(datagram.source + datagram.destination, len(datagram.payload) + datagram.protocol)


def check_payload(datagram: Datagram, shortest: int, what: str) -> None:
    """MalformedFrame unless the payload has ``shortest`` bytes and the right checksum (bytes 2 and 3)."""
    if len(datagram.payload) < shortest:
        raise MalformedFrame(f"{what} truncated")
    if ones_sum(datagram.payload, pseudo_header(datagram)) != 0xFFFF:
        raise MalformedFrame(f"{what} checksum wrong")


def with_checksum(datagram: Datagram) -> Datagram:
    """The datagram with its payload's bytes 2 and 3 (zero before) filled with the checksum."""
    payload = bytearray(datagram.payload)
    payload[2:4] = checksum(payload, pseudo_header(datagram)).to_bytes(2, "big")
    return datagram._replace(payload=bytes(payload))


def multicast_mac(group: bytes) -> bytes:
    """The MAC of an IP multicast group (RFC 1112 section 6.4, RFC 2464 section 7)."""
    if len(group) == 4:
        return b"\x01\x00\x5e" + bytes((group[1] & 0x7F,)) + group[2:]
    return b"\x33\x33" + group[12:]


def _build_ipv4(datagram: Datagram, options: bytes) -> bytes:
    size = _IPV4.size + len(options)
    header = _IPV4.pack(
        4 << 4 | size // 4,
        datagram.traffic_class,
        size + len(datagram.payload),
        0,
        _DONT_FRAGMENT,
        datagram.hops,
        datagram.protocol,
        0,
        datagram.source,
        datagram.destination,
    )
    total = checksum(header + options)
    return header[:10] + total.to_bytes(2, "big") + header[12:] + options


def _parse_ipv4(packet: bytes) -> Datagram:
    if len(packet) < _IPV4.size:
        raise MalformedFrame("IPv4 truncated")
    first, traffic, total, _, fragment, hops, protocol, _, source, destination = _IPV4.unpack_from(packet)
    size = (first & 0xF) * 4
    if first >> 4 != 4 or size < _IPV4.size:
        raise MalformedFrame("IPv4 version or header length wrong")
    if not size <= total <= len(packet):
        raise MalformedFrame("IPv4 length lies")
    if ones_sum(packet[:size]) != 0xFFFF:
        raise MalformedFrame("IPv4 header checksum wrong")
    if fragment & 0x3FFF:
        raise MalformedFrame("IPv4 fragment")
    alert = _has_alert_v4(packet[_IPV4.size : size])
    return Datagram(source, destination, protocol, packet[size:total], hops, alert, traffic)


def _has_alert_v4(options: bytes) -> bool:
    while options and options[0] != 0:  # 0: end of options
        if options[0] == 1:  # no operation
            options = options[1:]
            continue
        if len(options) < 2 or not 2 <= options[1] <= len(options):
            raise MalformedFrame("IPv4 option length lies")
        if options[0] == _ROUTER_ALERT_V4[0]:
            return True
        options = options[options[1] :]
    return False


def _parse_ipv6(packet: bytes) -> Datagram:
    if len(packet) < _IPV6.size:
        raise MalformedFrame("IPv6 truncated")
    first, length, protocol, hops, source, destination = _IPV6.unpack_from(packet)
    if first >> 28 != 6:
        raise MalformedFrame("IPv6 version wrong")
    if len(packet) < _IPV6.size + length:
        raise MalformedFrame("IPv6 length lies")
    payload, alert = packet[_IPV6.size : _IPV6.size + length], False
    if protocol == HOP_BY_HOP:
        size = (payload[1] + 1) * 8 if len(payload) >= 2 else 8
        if len(payload) < size:
            raise MalformedFrame("hop-by-hop header truncated")
        protocol, alert, payload = payload[0], _has_alert_v6(payload[2:size]), payload[size:]
    return Datagram(source, destination, protocol, payload, hops, alert, first >> 20 & 0xFF)


def _has_alert_v6(options: bytes) -> bool:
    while options:
        if options[0] == 0:  # Pad1
            options = options[1:]
            continue
        if len(options) < 2 or len(options) < options[1] + 2:
            raise MalformedFrame("hop-by-hop option length lies")
        if options[:2] == _ROUTER_ALERT_V6[:2]:
            return True
        options = options[options[1] + 2 :]
    return False
