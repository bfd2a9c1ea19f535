"""Receive checksum offload: whether every checksum of a frame is right that its NIC is to verify.

Of an NVGRE frame that is the inner one too: a packet is good only if both IPv4 headers are, and the
transport checksum (NDIS, "Checksum offload with NVGRE"). The kernel that stands behind the emulated NIC
has verified what it marks as such; only the rest comes here.
"""

from __future__ import annotations

from testbed.packets import ethernet
from testbed.packets.checksum import Buffer, ones_sum
from testbed.switch.uplink import Uplink

_TCP, _UDP, _GRE = 6, 17, 47
_GRE_NVGRE = b"\x20\x00\x65\x58"
_GOOD = 0xFFFF


def good(uplink: Uplink, frame: Buffer) -> bool:
    """Whether a NIC that verifies has nothing against a frame. What is no IP, or cut short, it passes."""
    at = 14
    kind = ethernet.ethertype(frame) if len(frame) >= 14 else 0
    outer = _ip(frame, at, kind)
    if outer is None:
        return True
    header_good, protocol, start, end = outer
    if protocol == _GRE and bytes(frame[start : start + 4]) == _GRE_NVGRE:
        if not uplink.nvgre.rx_checksum:
            return True
        inner = start + 8
        if not header_good or inner + 14 > len(frame):
            return header_good
        within = _ip(frame, inner + 14, int.from_bytes(frame[inner + 12 : inner + 14], "big"))
        if within is None:
            return True
        header_good, protocol, start, end = within
        at = inner + 14
    elif not uplink.plain.rx_checksum:
        return True
    return header_good and _transport(frame, at, protocol, start, end)


def _ip(frame: Buffer, at: int, kind: int) -> tuple[bool, int, int, int] | None:
    """Whether the header is right; protocol (0: not to be verified), where its data start and end."""
    if kind == ethernet.TYPE_IPV4 and len(frame) >= at + 20 and frame[at] >> 4 == 4:
        start = at + 4 * (frame[at] & 15)
        end = at + int.from_bytes(frame[at + 2 : at + 4], "big")
        header_good = ones_sum(frame[at:start]) == _GOOD
        fragment = int.from_bytes(frame[at + 6 : at + 8], "big") & 0x3FFF
        protocol = frame[at + 9]
    elif kind == ethernet.TYPE_IPV6 and len(frame) >= at + 40 and frame[at] >> 4 == 6:
        start = at + 40
        end = start + int.from_bytes(frame[at + 4 : at + 6], "big")
        header_good, fragment, protocol = True, 0, frame[at + 6]
    else:
        return None
    whole = start <= end <= len(frame)
    return header_good, 0 if fragment or not whole else protocol, start, end


def _transport(frame: Buffer, at: int, protocol: int, start: int, end: int) -> bool:
    if protocol not in (_TCP, _UDP) or end - start < (20 if protocol == _TCP else 8):
        return True
    if protocol == _UDP and frame[start + 6 : start + 8] == b"\0\0":
        return True  # none was sent (RFC 768)
    addresses = frame[at + 12 : at + 20] if frame[at] >> 4 == 4 else frame[at + 8 : at + 40]
    return ones_sum(frame[start:end], ones_sum(addresses, protocol + end - start)) == _GOOD
