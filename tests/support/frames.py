"""Frames for tests, built without the product's codecs (but for the outer NVGRE header's template)."""

from __future__ import annotations

import ipaddress
import struct

from testbed.packets import nvgre

BROADCAST = b"\xff" * 6
TCP, UDP, ICMP, ICMPV6, GRE = 6, 17, 1, 58, 47


def mac(text: str) -> bytes:
    """6 bytes from "02:00:00:00:00:01"."""
    return bytes.fromhex(text.replace(":", ""))


def ip(text: str) -> bytes:
    """4 or 16 bytes of an address."""
    return ipaddress.ip_address(text).packed


def naive_checksum(data: bytes) -> int:
    """RFC 1071 section 4.1, word by word."""
    total = 0
    for position in range(0, len(data) - 1, 2):
        total += data[position] << 8 | data[position + 1]
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(destination: bytes, source: bytes, kind: int, payload: bytes) -> bytes:
    """A frame."""
    return destination + source + kind.to_bytes(2, "big") + payload


def ports(source: int, destination: int) -> bytes:
    """What TCP and UDP headers start with."""
    return struct.pack("!HH", source, destination)


def ipv4(source: str, destination: str, protocol: int, payload: bytes, fragment: int = 0) -> bytes:
    """An IPv4 packet. fragment: flags and offset as they stand in the header."""
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(payload),
        7,
        fragment,
        64,
        protocol,
        0,
        ip(source),
        ip(destination),
    )
    return header[:10] + naive_checksum(header).to_bytes(2, "big") + header[12:] + payload


def ipv6(source: str, destination: str, next_header: int, payload: bytes, hops: int = 64) -> bytes:
    """An IPv6 packet."""
    return (
        struct.pack("!IHBB", 6 << 28, len(payload), next_header, hops)
        + ip(source)
        + ip(destination)
        + payload
    )


def arp(operation: int, sender: tuple[bytes, str], target: tuple[bytes, str], destination: bytes) -> bytes:
    """An ARP frame; sender and target are (MAC, IPv4)."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    body += sender[0] + ip(sender[1]) + target[0] + ip(target[1])
    return ethernet(destination, sender[0], 0x0806, body)


def icmpv6(
    source: str, destination: str, message: bytes, destination_mac: bytes, source_mac: bytes, hops: int = 255
) -> bytes:
    """A frame with an ICMPv6 message whose checksum field (bytes 2 and 3) is filled in here."""
    pseudo = ip(source) + ip(destination) + struct.pack("!II", len(message), ICMPV6)
    total = naive_checksum(pseudo + message[:2] + b"\0\0" + message[4:])
    body = message[:2] + total.to_bytes(2, "big") + message[4:]
    return ethernet(destination_mac, source_mac, 0x86DD, ipv6(source, destination, ICMPV6, body, hops))


def solicitation(target: str, source: str, source_mac: bytes, destination_mac: bytes | None = None) -> bytes:
    """A Neighbor Solicitation, multicast unless ``destination_mac`` is given; from :: it is a DAD probe."""
    option = b"" if source == "::" else b"\x01\x01" + source_mac
    message = b"\x87\0\0\0\0\0\0\0" + ip(target) + option
    if destination_mac is not None:
        return icmpv6(source, target, message, destination_mac, source_mac)
    low = ip(target)[-3:]
    group = str(ipaddress.IPv6Address(ip("ff02::1:ff00:0")[:13] + low))
    return icmpv6(source, group, message, b"\x33\x33\xff" + low, source_mac)


def encapsulated(
    inner: bytes,
    vsid: int,
    source_pa: str,
    destination_pa: str,
    destination_mac: bytes,
    source_mac: bytes = b"\2\0\0\0\x0f\x0f",
    flow_id: int = 0,
) -> bytes:
    """An NVGRE frame as another host would send it, over the family of the PAs."""
    outer = bytearray(
        nvgre.template(destination_mac, source_mac, ip(source_pa), ip(destination_pa), vsid, flow_id)
    )
    if ":" in source_pa:
        struct.pack_into("!H", outer, 18, 8 + len(inner))
    else:
        struct.pack_into("!H", outer, 16, 28 + len(inner))
        struct.pack_into("!H", outer, 24, naive_checksum(bytes(outer[14:34])))
    return bytes(outer) + inner


def vnet(start: int, offset: int, *, gso_type: int = 0, gso_size: int = 0, header: int = 0) -> bytes:
    """struct virtio_net_hdr of a packet whose checksum is to be completed at ``start`` + ``offset``."""
    return struct.pack("=BBHHHH", 1, gso_type, header, gso_size, start, offset)
