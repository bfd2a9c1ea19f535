"""ARP for IPv4 over Ethernet (RFC 826; probes and announcements: RFC 5227)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from testbed.packets import ethernet
from testbed.packets.checksum import Buffer
from testbed.packets.malformed import MalformedFrame

REQUEST = 1
REPLY = 2

_FIXED = struct.pack("!HHBB", 1, ethernet.TYPE_IPV4, 6, 4)
_BODY = struct.Struct("!6sH6s4s6s4s")
SIZE = _BODY.size


class Arp(NamedTuple):
    """An ARP message; addresses are 6 and 4 bytes."""

    operation: int
    sender_mac: bytes
    sender_ip: bytes
    target_mac: bytes
    target_ip: bytes

    @property
    def is_probe(self) -> bool:
        """A DAD probe: a request that claims no sender address (RFC 5227 section 1.1)."""
        return self.operation == REQUEST and self.sender_ip == b"\0\0\0\0"


def parse(frame: Buffer) -> Arp:
    """The ARP message of a whole Ethernet frame."""
    if len(frame) < ethernet.HEADER + SIZE:
        raise MalformedFrame("ARP truncated")
    fixed, operation, sha, spa, tha, tpa = _BODY.unpack_from(frame, ethernet.HEADER)
    if fixed != _FIXED:
        raise MalformedFrame("ARP is not IPv4 over Ethernet")
    return Arp(operation, sha, spa, tha, tpa)


def build(message: Arp, destination: bytes, source: bytes | None = None) -> bytes:
    """A whole frame; the Ethernet source is the sender's MAC unless given."""
    body = _BODY.pack(_FIXED, *_in_wire_order(message))
    return ethernet.build(destination, source or message.sender_mac, ethernet.TYPE_ARP, body)


def _in_wire_order(message: Arp) -> tuple[int, bytes, bytes, bytes, bytes]:
    return (message.operation, message.sender_mac, message.sender_ip, message.target_mac, message.target_ip)
