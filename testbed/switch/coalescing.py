"""What may be joined on receive (RSC): NDIS is stricter than the kernel that stands behind an emulated NIC.

NDIS, "Rules for Coalescing TCP/IP Packets": only segments whose flags are ACK and PSH, whose only TCP option
is a timestamp, and without IP options or extension headers. The kernel's GRO also joins a last segment with
FIN, and segments whose ECE, TCP options or IPv6 extension headers are the same in each. Nothing is lost by
that, for the joined header has it all. So such a packet is cut up again where the switch takes it from the
NIC (:mod:`testbed.switch.separation`): one look at each joined packet, none at single frames, and the order
stays. A segment kept from GRO instead, by another queue, would overtake those of its flow that GRO holds.
"""

from __future__ import annotations

import struct

from testbed.packets import nvgre
from testbed.switch.buffer import NEEDS_CSUM, READ, VNET_HEADER, WIRE, FrameBuffer
from testbed.switch.uplink import Uplink

FIN, PSH, ACK = 0x01, 0x08, 0x10
SHORTEST = 14 + 20  # bytes in front of a TCP header
_NEVER_JOINED = 0xFF & ~(ACK | PSH)
_NOP, _KIND, _LENGTH = 1, 8, 10
# What nearly all have. A TCP header's data offset and flags, its first options (RFC 7323, appendix A)
_BARE = frozenset(5 << 12 | flags for flags in (0, ACK, PSH, ACK | PSH))
_TIMED = frozenset(8 << 12 | flags for flags in (0, ACK, PSH, ACK | PSH))
_TIMESTAMP = int.from_bytes((_NOP, _NOP, _KIND, _LENGTH), "big")
_unpack_vnet = VNET_HEADER.unpack_from
_unpack_tcp = struct.Struct("!12xH6xI").unpack_from
# Where TCP may start in a frame: right behind an IPv4 or IPv6 header, inner or only one. As IPv6 extension
# headers are multiples of 8 bytes, none of these is reached with one (the kernel joins no IPv4 options).
_STARTS = frozenset(
    outer + 14 + header for outer in (0, nvgre.OUTER_IPV4, nvgre.OUTER_IPV6) for header in (20, 40)
)


def joined(uplink: Uplink, buffer: FrameBuffer, end: int) -> bool:
    """Count a packet that the NIC has made of several frames. False: it was not to, or not all of it."""
    data = buffer.data
    flags, _, _, mss, start, _ = _unpack_vnet(data, READ)
    tcp = WIRE + start
    head, options = _unpack_tcp(data, tcp)
    if start not in _STARTS or ((head not in _TIMED or options != _TIMESTAMP) and head not in _BARE):
        if not flags & NEEDS_CSUM or not mss or start < SHORTEST or tcp + 20 > end:
            return True  # nothing that can be cut
        if not joinable(data, tcp, start):
            return False
    uplink.rx_rsc_packets += 1
    uplink.rx_rsc_segments += -(-(end - tcp - (head >> 10 & 60)) // (mss or 1))
    return True


def joinable(data: bytearray, tcp: int, start: int, besides: int = 0) -> bool:
    """Whether NDIS joins segments with the TCP header at ``tcp``, ``start`` bytes into their frame.

    besides: flags that are not looked at.
    """
    if data[tcp + 13] & _NEVER_JOINED & ~besides or start not in _STARTS:
        return False
    return _timestamp_at_most(data, tcp + 20, tcp + (data[tcp + 12] >> 2 & 60))


def _timestamp_at_most(data: bytearray, at: int, end: int) -> bool:
    seen = False
    while at < end and data[at]:  # 0 ends the options
        if data[at] == _NOP:
            at += 1
        elif seen or data[at] != _KIND or data[at + 1] != _LENGTH:
            return False
        else:
            seen, at = True, at + _LENGTH
    return True
