"""testbed.packets.arp, with scapy as the other codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import ARP, Ether

from support.random_input import repeatable
from testbed.packets import arp, ethernet
from testbed.packets.malformed import MalformedFrame

MAC, OTHER = b"\x00\x15\x5d\0\0\1", b"\x00\x15\x5d\0\0\2"
messages = st.builds(
    arp.Arp,
    st.integers(0, 0xFFFF),
    st.binary(min_size=6, max_size=6),
    st.binary(min_size=4, max_size=4),
    st.binary(min_size=6, max_size=6),
    st.binary(min_size=4, max_size=4),
)
REQUEST = arp.Arp(arp.REQUEST, MAC, bytes([10, 0, 0, 5]), bytes(6), bytes([10, 0, 0, 7]))


@pytest.mark.parametrize("operation", [arp.REQUEST, arp.REPLY])
def test_bytes_are_scapys(operation: int) -> None:
    ours = arp.build(arp.Arp(operation, MAC, bytes([10, 0, 0, 5]), OTHER, bytes([10, 0, 0, 7])), OTHER)
    theirs = Ether(dst=OTHER.hex(":"), src=MAC.hex(":")) / ARP(
        op=operation, hwsrc=MAC.hex(":"), psrc="10.0.0.5", hwdst=OTHER.hex(":"), pdst="10.0.0.7"
    )
    assert ours == bytes(theirs)
    assert arp.parse(bytes(theirs)).target_ip == bytes([10, 0, 0, 7])


@repeatable
@given(messages)
def test_round_trip_also_with_padding(message: arp.Arp) -> None:
    frame = arp.build(message, ethernet.BROADCAST, OTHER)
    assert frame[6:12] == OTHER
    assert arp.parse(memoryview(frame + bytes(18))) == message


def test_a_probe_claims_no_address() -> None:
    assert REQUEST._replace(sender_ip=bytes(4)).is_probe
    assert not REQUEST.is_probe
    assert not REQUEST._replace(operation=arp.REPLY, sender_ip=bytes(4)).is_probe


def test_every_truncation_is_refused() -> None:
    frame = arp.build(REQUEST, ethernet.BROADCAST)
    for length in range(len(frame)):
        with pytest.raises(MalformedFrame, match="ARP truncated"):
            arp.parse(frame[:length])


@pytest.mark.parametrize("position", range(14, 20))
def test_only_ipv4_over_ethernet(position: int) -> None:
    frame = bytearray(arp.build(REQUEST, ethernet.BROADCAST))
    frame[position] ^= 1
    with pytest.raises(MalformedFrame, match="not IPv4 over Ethernet"):
        arp.parse(frame)


@repeatable
@given(st.binary(max_size=80))
def test_nothing_but_malformed_frame_is_raised(frame: bytes) -> None:
    for parse in (arp.parse, ethernet.ethertype):
        try:
            parse(frame)
        except MalformedFrame:
            continue


@pytest.mark.parametrize("text", ["00:15:5d:00:00", "00:15:5d:00:00:01:02", "no", ""])
def test_what_is_no_mac_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a MAC address|non-hexadecimal"):
        ethernet.parse_mac(text)


def test_mac_addresses_of_both_spellings() -> None:
    assert ethernet.parse_mac("00-15-5D-00-00-01") == ethernet.parse_mac("00:15:5d:00:00:01") == MAC
    assert ethernet.format_mac(memoryview(MAC)) == "00:15:5d:00:00:01"
