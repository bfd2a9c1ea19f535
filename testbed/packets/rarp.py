"""Reverse ARP (RFC 903), of which one message is of use here: it says where a machine is, no more."""

from __future__ import annotations

import struct

from testbed.packets import ethernet

TYPE = 0x8035
_BROADCAST = b"\xff" * 6
_BODY = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST_REVERSE = 3
_SHORTEST = 60  # bytes of an Ethernet frame without its FCS


def announcement(mac: bytes) -> bytes:
    """A broadcast frame from a MAC, by which switches learn on which port it is; nobody answers it."""
    body = _BODY.pack(1, ethernet.TYPE_IPV4, 6, 4, _REQUEST_REVERSE, mac, bytes(4), mac, bytes(4))
    return ethernet.build(_BROADCAST, mac, TYPE, body).ljust(_SHORTEST, b"\0")
