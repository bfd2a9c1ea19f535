"""A packet that was seen: what all parts of the capture hand on."""

from __future__ import annotations

import struct
from typing import NamedTuple

VNET = struct.Struct("=BBHHHH")  # struct virtio_net_hdr
_NEEDS_CSUM = 1
_TYPES = (1, 4, 5)  # TCP over IPv4, TCP over IPv6, UDP
_UDP = 5
_UDP_HEADER = 8


class Record(NamedTuple):
    """time: nanoseconds since 1970. point: its number. length: the whole frame's. flags: of pcapng."""

    time: int
    point: int
    data: bytes
    length: int
    flags: int
    comments: tuple[str, ...] = ()


def super_packet(vnet: bytes, data: bytes, length: int) -> str:
    """The comment on a packet that stands for several frames, or ""."""
    flags, kind, _, size, start, _ = VNET.unpack(vnet)
    kind &= 0x7F  # without VIRTIO_NET_HDR_GSO_ECN
    if kind not in _TYPES or not size:
        return ""
    if kind == _UDP:
        header = _UDP_HEADER
    elif flags & _NEEDS_CSUM and start + 12 < len(data):
        header = data[start + 12] >> 2 & 60
    else:
        header = 0
    if not (header and flags & _NEEDS_CSUM):
        return f"super-packet: segments of {size} bytes"
    segments = -(-(length - start - header) // size)
    return f"super-packet: {segments} segments of {size} bytes"
