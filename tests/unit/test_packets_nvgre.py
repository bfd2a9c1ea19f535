"""testbed.packets.nvgre: the outer headers, with scapy as the other codec."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Packet, Raw

from support.frames import encapsulated, ip
from support.random_input import repeatable
from testbed.packets import nvgre
from testbed.packets.malformed import MalformedFrame
from testbed.switch.actions import Encapsulate, EncapsulateIPv6
from testbed.switch.buffer import INNER, FrameBuffer

# Hand-made and dissected by tshark 4.0.17 with good checksums: VSID 6000, FlowID 0xAB, PA
# 192.168.1.101 -> .102, CA 10.0.0.5 -> 10.0.0.7, ICMP echo request. The outer id is 1.
WORKED = bytes.fromhex(
    "00155d000066 00155d000065 0800 4500004a 00014000 402fb668 c0a80165 c0a80166 20006558 001770ab"
    "101010101107 101010101105 0800 45000020 12340000 8001149e 0a000005 0a000007 0800592b 00010064 484e5621"
)
TEMPLATE = nvgre.template(WORKED[:6], WORKED[6:12], WORKED[26:30], WORKED[30:34], 6000, 0xAB)


class _Wire:
    """An uplink as far as Encapsulate needs one."""

    name = "nic1"
    mtu = 1500
    tx_packets = tx_bytes = 0
    sent = b""

    def send(self, data: memoryview) -> None:
        self.sent = bytes(data)


def _encapsulate(outer: bytes, inner: bytes) -> bytes:
    """The frame that the switch's own action sends."""
    buffer, wire = FrameBuffer(), _Wire()
    end = INNER + len(inner)
    buffer.data[INNER:end] = inner
    kind = Encapsulate if outer[12:14] == b"\x08\x00" else EncapsulateIPv6
    kind(buffer, outer, inner[:12], wire, {}, 6000, print)(end)  # type: ignore[arg-type]
    return wire.sent[10:]


def test_the_worked_frame() -> None:
    assert len(WORKED) == 88
    sent = _encapsulate(TEMPLATE, WORKED[42:])
    # ours differs in the id alone, which is 0, and so by one in the checksum
    assert sent[18:20] == b"\0\0"
    assert sent[24:26] == b"\xb6\x69"
    assert sent[:18] + WORKED[18:20] + sent[20:24] + WORKED[24:26] + sent[26:] == WORKED


@pytest.mark.parametrize("frame", [WORKED, _encapsulate(TEMPLATE, WORKED[42:]), WORKED + bytes(7)])
def test_the_worked_frame_is_parsed(frame: bytes) -> None:
    assert nvgre.parse(memoryview(frame)) == nvgre.Outer(
        WORKED[:6], WORKED[6:12], ip("192.168.1.101"), ip("192.168.1.102"), 6000, 0xAB, 88
    )


def test_bytes_are_scapys() -> None:
    theirs = bytes(
        Ether(dst="00:15:5d:00:00:66", src="00:15:5d:00:00:65")
        / IP(src="192.168.1.101", dst="192.168.1.102", id=0, flags="DF", ttl=64, proto=47)
        / GRE(key_present=1, proto=0x6558, key=6000 << 8 | 0xAB)
        / Ether(dst="10:10:10:10:11:07", src="10:10:10:10:11:05")
        / IP(src="10.0.0.5", dst="10.0.0.7", id=0x1234, ttl=128)
        / ICMP(id=1, seq=100)
        / b"HNV!"
    )
    assert _encapsulate(TEMPLATE, WORKED[42:]) == theirs


@repeatable
@given(
    st.binary(min_size=6, max_size=6),
    st.binary(min_size=4, max_size=4),
    st.binary(min_size=4, max_size=4),
    st.integers(0, 0xFFFFFF),
    st.integers(0, 255),
    st.binary(min_size=14, max_size=1500),
)
def test_round_trip(mac: bytes, source: bytes, target: bytes, vsid: int, flow_id: int, inner: bytes) -> None:
    sent = _encapsulate(nvgre.template(mac, mac[::-1], source, target, vsid, flow_id), inner)
    expected = nvgre.Outer(mac, mac[::-1], source, target, vsid, flow_id, 42 + len(inner))
    assert nvgre.parse(sent) == expected
    assert sent[42:] == inner


