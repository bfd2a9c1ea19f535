"""Replacing the IP addresses of a frame in place, checksums following (RFC 1624; RFC 3022 section 4.1)."""

from __future__ import annotations

from testbed.packets import ethernet
from testbed.packets.checksum import ones_sum
from testbed.packets.malformed import MalformedFrame

# Where a transport's checksum, which covers the IP addresses, lies in its header
_UDP = 17
_CHECKSUM_AT = {6: 16, _UDP: 6, 33: 6, 136: 6}  # TCP, UDP, DCCP, UDP-Lite
_CHECKSUM_AT_IPV6 = _CHECKSUM_AT | {58: 2}  # ICMPv6: RFC 4443 section 2.3
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60


def replace_addresses(frame: memoryview, source: bytes, destination: bytes, open_at: int = -1) -> None:
    """Give an IPv4 or IPv6 frame other addresses of its family; all checksums change with them.

    open_at: offset in the frame of a checksum that is yet to be completed; it holds the sum of the
    pseudo-header, which changes likewise. Fragments other than the first have no transport header.
    What ICMP errors quote stays as it is. Raises MalformedFrame for a frame whose headers are cut
    short, that is of another family, or whose checksum does not cover the destination in the header
    (an IPv6 routing header).
    """
    kind = ethernet.ethertype(frame)
    if kind == ethernet.TYPE_IPV4 and len(source) == len(destination) == 4:
        addresses, transport = slice(26, 34), _ipv4_transport(frame)
    elif kind == ethernet.TYPE_IPV6 and len(source) == len(destination) == 16:
        addresses, transport = slice(22, 54), _ipv6_transport(frame)
    else:
        raise MalformedFrame("not of the addresses' family")
    new, old = source + destination, bytes(frame[addresses])
    if new == old:
        return
    change = ones_sum(new) + (ones_sum(old) ^ 0xFFFF)
    if kind == ethernet.TYPE_IPV4:
        _change(frame, 24, change)
    if transport is not None:
        at, protocol = transport
        if at == open_at:
            _put(frame, at, _folded(_get(frame, at) + change))
        elif protocol != _UDP:
            _change(frame, at, change)
        elif _get(frame, at):  # 0: the sender has made none
            _change(frame, at, change)
            if not _get(frame, at):
                _put(frame, at, 0xFFFF)
    frame[addresses] = new


def _ipv4_transport(frame: memoryview) -> tuple[int, int] | None:
    """Offset of the transport checksum and the protocol, None if there is no such checksum here."""
    if len(frame) < 34 or frame[14] >> 4 != 4:
        raise MalformedFrame("IPv4 truncated")
    size = (frame[14] & 15) * 4
    if size < 20 or len(frame) < 14 + size:
        raise MalformedFrame("IPv4 header length lies")
    if _get(frame, 20) & 0x1FFF or frame[23] not in _CHECKSUM_AT:
        return None
    return _within(frame, 14 + size + _CHECKSUM_AT[frame[23]], frame[23])


def _ipv6_transport(frame: memoryview) -> tuple[int, int] | None:
    if len(frame) < 54 or frame[14] >> 4 != 6:
        raise MalformedFrame("IPv6 truncated")
    protocol, offset = frame[20], 54
    while protocol in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION):
        if len(frame) < offset + 8:
            raise MalformedFrame("IPv6 extension header truncated")
        if protocol == _ROUTING and frame[offset + 3]:
            raise MalformedFrame("the IPv6 destination is not the last one")
        if protocol == _FRAGMENT and _get(frame, offset + 2) & 0xFFF8:
            return None
        length = 8 if protocol == _FRAGMENT else (frame[offset + 1] + 1) * 8
        protocol, offset = frame[offset], offset + length
    if protocol not in _CHECKSUM_AT_IPV6:
        return None
    return _within(frame, offset + _CHECKSUM_AT_IPV6[protocol], protocol)


def _within(frame: memoryview, at: int, protocol: int) -> tuple[int, int]:
    if len(frame) < at + 2:
        raise MalformedFrame("transport header truncated")
    return at, protocol


def _change(frame: memoryview, at: int, change: int) -> None:
    """A complete checksum: RFC 1624 section 3, equation 3."""
    _put(frame, at, _folded((_get(frame, at) ^ 0xFFFF) + change) ^ 0xFFFF)


def _folded(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _get(frame: memoryview, at: int) -> int:
    return frame[at] << 8 | frame[at + 1]


def _put(frame: memoryview, at: int, value: int) -> None:
    frame[at] = value >> 8
    frame[at + 1] = value & 0xFF
