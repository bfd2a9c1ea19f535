"""testbed.packets.redirect, with scapy as the other codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6ND_Redirect, ICMPv6NDOptDstLLAddr, ICMPv6NDOptRedirectedHdr, IPv6
from scapy.layers.l2 import GRE, Ether

from support.frames import ip
from support.random_input import repeatable
from testbed.packets import datagram, redirect
from testbed.packets.datagram import Datagram, with_checksum
from testbed.packets.malformed import MalformedFrame
from testbed.packets.redirect import Redirect

TUNNEL = GRE(proto=0x6558, key_present=1, key=5001 << 8 | 0x17)
INNER4 = Ether() / IP(src="10.0.0.5", dst="10.0.0.7") / UDP()
INNER6 = Ether() / IPv6(src="fd00::5", dst="fd00::7") / UDP()


def _v4(quoted: object, code: int = 1) -> Datagram:
    outer = IP(src="192.168.0.1", dst="192.168.0.10") / ICMP(type=5, code=code, gw="192.168.0.2")
    return datagram.parse(bytes(Ether() / outer / quoted))


def _v6(*options: object, hops: int = 255, router: str = "fe80::1") -> Datagram:
    packet = Ether() / IPv6(src=router, dst="fd01::10", hlim=hops)
    packet /= ICMPv6ND_Redirect(tgt="fe80::2", dst="fd02::20")
    for option in options:
        packet /= option
    return datagram.parse(bytes(packet))


FROM4 = IP(src="192.168.0.10", dst="192.168.9.20", proto=47)
FROM6 = IPv6(src="fd01::10", dst="fd02::20", nh=47)
SEEN4 = Redirect(ip("192.168.0.1"), ip("192.168.9.20"), ip("192.168.0.2"), ip("192.168.0.10"))
SEEN6 = Redirect(ip("fe80::1"), ip("fd02::20"), ip("fe80::2"), ip("fd01::10"))


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (_v4(FROM4 / TUNNEL / INNER4), SEEN4._replace(vsid=5001, customer_address=ip("10.0.0.7"))),
        (_v4(FROM4 / TUNNEL / INNER6), SEEN4._replace(vsid=5001, customer_address=ip("fd00::7"))),
        (_v4(bytes(FROM4 / TUNNEL)[:28]), SEEN4._replace(vsid=5001)),  # the least that RFC 792 has quoted
        (_v4(bytes(FROM4 / TUNNEL)[:27]), SEEN4),
        (_v4(FROM4 / GRE(proto=0x0800) / bytes(60)), SEEN4),
        (_v4(IP(src="192.168.0.10", dst="192.168.9.20") / UDP()), SEEN4),
        (_v6(), SEEN6),
        (
            _v6(ICMPv6NDOptDstLLAddr(), ICMPv6NDOptRedirectedHdr(pkt=FROM6 / TUNNEL / INNER4)),
            SEEN6._replace(vsid=5001, customer_address=ip("10.0.0.7")),
        ),
    ],
)
def test_what_a_redirect_tells(packet: Datagram, expected: Redirect) -> None:
    assert redirect.parse(packet) == expected


def test_other_messages() -> None:
    echo = datagram.parse(bytes(Ether() / IP(src="192.168.0.1", dst="192.168.0.10") / ICMP()))
    assert redirect.parse(echo) is None


def _changed(packet: Datagram, position: int, value: int) -> Datagram:
    body = bytearray(packet.payload)
    body[position] = value
    body[2:4] = b"\0\0"
    return with_checksum(packet._replace(payload=bytes(body)))


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (_v4(bytes(FROM4)[:19]), "without the packet"),
        (_v4(FROM4, code=4), "without the packet"),
        (_v4(FROM6), "without the packet"),
        (_v4(FROM4)._replace(payload=_v4(FROM4).payload[:-1] + b"x"), "checksum"),
        (_v4(FROM4)._replace(protocol=58), "family"),
        (_v6(hops=254), "router of the link"),
        (_v6(router="fd01::1"), "router of the link"),
        (_changed(_v6(), 24, 0xFF), "multicast"),
        (_changed(_v6(), 1, 1), "truncated"),
        (_changed(_v6(ICMPv6NDOptDstLLAddr()), 41, 0), "option length"),
        (_changed(_v6(ICMPv6NDOptDstLLAddr()), 41, 2), "option length"),
    ],
)
def test_what_a_host_must_ignore(packet: Datagram, why: str) -> None:
    with pytest.raises(MalformedFrame, match=why):
        redirect.parse(packet)


@pytest.mark.parametrize(
    "packet", [_v4(FROM4 / TUNNEL / INNER4), _v6(ICMPv6NDOptRedirectedHdr(pkt=FROM6 / TUNNEL / INNER6))]
)
def test_truncations_lose_or_refuse(packet: Datagram) -> None:
    whole = redirect.parse(packet)
    assert whole is not None
    for length in range(4, len(packet.payload)):
        body = packet.payload[:2] + b"\0\0" + packet.payload[4:length]
        try:
            found = redirect.parse(with_checksum(packet._replace(payload=body)))
        except MalformedFrame:
            continue
        assert found is not None
        assert found[:4] == whole[:4]
        assert found.vsid in (0, whole.vsid)
        assert found.customer_address in (b"", whole.customer_address)


@repeatable
@given(st.binary(max_size=120), st.booleans())
def test_nothing_but_malformed_frame_is_raised(data: bytes, six: bool) -> None:
    head = b"\x89\0\0\0" if six else b"\x05\1\0\0"
    source = ip("fe80::1") if six else ip("192.168.0.1")
    packet = with_checksum(Datagram(source, source, 58 if six else 1, head + data, 255))
    try:
        redirect.parse(packet)
    except MalformedFrame:
        return
