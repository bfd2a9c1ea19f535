"""The packets that a trace sends off: as a guest would make them, checksums included."""

from __future__ import annotations

import struct
from typing import NamedTuple

from testbed.errors import BadInput
from testbed.packets import arp, dhcp, ethernet, icmp_echo, ndp
from testbed.packets import datagram as ip
from testbed.packets.checksum import checksum
from testbed.packets.datagram import Datagram
from testbed.switch.buffer import NEEDS_CSUM, VNET_HEADER

TCP, UDP = 6, 17
LONGEST = 65535  # bytes of an IP packet
_TCP_HEADER = struct.Struct("!HHIIBBHHH")
_UDP_HEADER = struct.Struct("!HHHH")
_SYN, _ACK, _WINDOW = 0x02, 0x10, 64240
_GSO_TCPV4, _GSO_TCPV6 = 1, 4
_CHECKSUM_OF_TCP = 16
_IDENTIFIER = 0x7472


class Ends(NamedTuple):
    """Who speaks to whom: MACs of 6 bytes, addresses of 4 or 16."""

    source_mac: bytes
    destination_mac: bytes
    source: bytes
    destination: bytes


class Kind(NamedTuple):
    """What is said. size: bytes of the IP packet, 0: the shortest. port, source_port: of TCP and UDP.

    mark: how the payload begins.
    """

    protocol: str = "icmp"
    port: int = 0
    source_port: int = 0
    size: int = 0
    mark: bytes = b""


def packet(ends: Ends, kind: Kind) -> bytes:
    """A frame with an echo request, a TCP segment or a UDP datagram. Raises BadInput (size)."""
    head = 20 if len(ends.source) == 4 else 40
    own = {"icmp": 8, "tcp": _TCP_HEADER.size, "udp": _UDP_HEADER.size}[kind.protocol]
    least = head + own + len(kind.mark)
    size = kind.size or least
    if not least <= size <= LONGEST:
        shortest = f"a {kind.protocol} packet has {least} to {LONGEST} bytes"
        raise BadInput(f"--size {kind.size}: {shortest} with its IP header: choose such a size")
    payload = kind.mark.ljust(size - head - own, b"\0")
    if kind.protocol == "icmp":
        made = icmp_echo.build(icmp_echo.Echo(ends.source, ends.destination, False, _IDENTIFIER, 1, payload))
    else:
        made = _transport(ends, kind, payload)
    return ip.build(made, ends.destination_mac, ends.source_mac)


def _transport(ends: Ends, kind: Kind, payload: bytes) -> Datagram:
    ports = kind.source_port or 40000, kind.port or 9
    if kind.protocol == "tcp":
        flags = _ACK if payload else _SYN
        number, at = TCP, _CHECKSUM_OF_TCP
        segment = _TCP_HEADER.pack(*ports, 1, 0, 5 << 4, flags, _WINDOW, 0, 0) + payload
    else:
        number, at = UDP, 6
        segment = _UDP_HEADER.pack(*ports, _UDP_HEADER.size + len(payload), 0) + payload
    pseudo = ends.source + ends.destination + struct.pack("!II", len(segment), number)
    total = checksum(pseudo + segment) or 0xFFFF
    segment = segment[:at] + total.to_bytes(2, "big") + segment[at + 2 :]
    return Datagram(ends.source, ends.destination, number, segment)


def super_packet(frame: bytes, mtu: int) -> bytes:
    """The virtio_net_hdr of a TCP frame: one that is longer than ``mtu`` is left to the NIC to cut."""
    if len(frame) - ethernet.HEADER <= mtu:
        return bytes(VNET_HEADER.size)
    ipv4 = frame[12:14] == b"\x08\0"
    start = ethernet.HEADER + (20 if ipv4 else 40)
    headers = start + _TCP_HEADER.size
    kind = _GSO_TCPV4 if ipv4 else _GSO_TCPV6
    return VNET_HEADER.pack(
        NEEDS_CSUM, kind, headers, mtu + ethernet.HEADER - headers, start, _CHECKSUM_OF_TCP
    )


def question(ends: Ends) -> bytes:
    """An ARP request, or a Neighbor Solicitation, of ``ends.source`` for ``ends.destination``."""
    if len(ends.source) == 4:
        asked = arp.Arp(arp.REQUEST, ends.source_mac, ends.source, bytes(6), ends.destination)
        return arp.build(asked, ethernet.BROADCAST)
    group = ndp.solicited_node(ends.destination)
    message = ndp.Neighbor(
        ndp.NEIGHBOR_SOLICITATION, ends.source, group, ends.destination, 0, ends.source_mac
    )
    return ndp.build(message, ip.multicast_mac(group), ends.source_mac)


def discover(mac: bytes) -> bytes:
    """A DHCPDISCOVER of a client without an address (RFC 2131 section 4.1)."""
    fixed = struct.pack("!4B4sHH4s4s4s4s16s64x128x", dhcp.BOOTREQUEST, 1, 6, 0, b"trac", 0, 0x8000,
                        *[bytes(4)] * 4, mac)  # fmt: skip
    options = b"\x63\x82\x53\x63" + bytes((53, 1, dhcp.DISCOVER, 255))
    ends = Ends(mac, ethernet.BROADCAST, bytes(4), b"\xff" * 4)
    made = _transport(ends, Kind("udp", dhcp.SERVER_PORT, dhcp.CLIENT_PORT), fixed + options)
    return ip.build(made, ethernet.BROADCAST, mac)


def of_hex(text: str) -> bytes:
    """A frame that is written in hexadecimal digits, with or without blanks and colons. Raises BadInput."""
    try:
        frame = bytes.fromhex(text.replace(":", " "))
    except ValueError:
        remedy = "write two hexadecimal digits for each byte, as tcpdump -xx shows them"
        raise BadInput(f"--frame {text[:20]!r}... is not hexadecimal: {remedy}") from None
    if not ethernet.HEADER <= len(frame) <= LONGEST + ethernet.HEADER:
        longest = LONGEST + ethernet.HEADER
        raise BadInput(
            f"--frame has {len(frame)} bytes: give a whole Ethernet frame, {ethernet.HEADER} to {longest}"
        )
    return frame
