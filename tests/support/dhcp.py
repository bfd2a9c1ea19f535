"""DHCP as VMs of the small network speak it, built without the product's codecs."""

from __future__ import annotations

import struct

from support.frames import BROADCAST, UDP, ethernet, ip, ipv4, ipv6

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
SOLICIT, ADVERTISE, REQUEST_V6, CONFIRM, RENEW, REBIND, REPLY, RELEASE_V6 = range(1, 9)
ALL_SERVERS_MAC = b"\x33\x33\0\1\0\2"


def udp(source: int, destination: int, payload: bytes) -> bytes:
    """A datagram whose checksum is left out."""
    return struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload


def v4(kind: int, client: bytes, transaction: bytes, yours: str = "0.0.0.0", options: bytes = b"") -> bytes:
    """A message; the client's or the server's by its kind. options: those before the message type."""
    operation = 2 if kind in (OFFER, ACK, NAK) else 1
    head = struct.pack("!4B4sHH", operation, 1, 6, 0, transaction, 0, 0)
    addresses = bytes(4) + ip(yours) + bytes(8)
    return (
        head
        + addresses
        + client
        + bytes(10 + 192)
        + b"\x63\x82\x53\x63"
        + options
        + bytes((53, 1, kind, 255))
    )


def asked(client: bytes, transaction: bytes, kind: int = REQUEST, source: bytes | None = None) -> bytes:
    """The frame of a client that has no address yet."""
    payload = udp(68, 67, v4(kind, client, transaction))
    return ethernet(BROADCAST, source or client, 0x0800, ipv4("0.0.0.0", "255.255.255.255", UDP, payload))


def told(
    message: bytes, server: tuple[bytes, str], to: bytes, address: str = "255.255.255.255", port: int = 68
) -> bytes:
    """The frame of a server, with this message."""
    return ethernet(to, server[0], 0x0800, ipv4(server[1], address, UDP, udp(67, port, message)))


def option(kind: int, body: bytes) -> bytes:
    """A DHCPv6 option."""
    return struct.pack("!HH", kind, len(body)) + body


def lease(*addresses: tuple[str, int]) -> bytes:
    """An IA_NA with addresses and their valid lifetimes."""
    inner = b"".join(
        option(5, ip(address) + struct.pack("!II", lifetime, lifetime)) for address, lifetime in addresses
    )
    return option(3, bytes(12) + inner)


def v6(kind: int, transaction: bytes, *options: bytes) -> bytes:
    """A DHCPv6 message."""
    return bytes((kind,)) + transaction + b"".join(options)


def asked_v6(client: bytes, transaction: bytes, kind: int = SOLICIT) -> bytes:
    """The frame of a client, from its link-local address."""
    payload = udp(546, 547, v6(kind, transaction, option(1, b"\0\3\0\1" + client), lease()))
    return ethernet(ALL_SERVERS_MAC, client, 0x86DD, ipv6("fe80::77", "ff02::1:2", UDP, payload))


def told_v6(message: bytes, server: tuple[bytes, str], to: bytes) -> bytes:
    """The frame of a server to a client's link-local address."""
    return ethernet(to, server[0], 0x86DD, ipv6(server[1], "fe80::77", UDP, udp(547, 546, message)))
