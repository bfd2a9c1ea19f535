"""Which receive queue a frame takes: the rules of ``bpf/cable.c`` in Python, for tests and explanations.

Hash and hash types: Microsoft, "RSS Hashing Functions" and "RSS Hashing Types"; for NVGRE, "NVGRE task
offload" (NDIS 6.30): inner addresses and ports where the NIC can parse them, else the outer addresses.
VMQ: NDIS_RECEIVE_FILTER on the destination MAC and the VLAN; of NVGRE packets the inner one, if offloaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
"""The key of Microsoft's published vectors."""

# the bits of the hash types in NDIS (ntddndis.h, NDIS_HASH_...)
IPV4, TCP_IPV4, IPV6, TCP_IPV6 = 0x100, 0x200, 0x400, 0x1000
HASH_TYPES: dict[str, int] = {"ipv4": IPV4, "tcp-ipv4": TCP_IPV4, "ipv6": IPV6, "tcp-ipv6": TCP_IPV6}
KINDS = ("none", *HASH_TYPES)

_TCP, _UDP, _GRE = 6, 17, 47


class Steering(NamedTuple):
    """What a NIC's registers say. filters: destination MAC and VLAN (0: no tag) -> queue."""

    rss: bool = False
    vmq: bool = False
    nvgre_rss: bool = False
    nvgre_vmq: bool = False
    key: bytes = KEY
    table: Sequence[int] = (0,)
    hash_types: int = IPV4 | TCP_IPV4 | IPV6 | TCP_IPV6
    default_queue: int = 0
    filters: Mapping[tuple[bytes, int], int] = {}


class Steered(NamedTuple):
    """Where a frame goes. kind: of the hash, one of KINDS."""

    queue: int
    hash: int = 0
    kind: str = "none"


class Ip(NamedTuple):
    """What hashes are made of. protocol: 0 for a fragment."""

    addresses: bytes
    protocol: int
    ports: bytes  # empty where there are none
    after: int  # offset of what follows the header


def toeplitz(key: bytes, data: bytes) -> int:
    """The 32-bit hash of ``data`` with a 40-byte key."""
    bits = int.from_bytes(key, "big")
    result = 0
    for position in range(8 * len(data)):
        if data[position >> 3] & 0x80 >> (position & 7):
            result ^= bits >> (8 * len(key) - 32 - position) & 0xFFFFFFFF
    return result


def steer(nic: Steering, frame: bytes) -> Steered:
    """The queue of a frame, as the hardware chooses it."""
    outer = parse_ip(frame, 14, int.from_bytes(frame[12:14], "big"))
    inner = _inner(frame, outer)
    if nic.rss:
        return _rss(nic, frame, outer, inner)
    if nic.vmq:
        at = inner if inner and nic.nvgre_vmq else 0
        vlan = _vlan(frame) if at == 0 else 0  # RFC 7637 section 3.3: there is no tag inside
        return Steered(nic.filters.get((frame[at : at + 6], vlan), nic.default_queue))
    return Steered(0)


def _rss(nic: Steering, frame: bytes, outer: Ip | None, inner: int) -> Steered:
    found, ports = outer, outer is not None and outer.protocol == _TCP
    if inner and nic.nvgre_rss:
        within = parse_ip(frame, inner + 14, int.from_bytes(frame[inner + 12 : inner + 14], "big"))
        if within and within.ports:
            found, ports = within, True
    if found is None:
        return Steered(nic.default_queue)
    plain, with_ports = (IPV4, TCP_IPV4) if len(found.addresses) == 8 else (IPV6, TCP_IPV6)
    if ports and found.ports and nic.hash_types & with_ports:
        kind, data = with_ports, found.addresses + found.ports
    elif nic.hash_types & plain:
        kind, data = plain, found.addresses
    else:
        return Steered(nic.default_queue)
    value = toeplitz(nic.key, data)
    name = next(name for name, bit in HASH_TYPES.items() if bit == kind)
    return Steered(nic.table[value % len(nic.table)], value, name)


def parse_ip(frame: bytes, at: int, kind: int) -> Ip | None:
    """The IP header at ``at``, of a frame of this Ethernet type. None: it is none, or cut off."""
    if kind == 0x0800:
        head = frame[at : at + 20]
        if len(head) < 20 or head[0] >> 4 != 4 or head[0] & 15 < 5:
            return None
        after = at + 4 * (head[0] & 15)
        fragment = (head[6] & 0x3F) << 8 | head[7]
        addresses, protocol = head[12:20], head[9]
    elif kind == 0x86DD:
        head = frame[at : at + 40]
        if len(head) < 40 or head[0] >> 4 != 6:
            return None
        after, fragment, addresses, protocol = at + 40, 0, head[8:40], head[6]
    else:
        return None
    if fragment:
        return Ip(addresses, 0, b"", after)
    ports = frame[after : after + 4] if protocol in (_TCP, _UDP) else b""
    return Ip(addresses, protocol, ports if len(ports) == 4 else b"", after)


def _vlan(frame: bytes) -> int:
    tagged = frame[12:14] == b"\x81\0" and len(frame) >= 16
    return int.from_bytes(frame[14:16], "big") & 0xFFF if tagged else 0


def _inner(frame: bytes, outer: Ip | None) -> int:
    """Offset of the inner Ethernet header, or 0."""
    if outer is None or outer.protocol != _GRE or frame[outer.after : outer.after + 4] != b"\x20\x00\x65\x58":
        return 0
    return outer.after + 8
