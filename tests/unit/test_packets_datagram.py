"""testbed.packets.datagram, with scapy as the other codec."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop, PadN, RouterAlert
from scapy.layers.l2 import Ether

from support.frames import BROADCAST, ethernet, ip, ipv4, ipv6, naive_checksum
from support.random_input import repeatable
from testbed.packets import datagram
from testbed.packets.datagram import Datagram
from testbed.packets.malformed import MalformedFrame

MAC, OTHER = b"\x00\x15\x5d\0\0\1", b"\x00\x15\x5d\0\0\2"
FOUR = Datagram(ip("10.0.0.5"), ip("10.0.0.7"), 1, b"payload", 9)
SIX = Datagram(ip("fd00::5"), ip("fd00::7"), 58, b"payload", 9)
ALERTS = [each._replace(router_alert=True, traffic_class=0xC0) for each in (FOUR, SIX)]


def _scapys(told: Datagram) -> bytes:
    front = Ether(dst=OTHER.hex(":"), src=MAC.hex(":"))
    if len(told.source) == 4:
        options = [IPOption_Router_Alert()] if told.router_alert else []
        header = IP(
            src="10.0.0.5",
            dst="10.0.0.7",
            ttl=9,
            id=0,
            flags="DF",
            proto=1,
            tos=told.traffic_class,
            options=options,
        )
        return bytes(front / header / told.payload)
    header = IPv6(src="fd00::5", dst="fd00::7", hlim=9, tc=told.traffic_class, nh=58)
    if told.router_alert:
        header.nh = 0
        options = [RouterAlert(), PadN(optdata=b"")]
        return bytes(front / header / IPv6ExtHdrHopByHop(nh=58, options=options) / told.payload)
    return bytes(front / header / told.payload)


@pytest.mark.parametrize("told", [FOUR, SIX, *ALERTS])
def test_bytes_are_scapys(told: Datagram) -> None:
    assert datagram.build(told, OTHER, MAC) == _scapys(told)
    assert datagram.parse(_scapys(told)) == told
    assert datagram.parse(memoryview(_scapys(told) + bytes(20))) == told  # padding


@pytest.mark.parametrize("told", [FOUR, SIX, *ALERTS])
def test_every_truncation_is_refused(told: Datagram) -> None:
    frame = datagram.build(told, OTHER, MAC)
    for length in range(len(frame)):
        with pytest.raises(MalformedFrame):
            datagram.parse(frame[:length])


def test_the_alert_is_found_behind_other_options() -> None:
    front = Ether(dst=OTHER.hex(":"), src=MAC.hex(":"))
    four = front / IP(options=[IPOption_NOP(), IPOption_Router_Alert()], src="1.1.1.1", dst="2.2.2.2") / b"x"
    assert datagram.parse(bytes(four)).router_alert
    six = front / IPv6() / IPv6ExtHdrHopByHop(nh=58, options=[PadN(optdata=bytes(4)), RouterAlert()]) / b"x"
    assert datagram.parse(bytes(six)).router_alert


def _v4(position: int, value: int) -> bytes:
    packet = bytearray(ipv4("10.0.0.5", "10.0.0.7", 1, bytes(8)))
    packet[position] = value
    return ethernet(OTHER, MAC, 0x0800, bytes(packet))


def _hop_by_hop(options: bytes) -> bytes:
    return ethernet(OTHER, MAC, 0x86DD, ipv6("fd00::5", "fd00::7", 0, b"\x3a\0" + options))


def _with_options(options: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH4s4s", 0x46, 0, 24, 0, 0, 1, 2, 0, ip("10.0.0.5"), ip("10.0.0.7")) + options
    return ethernet(OTHER, MAC, 0x0800, head[:10] + naive_checksum(head).to_bytes(2, "big") + head[12:])


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (ethernet(OTHER, MAC, 0x0806, bytes(46)), "neither"),
        (_v4(0, 0x55), "version or header length"),
        (_v4(0, 0x44), "version or header length"),
        (_v4(3, 19), "length lies"),
        (_v4(3, 29), "length lies"),
        (_v4(8, 1), "checksum"),
        (ethernet(OTHER, MAC, 0x0800, ipv4("10.0.0.5", "10.0.0.7", 1, bytes(8), 0x2000)), "fragment"),
        (ethernet(OTHER, MAC, 0x0800, ipv4("10.0.0.5", "10.0.0.7", 1, bytes(8), 0x0001)), "fragment"),
        (_with_options(b"\x94\x01\0\0"), "option length"),
        (_with_options(b"\x94\x05\0\0"), "option length"),
        (_with_options(b"\x01\x01\x01\x94"), "option length"),
        (ethernet(OTHER, MAC, 0x86DD, b"\x50" + ipv6("fd00::5", "fd00::7", 58, b"")[1:]), "version"),
        (_hop_by_hop(b"\5\7\0\0\0\0"), "option length"),
        (_hop_by_hop(b"\0\0\0\0\0\5"), "option length"),
        (_hop_by_hop(b"\1\4"), "truncated"),
    ],
)
def test_what_a_receiver_must_refuse(frame: bytes, why: str) -> None:
    with pytest.raises(MalformedFrame, match=why):
        datagram.parse(frame)


@pytest.mark.parametrize(
    ("group", "mac"),
    [("224.0.0.22", "01005e000016"), ("239.255.1.2", "01005e7f0102"), ("ff02::1:ff00:7", "3333ff000007")],
)
def test_the_mac_of_a_group(group: str, mac: str) -> None:
    assert datagram.multicast_mac(ip(group)).hex() == mac


@pytest.mark.parametrize(
    ("kind", "packet", "expected"),
    [
        (0x0806, bytes(46), True),
        (0x0800, ipv4("10.0.0.5", "10.0.0.7", 1, b""), True),
        (0x0800, ipv4("10.0.0.5", "10.0.0.7", 2, b""), True),
        (0x0800, ipv4("10.0.0.5", "10.0.0.7", 47, b""), False),
        (0x86DD, ipv6("fd00::5", "fd00::7", 58, b""), True),
        (0x86DD, ipv6("fd00::5", "fd00::7", 0, b""), True),
        (0x86DD, ipv6("fd00::5", "fd00::7", 17, b""), False),
        (0x8100, bytes(46), False),
    ],
)
def test_what_is_of_the_pa_space(kind: int, packet: bytes, expected: bool) -> None:
    assert datagram.is_of_pa_space(ethernet(BROADCAST, MAC, kind, packet)) is expected


@repeatable
@given(st.binary(max_size=120), st.sampled_from([0x0800, 0x86DD]))
def test_nothing_but_malformed_frame_is_raised(data: bytes, kind: int) -> None:
    six = struct.pack("!IHBB", 6 << 28, len(data), 0, 1) + bytes(32)
    for frame in (data, ethernet(OTHER, MAC, kind, data), ethernet(OTHER, MAC, 0x86DD, six + data)):
        datagram.is_of_pa_space(frame)
        try:
            datagram.parse(frame)
        except MalformedFrame:
            continue
