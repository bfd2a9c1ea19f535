"""NVGRE as a test reads it on a cable, without the switch's codecs: a fault must not agree with itself.

RFC 7637 section 3.2: GRE with a key (flags 0x2000), protocol 0x6558; the key is 24 bits of VSID, 8 of FlowID.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

_IPV4, _IPV6, _GRE = 0x0800, 0x86DD, 47
_KEYED_ETHERNET = 0x20006558


class Nvgre(NamedTuple):
    """source, destination: PAs. inner: the customer's frame, Ethernet header first."""

    source: str
    destination: str
    vsid: int
    flow_id: int
    inner: bytes


def parse(frame: bytes) -> Nvgre | None:
    """What is in an Ethernet frame; None when it is no NVGRE."""
    if len(frame) < 42:
        return None
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == _IPV4 and frame[23] == _GRE:
        at, addresses = 14 + (frame[14] & 15) * 4, (frame[26:30], frame[30:34])
        end = 14 + int.from_bytes(frame[16:18], "big")
    elif kind == _IPV6 and frame[20] == _GRE:
        at, addresses = 54, (frame[22:38], frame[38:54])
        end = 54 + int.from_bytes(frame[18:20], "big")
    else:
        return None
    if len(frame) < at + 8:
        return None
    words, key = struct.unpack_from("!II", frame, at)
    if words != _KEYED_ETHERNET:
        return None
    source, destination = (str(ipaddress.ip_address(address)) for address in addresses)
    return Nvgre(source, destination, key >> 8, key & 0xFF, frame[at + 8 : max(end, at + 8)])
