"""testbed.packets.ndp, with scapy as the other codec."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether

from support.frames import icmpv6, ip, ipv6, solicitation
from support.random_input import repeatable
from testbed.packets import ndp
from testbed.packets.malformed import MalformedFrame

MAC, OTHER = b"\x00\x15\x5d\0\0\1", b"\x00\x15\x5d\0\0\2"
NS = ndp.Neighbor(ndp.NEIGHBOR_SOLICITATION, ip("fd00::5"), ip("fd00::7"), ip("fd00::7"), 0, MAC)


def _ipv6(source: str, destination: str) -> IPv6:
    return Ether(dst=OTHER.hex(":"), src=MAC.hex(":")) / IPv6(src=source, dst=destination, hlim=255)


def test_solicitation_is_scapys() -> None:
    theirs = bytes(
        _ipv6("fd00::5", "fd00::7") / ICMPv6ND_NS(tgt="fd00::7") / ICMPv6NDOptSrcLLAddr(lladdr=MAC.hex(":"))
    )
    assert ndp.build(NS, OTHER, MAC) == theirs
    assert ndp.parse(theirs) == NS


def test_advertisement_is_scapys() -> None:
    flags = ndp.FLAG_ROUTER | ndp.FLAG_SOLICITED | ndp.FLAG_OVERRIDE
    ours = ndp.Neighbor(ndp.NEIGHBOR_ADVERTISEMENT, ip("fd00::1"), ip("fd00::7"), ip("fd00::1"), flags, MAC)
    theirs = bytes(
        _ipv6("fd00::1", "fd00::7")
        / ICMPv6ND_NA(tgt="fd00::1", R=1, S=1, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=MAC.hex(":"))
    )
    assert ndp.build(ours, OTHER, MAC) == theirs
    assert ndp.parse(theirs) == ours


def test_a_dad_probe_has_no_option() -> None:
    theirs = bytes(_ipv6("::", "ff02::1:ff00:7") / ICMPv6ND_NS(tgt="fd00::7"))
    message = ndp.parse(theirs)
    assert message.is_dad
    assert message.link_address is None
    assert ndp.build(message, OTHER, MAC) == theirs
    assert not NS.is_dad


addresses = st.binary(min_size=16, max_size=16)
macs = st.binary(min_size=6, max_size=6)
neighbors = st.builds(
    ndp.Neighbor,
    st.sampled_from([ndp.NEIGHBOR_SOLICITATION, ndp.NEIGHBOR_ADVERTISEMENT]),
    addresses,
    addresses,
    addresses,
    st.sampled_from([0, 0x20, 0x60, 0xE0]),
    st.none() | macs,
)


@repeatable
@given(neighbors)
def test_round_trip(message: ndp.Neighbor) -> None:
    assert ndp.parse(memoryview(ndp.build(message, OTHER, MAC))) == message


def test_every_truncation_is_refused() -> None:
    frame = ndp.build(NS, OTHER, MAC)
    for length in range(len(frame)):
        with pytest.raises(MalformedFrame):
            ndp.parse(frame[:length])


def _changed(position: int, value: bytes) -> bytes:
    frame = bytearray(ndp.build(NS, OTHER, MAC))
    frame[position : position + len(value)] = value
    return bytes(frame)


def _message(body: bytes) -> bytes:
    return icmpv6("fd00::5", "fd00::7", body, OTHER, MAC)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (_changed(14, b"\x40"), "hop limit"),  # not IPv6
        (_changed(20, b"\x00"), "extension header"),
        (_changed(21, b"\xfe"), "hop limit"),  # crossed a router
        (_changed(18, b"\x00\x17"), "length lies"),
        (_changed(18, b"\x00\x21"), "length lies"),
        (_changed(56, b"\x00\x00"), "checksum"),
        (_message(b"\x87\1" + bytes(6) + ip("fd00::7")), "not a neighbor message"),
        (_message(b"\x85\0" + bytes(6) + ip("fd00::7")), "not a neighbor message"),
        (_message(b"\x87\0" + bytes(6) + ip("fd00::7") + b"\1\0" + bytes(6)), "option length"),
        (_message(b"\x87\0" + bytes(6) + ip("fd00::7") + b"\1\2" + bytes(6)), "option length"),
        (_message(b"\x87\0" + bytes(6) + ip("fd00::7") + b"\1"), "option length"),
    ],
)
def test_what_a_receiver_must_refuse(frame: bytes, why: str) -> None:
    with pytest.raises(MalformedFrame, match=why):
        ndp.parse(frame)


def test_other_options_are_passed_over() -> None:
    body = b"\x87\0" + bytes(6) + ip("fd00::7") + b"\x0e\1" + bytes(6) + b"\1\1" + MAC
    assert ndp.parse(_message(body)).link_address == MAC


ADVERTISEMENT = b"\x86\0" + bytes(14)


@pytest.mark.parametrize(
    ("next_header", "payload", "expected"),
    [
        (58, ADVERTISEMENT, 134),
        (0, b"\x3a\0" + bytes(6) + ADVERTISEMENT, 134),
        (60, b"\x3a\1" + bytes(14) + ADVERTISEMENT, 134),
        (51, b"\x3a\4" + bytes(22) + ADVERTISEMENT, 134),  # authentication: length in words of 4 bytes
        (0, b"\x3c\0" + bytes(6) + b"\x3a\0" + bytes(6) + ADVERTISEMENT, 134),
        (44, b"\x3a\0\0\1" + bytes(4) + ADVERTISEMENT, 134),
        (44, b"\x3a\0\0\x08" + bytes(4) + ADVERTISEMENT, None),  # a later fragment
        (0, b"\x3a\7" + bytes(6) + ADVERTISEMENT, None),  # longer than the packet
        (0, b"\x3a", None),
        (0, b"\x3b\0" + bytes(6) + ADVERTISEMENT, None),  # no next header
        (17, ADVERTISEMENT, None),
        (58, b"", None),
    ],
)
def test_the_type_is_found_behind_extension_headers(
    next_header: int, payload: bytes, expected: int | None
) -> None:
    frame = OTHER + MAC + b"\x86\xdd" + ipv6("fe80::1", "ff02::1", next_header, payload)
    assert ndp.icmpv6_type(frame) == expected


@repeatable
@given(st.binary(max_size=120), st.integers(0, 255))
def test_nothing_but_malformed_frame_is_raised(data: bytes, next_header: int) -> None:
    header = struct.pack("!IHBB", 6 << 28, len(data), next_header, 255) + bytes(32)
    for frame in (data, OTHER + MAC + b"\x86\xdd" + header + data):
        ndp.icmpv6_type(frame)
        try:
            ndp.parse(frame)
        except MalformedFrame:
            continue


@repeatable
@given(st.integers(14, 85), st.integers(1, 255))
def test_a_changed_byte_is_noticed_or_changes_the_message(position: int, flip: int) -> None:
    frame = bytearray(solicitation("fd00::7", "fd00::5", MAC))
    untouched = ndp.parse(frame)
    frame[position] ^= flip
    try:
        assert ndp.parse(frame) == untouched
    except MalformedFrame:
        return
    assert position < 18  # traffic class and flow label are nobody's business here