def test_every_truncation_is_refused() -> None:
    for length in range(len(WORKED)):
        with pytest.raises(MalformedFrame):
            nvgre.parse(WORKED[:length])


def _changed(position: int, value: bytes) -> bytes:
    """The worked frame with other bytes and a right checksum."""
    frame = bytearray(WORKED)
    frame[position : position + len(value)] = value
    frame[24:26] = b"\0\0"
    total = sum(struct.unpack("!10H", frame[14:34]))
    total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", frame, 24, total ^ 0xFFFF)
    return bytes(frame)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (_changed(14, b"\x46"), "not 20 bytes"),
        (_changed(14, b"\x65"), "not 20 bytes"),
        (_changed(16, b"\x00\x29"), "length lies"),  # no room for an inner Ethernet header
        (_changed(16, b"\x00\x4b"), "length lies"),
        (_changed(20, b"\x20\x00"), "fragment"),
        (_changed(20, b"\x00\x01"), "fragment"),
        (_changed(23, b"\x11"), "not NVGRE"),
        (_changed(34, b"\xa0"), "not NVGRE"),  # GRE checksum present
        (_changed(34, b"\x30"), "not NVGRE"),  # GRE sequence number present
        (_changed(34, b"\x00"), "not NVGRE"),  # no key
        (_changed(35, b"\x01"), "not NVGRE"),  # version 1
        (_changed(36, b"\x08\x00"), "not NVGRE"),
        (WORKED[:25] + b"\x69" + WORKED[26:], "checksum wrong"),
        (WORKED[:22] + b"\x3f" + WORKED[23:], "checksum wrong"),
    ],
)
def test_what_is_not_nvgre(frame: bytes, why: str) -> None:
    with pytest.raises(MalformedFrame, match=why):
        nvgre.parse(frame)


def test_don_t_fragment_is_set() -> None:
    assert nvgre.parse(_changed(20, b"\x00\x00")).vsid == 6000  # a sender without DF is understood
    assert TEMPLATE[20:22] == b"\x40\x00"


@repeatable
@given(st.binary(max_size=120))
def test_arbitrary_bytes(frame: bytes) -> None:
    for candidate in (frame, WORKED[: len(frame) % 89] + frame):
        try:
            outer = nvgre.parse(candidate)
        except MalformedFrame:
            continue
        assert 56 <= outer.length <= len(candidate)


@repeatable
@given(st.integers(0, 87), st.integers(1, 255))
def test_a_changed_byte(position: int, flip: int) -> None:
    frame = bytearray(encapsulated(WORKED[42:], 6000, "192.168.1.101", "192.168.1.102", WORKED[:6]))
    frame[position] ^= flip
    try:
        nvgre.parse(frame)
    except MalformedFrame:
        assert 12 <= position < 38
    else:
        assert not 12 <= position < 38


# ---- over IPv6 ----------------------------------------------------------------------------

# The worked frame's inner packet; the outer headers by scapy.
_IPV6 = IPv6(src="2001:db8::101", dst="2001:db8::102", nh=47, hlim=64)
_GRE = GRE(key_present=1, proto=0x6558, key=6000 << 8 | 0xAB)
WORKED_IPV6 = bytes(Ether(WORKED[:12] + b"\x86\xdd") / _IPV6 / _GRE / Raw(WORKED[42:]))
TEMPLATE_IPV6 = nvgre.template(WORKED[:6], WORKED[6:12], ip("2001:db8::101"), ip("2001:db8::102"), 6000, 0xAB)


def test_the_worked_frame_over_ipv6() -> None:
    assert len(WORKED_IPV6) == 62 + 46
    assert _encapsulate(TEMPLATE_IPV6, WORKED[42:]) == WORKED_IPV6


@pytest.mark.parametrize("frame", [WORKED_IPV6, WORKED_IPV6 + bytes(7)])
def test_the_worked_frame_over_ipv6_is_parsed(frame: bytes) -> None:
    assert nvgre.parse(memoryview(frame)) == nvgre.Outer(
        WORKED[:6], WORKED[6:12], ip("2001:db8::101"), ip("2001:db8::102"), 6000, 0xAB, 108, 62
    )
    assert nvgre.carries_gre(frame)


