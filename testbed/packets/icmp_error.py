"""ICMP errors that tell a sender its packet is too big (RFC 792 and 1191; RFC 4443 section 3.2)."""

from __future__ import annotations

import struct

from testbed.packets import ethernet, ndp
from testbed.packets.checksum import Buffer, checksum, ones_sum

_ICMP, _ICMPV6 = 1, 58
_UNREACHABLE, _FRAGMENTATION_NEEDED = 3, 4
_PACKET_TOO_BIG = 2
_ERRORS = (3, 4, 5, 11, 12)  # RFC 1122 section 3.2.2; 5 is the redirect
_QUOTED_IPV4 = 576 - 20 - 8  # RFC 1812 section 4.3.2.3
_QUOTED_IPV6 = 1280 - 40 - 8  # RFC 4443 section 3.2


def too_big(
    frame: Buffer, mtu: int, destination_mac: bytes, source_mac: bytes = b"", source: bytes = b""
) -> bytes | None:
    """The frame that answers ``frame``: the way takes IP packets of ``mtu`` bytes; None: no answer.

    source_mac, source: who answers, such as the default gateway; where they are empty, or of another
    family, it is the packet's destination. IPv4 is answered whether DF is set or not: nobody fragments
    on the way. No answer to what is not IP, and to what RFC 1812 section 4.3.2.7 and RFC 4443 section
    2.4 (e) exclude (errors, group and broadcast addresses but for IPv6, non-first fragments of IPv4,
    a source that is nobody's).
    """
    if len(frame) < ethernet.HEADER:
        return None
    kind = ethernet.ethertype(frame)
    if kind == ethernet.TYPE_IPV4:
        answer = _ipv4(frame, mtu, source)
    elif kind == ethernet.TYPE_IPV6:
        answer = _ipv6(frame, mtu, source)
    else:
        return None
    by = source_mac or bytes(frame[0:6])
    if answer is None or by[0] & 1:  # a group sends nothing
        return None
    return ethernet.build(destination_mac, by, kind, answer)


def _ipv4(frame: Buffer, mtu: int, source: bytes) -> bytes | None:
    if len(frame) < 34 or frame[14] >> 4 != 4 or frame[0] & 1:
        return None
    size = (frame[14] & 15) * 4
    if size < 20 or len(frame) < 14 + size or (frame[20] << 8 | frame[21]) & 0x1FFF:
        return None
    if frame[26] in (0, 127) or frame[26] >= 224 or frame[30] >= 224:
        return None
    if frame[23] == _ICMP and (len(frame) == 14 + size or frame[14 + size] in _ERRORS):
        return None
    quoted = bytes(frame[14 : 14 + _QUOTED_IPV4])
    message = bytearray(struct.pack("!BBHHH", _UNREACHABLE, _FRAGMENTATION_NEEDED, 0, 0, min(mtu, 0xFFFF)))
    message += quoted
    message[2:4] = checksum(message).to_bytes(2, "big")
    sender = source if len(source) == 4 else bytes(frame[30:34])
    header = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0x4000, 64, _ICMP, 0))
    header += sender + bytes(frame[26:30])
    header[10:12] = checksum(header).to_bytes(2, "big")
    return bytes(header + message)


def _ipv6(frame: Buffer, mtu: int, source: bytes) -> bytes | None:
    if len(frame) < 54 or frame[14] >> 4 != 6 or frame[22] == 0xFF or not any(frame[22:38]):
        return None
    kind = ndp.icmpv6_type(frame)
    if kind is not None and (kind < 128 or kind == ndp.REDIRECT):
        return None
    sender = source if len(source) == 16 else bytes(frame[38:54])
    if sender[0] == 0xFF:  # nobody known to answer for a group
        return None
    receiver = bytes(frame[22:38])
    message = bytearray(struct.pack("!BBHI", _PACKET_TOO_BIG, 0, 0, mtu))
    message += frame[14 : 14 + _QUOTED_IPV6]
    pseudo = ones_sum(sender + receiver, len(message) + _ICMPV6)
    message[2:4] = checksum(message, pseudo).to_bytes(2, "big")
    return struct.pack("!IHBB", 6 << 28, len(message), _ICMPV6, 64) + sender + receiver + bytes(message)
