"""Ethernet II: addresses, types and the 14-byte header."""

from __future__ import annotations

from testbed.packets.checksum import Buffer
from testbed.packets.malformed import MalformedFrame

HEADER = 14
BROADCAST = b"\xff" * 6

TYPE_IPV4 = 0x0800
TYPE_ARP = 0x0806
TYPE_VLAN = 0x8100
TYPE_IPV6 = 0x86DD
TYPE_QINQ = 0x88A8
TAGS = (TYPE_VLAN, TYPE_QINQ)  # 802.1Q, 802.1ad


def parse_mac(text: str) -> bytes:
    """6 bytes from "00:15:5d:00:00:01" or "00-15-5D-00-00-01". Raises ValueError."""
    raw = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if len(raw) != 6:
        raise ValueError(f"{text!r} is not a MAC address")
    return raw


def format_mac(mac: Buffer) -> str:
    """6 bytes as text: "00:15:5d:00:00:01"."""
    return bytes(mac).hex(":")


def ethertype(frame: Buffer) -> int:
    """The type field. Raises MalformedFrame on fewer than 14 bytes."""
    if len(frame) < HEADER:
        raise MalformedFrame("Ethernet header truncated")
    return frame[12] << 8 | frame[13]


def build(destination: bytes, source: bytes, kind: int, payload: bytes) -> bytes:
    """A frame without FCS and without padding."""
    return destination + source + kind.to_bytes(2, "big") + payload
