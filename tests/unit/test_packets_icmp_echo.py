"""testbed.packets.icmp_echo, with scapy as the other codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether

from support.frames import ip
from support.random_input import repeatable
from testbed.packets import datagram, icmp_echo
from testbed.packets.icmp_echo import Echo
from testbed.packets.malformed import MalformedFrame

MAC, OTHER = b"\x00\x15\x5d\0\0\1", b"\x00\x15\x5d\0\0\2"
FOUR = Echo(ip("10.0.0.5"), ip("10.0.0.7"), False, 0x1234, 77, b"abcdefg")
SIX = FOUR._replace(source=ip("fd00::5"), destination=ip("fd00::7"))


def _scapys(echo: Echo) -> bytes:
    front = Ether(dst=OTHER.hex(":"), src=MAC.hex(":"))
    if len(echo.source) == 4:
        kind = 0 if echo.is_reply else 8
        header = IP(src="10.0.0.5", dst="10.0.0.7", id=0, flags="DF")
        return bytes(front / header / ICMP(type=kind, id=0x1234, seq=77) / echo.payload)
    layer = ICMPv6EchoReply if echo.is_reply else ICMPv6EchoRequest
    return bytes(
        front / IPv6(src="fd00::5", dst="fd00::7", hlim=64) / layer(id=0x1234, seq=77, data=echo.payload)
    )


@pytest.mark.parametrize("reply", [False, True])
@pytest.mark.parametrize("echo", [FOUR, SIX])
def test_bytes_are_scapys(echo: Echo, reply: bool) -> None:
    echo = echo._replace(is_reply=reply)
    assert datagram.build(icmp_echo.build(echo), OTHER, MAC) == _scapys(echo)
    assert icmp_echo.parse(datagram.parse(_scapys(echo))) == echo


@pytest.mark.parametrize("echo", [FOUR, SIX])
def test_a_reply_keeps_all_but_the_direction(echo: Echo) -> None:
    assert echo.reply() == Echo(echo.destination, echo.source, True, 0x1234, 77, b"abcdefg")


@pytest.mark.parametrize("echo", [FOUR, SIX])
def test_truncations_and_changes_are_refused(echo: Echo) -> None:
    packet = icmp_echo.build(echo)
    for length in range(len(packet.payload)):
        with pytest.raises(MalformedFrame):
            icmp_echo.parse(packet._replace(payload=packet.payload[:length]))
    for position in range(len(packet.payload)):
        changed = bytearray(packet.payload)
        changed[position] ^= 0x40
        with pytest.raises(MalformedFrame, match="checksum"):
            icmp_echo.parse(packet._replace(payload=bytes(changed)))


def test_other_messages_and_the_other_familys_icmp() -> None:
    unreachable = bytes(Ether() / IP(src="10.0.0.5", dst="10.0.0.7") / ICMP(type=3, code=3))
    assert icmp_echo.parse(datagram.parse(unreachable)) is None
    with pytest.raises(MalformedFrame, match="family"):
        icmp_echo.parse(icmp_echo.build(FOUR)._replace(protocol=58))


@repeatable
@given(st.binary(max_size=60), st.sampled_from([4, 16]), st.sampled_from([1, 58]))
def test_nothing_but_malformed_frame_is_raised(data: bytes, size: int, protocol: int) -> None:
    packet = datagram.Datagram(bytes(size), bytes(size), protocol, data)
    for each in (packet, datagram.with_checksum(packet._replace(payload=data.ljust(4, b"\0")))):
        try:
            icmp_echo.parse(each)
        except MalformedFrame:
            continue