@pytest.mark.parametrize("payload", [0, 1, 59, 1400])
@pytest.mark.parametrize(("flow_id", "vsid"), [(0, 1), (255, 0xFFFFFF)])
def test_scapy_reads_what_is_sent_over_ipv6(payload: int, flow_id: int, vsid: int) -> None:
    outer = nvgre.template(WORKED[:6], WORKED[6:12], ip("fd00::1"), ip("fd00::2"), vsid, flow_id)
    sent = Ether(_encapsulate(outer, WORKED[42:] + bytes(payload)))
    assert (sent[IPv6].plen, sent[IPv6].hlim, sent[IPv6].fl, sent[IPv6].tc) == (54 + payload, 64, 0, 0)
    assert (sent[GRE].key, sent[GRE].proto) == (vsid << 8 | flow_id, 0x6558)
    assert bytes(sent[GRE].payload) == WORKED[42:] + bytes(payload)


def _behind(*headers: Packet) -> bytes:
    """The worked frame with IPv6 extension headers."""
    packet = IPv6(src="2001:db8::101", dst="2001:db8::102", hlim=64)
    for header in headers:
        packet /= header
    packet.lastlayer().nh = 47
    return bytes(Ether(WORKED[:12] + b"\x86\xdd") / packet / _GRE / Raw(WORKED[42:]))


def _ipv6_with(position: int, value: bytes) -> bytes:
    return WORKED_IPV6[:position] + value + WORKED_IPV6[position + len(value) :]


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (_ipv6_with(14, b"\x45"), "another version"),
        (_ipv6_with(18, b"\x00\x15"), "length lies"),
        (_ipv6_with(18, b"\x00\x37"), "length lies"),
        (_ipv6_with(20, b"\x11"), "not NVGRE"),
        (_ipv6_with(54, b"\xa0"), "not NVGRE"),
        (_ipv6_with(55, b"\x01"), "not NVGRE"),
        (_ipv6_with(56, b"\x08\x00"), "not NVGRE"),
        (_behind(IPv6ExtHdrHopByHop()), "extension header"),
        (_behind(IPv6ExtHdrDestOpt()), "extension header"),
        (_behind(IPv6ExtHdrFragment()), "fragment"),
        (_behind(IPv6ExtHdrFragment(m=1)), "fragment"),
        (_behind(IPv6ExtHdrHopByHop(), IPv6ExtHdrFragment(offset=9)), "fragment"),
        (WORKED_IPV6[:75], "truncated"),
    ],
)
def test_what_is_not_nvgre_over_ipv6(frame: bytes, why: str) -> None:
    with pytest.raises(MalformedFrame, match=why):
        nvgre.parse(frame)


def test_gre_is_found_behind_extension_headers() -> None:
    """What parse refuses by name must be told from what is no GRE at all."""
    for headers in ([IPv6ExtHdrHopByHop()], [IPv6ExtHdrFragment(m=1)], [IPv6ExtHdrHopByHop()] * 3):
        frame = _behind(*headers)
        assert nvgre.carries_gre(frame)
        assert not nvgre.carries_gre(frame[:60])  # the extension headers cut short
    other = bytes(Ether() / IPv6(dst="2001:db8::102") / IPv6ExtHdrHopByHop() / UDP())
    assert not nvgre.carries_gre(other)
    assert not nvgre.carries_gre(WORKED[:33])
    assert nvgre.carries_gre(WORKED)


@repeatable
@given(st.binary(max_size=160), st.integers(0, 108))
def test_arbitrary_bytes_over_ipv6(tail: bytes, kept: int) -> None:
    frame = WORKED_IPV6[:kept] + tail
    if len(frame) >= 14:
        nvgre.carries_gre(frame)
    try:
        outer = nvgre.parse(frame)
    except MalformedFrame:
        return
    assert outer.header + 14 <= outer.length <= len(frame)


@repeatable
@given(st.integers(0, 107), st.integers(1, 255))
def test_a_changed_byte_over_ipv6(position: int, flip: int) -> None:
    frame = bytearray(WORKED_IPV6)
    frame[position] ^= flip
    version, protected = position == 14 and flip >> 4, {12, 13, 18, 19, 20, 54, 55, 56, 57}
    try:
        nvgre.parse(frame)
    except MalformedFrame:
        assert version or position in protected
    else:
        assert not version
        assert position not in protected - {18, 19}  # a shorter length may still hold the headers
