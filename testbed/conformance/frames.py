"""Frames for the probes, made without the switch's codecs: a fault there must not agree with itself.

MAC addresses are 6 bytes, IP addresses text, ports and lengths numbers.
"""

from __future__ import annotations

import ipaddress
import struct

ICMP, TCP, UDP, GRE, ICMPV6 = 1, 6, 17, 47, 58
BROADCAST = b"\xff" * 6
TYPE_IPV4, TYPE_ARP, TYPE_VLAN, TYPE_IPV6 = 0x0800, 0x0806, 0x8100, 0x86DD
TYPE_EXPERIMENTAL = 0x88B5  # IEEE 802, local experimental EtherType 1
MORE_FRAGMENTS = 0x2000
_TCP_RST = 0x04


def packed(address: str) -> bytes:
    """4 or 16 bytes."""
    return ipaddress.ip_address(address).packed


def mac(text: str) -> bytes:
    """6 bytes of "00:15:5d:..."."""
    return bytes.fromhex(text.replace(":", ""))


def mac_text(address: bytes) -> str:
    """As tshark and the plan write it."""
    return address.hex(":")


def group_mac(address: str) -> bytes:
    """The MAC of a multicast address (RFC 1112 section 6.4, RFC 2464 section 7)."""
    group = packed(address)
    return (
        b"\x33\x33" + group[-4:] if len(group) == 16 else b"\x01\0\x5e" + bytes([group[1] & 0x7F]) + group[2:]
    )


def checksum(data: bytes) -> int:
    """RFC 1071, as it stands in a header."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def ethernet(destination: bytes, source: bytes, kind: int, payload: bytes, vlan: int = 0) -> bytes:
    """A frame, with an 802.1Q tag where ``vlan`` is not 0."""
    tag = struct.pack("!HH", TYPE_VLAN, vlan) if vlan else b""
    return destination + source + tag + struct.pack("!H", kind) + payload


def ip(source: str, destination: str, protocol: int, payload: bytes, fragment: int = 0) -> bytes:
    """A packet of the addresses' family. fragment: flags and offset of IPv4 as they stand in the header."""
    one, other = packed(source), packed(destination)
    if len(one) == 16:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + one + other + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, fragment, 64, protocol, 0) + one + other
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def _transport(source: str, destination: str, protocol: int, segment: bytes, at: int) -> bytes:
    """``segment`` with its checksum (over the pseudo header too) written at offset ``at``."""
    pseudo = packed(source) + packed(destination) + struct.pack("!II", len(segment), protocol)
    return segment[:at] + struct.pack("!H", checksum(pseudo + segment)) + segment[at + 2 :]


def tcp_reset(source: str, destination: str, payload: bytes, ports: tuple[int, int] = (1025, 9)) -> bytes:
    """An IP packet with a TCP reset that carries ``payload``: no stack ever answers one."""
    head = struct.pack("!HHIIBBHHH", *ports, 1, 0, 5 << 4, _TCP_RST, 0, 0, 0)
    return ip(source, destination, TCP, _transport(source, destination, TCP, head + payload, 16))


def udp(source: str, destination: str, payload: bytes, ports: tuple[int, int] = (1025, 9)) -> bytes:
    """An IP packet with a UDP datagram."""
    segment = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    return ip(source, destination, UDP, _transport(source, destination, UDP, segment, 6))


def arp(sender: tuple[bytes, str], target: str, destination: bytes = BROADCAST) -> bytes:
    """An ARP request of ``sender`` (MAC, IPv4) for ``target``."""
    body = struct.pack("!HHBBH", 1, TYPE_IPV4, 6, 4, 1) + sender[0] + packed(sender[1])
    return ethernet(destination, sender[0], TYPE_ARP, body + b"\0" * 6 + packed(target))


def arp_reply(sender: tuple[bytes, str], target: tuple[bytes, str]) -> bytes:
    """An ARP reply of ``sender`` to ``target``, both (MAC, IPv4)."""
    body = struct.pack("!HHBBH", 1, TYPE_IPV4, 6, 4, 2) + sender[0] + packed(sender[1])
    return ethernet(target[0], sender[0], TYPE_ARP, body + target[0] + packed(target[1]))


def solicitation(sender: tuple[bytes, str], target: str, destination: bytes | None = None) -> bytes:
    """A Neighbor Solicitation of ``sender`` (MAC, IPv6); multicast unless a destination MAC is given."""
    group, group_mac = target, destination
    if destination is None:
        tail = packed(target)[-3:]
        group = str(ipaddress.IPv6Address(packed("ff02::1:ff00:0")[:13] + tail))
        group_mac = b"\x33\x33\xff" + tail
    assert group_mac is not None
    message = struct.pack("!BBHI", 135, 0, 0, 0) + packed(target) + b"\x01\x01" + sender[0]
    message = _transport(sender[1], group, ICMPV6, message, 2)
    packet = bytearray(ip(sender[1], group, ICMPV6, message))
    packet[7] = 255  # RFC 4861 section 7.1.1
    return ethernet(group_mac, sender[0], TYPE_IPV6, bytes(packet))


def advertisement(sender: tuple[bytes, str]) -> bytes:
    """An unsolicited Neighbor Advertisement of ``sender`` (MAC, IPv6), which overrides what others have."""
    message = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + packed(sender[1]) + b"\x02\x01" + sender[0]
    message = _transport(sender[1], "ff02::1", ICMPV6, message, 2)
    packet = bytearray(ip(sender[1], "ff02::1", ICMPV6, message))
    packet[7] = 255  # RFC 4861 section 7.1.2
    return ethernet(b"\x33\x33\0\0\0\1", sender[0], TYPE_IPV6, bytes(packet))


def duplicate_probe(sender: bytes, target: str) -> bytes:
    """What a VM with this MAC asks before it uses an address: DAD (RFC 4862), an ARP probe (RFC 5227)."""
    if ":" not in target:
        return arp((sender, "0.0.0.0"), target)
    group = str(ipaddress.IPv6Address(packed("ff02::1:ff00:0")[:13] + packed(target)[-3:]))
    message = _transport("::", group, ICMPV6, struct.pack("!BBHI", 135, 0, 0, 0) + packed(target), 2)
    packet = bytearray(ip("::", group, ICMPV6, message))
    packet[7] = 255  # RFC 4861 section 7.1.1
    return ethernet(group_mac(group), sender, TYPE_IPV6, bytes(packet))


def nvgre(
    macs: tuple[bytes, bytes], pas: tuple[str, str], vsid: int, inner: bytes, fragment: int = 0
) -> bytes:
    """``inner`` inside NVGRE, as another host would send it. macs and pas: destination, source."""
    header = struct.pack("!HHI", 0x2000, 0x6558, vsid << 8)
    packet = ip(pas[1], pas[0], GRE, header + inner, fragment)
    return ethernet(*macs, TYPE_IPV6 if ":" in pas[0] else TYPE_IPV4, packet)
