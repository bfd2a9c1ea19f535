"""testbed.packets.dhcp, dhcpv6 and udp: what is read, and what is refused."""

from __future__ import annotations

import pytest

from support import dhcp as made
from support.frames import BROADCAST, TCP, UDP, ethernet, ip, ipv4, ipv6, mac
from support.mutations import truncated
from testbed.packets import dhcp, dhcpv6, udp
from testbed.packets.malformed import MalformedFrame

CLIENT, SERVER = mac("00:15:5d:00:00:09"), mac("00:15:5d:00:00:01")
XID, XID_V6 = b"\x12\x34\x56\x78", b"\xab\xcd\xef"
ACK = made.v4(made.ACK, CLIENT, XID, "10.0.0.77")


# ---- DHCPv4 -------------------------------------------------------------------------------


def test_a_message_is_read() -> None:
    assert dhcp.parse(ACK) == (2, dhcp.ACK, XID, CLIENT, ip("10.0.0.77"))
    question = made.v4(made.DISCOVER, CLIENT, XID)
    assert dhcp.parse(question) == (1, dhcp.DISCOVER, XID, CLIENT, bytes(4))


def test_the_type_is_found_behind_padding_and_other_options_and_before_any_trailer() -> None:
    message = made.v4(made.ACK, CLIENT, XID, options=b"\0\0\x33\4\0\0\0\x3c\0")
    assert dhcp.parse(message).kind == dhcp.ACK
    assert dhcp.parse(message + b"\x35\x7f").kind == dhcp.ACK  # behind the end nothing counts


@pytest.mark.parametrize(
    "message",
    [
        ACK[:239],
        ACK[:240],
        ACK[:241],
        ACK[:240] + b"\xff\x35\1\5",
        ACK[:240] + b"\x35\2\5\5\xff",
        ACK[:240] + b"\x35\0\xff",
        ACK[:240] + b"\x33\xff\0\x35\1\5",
        b"\3" + ACK[1:],
        ACK[:1] + b"\6" + ACK[2:],
        ACK[:2] + b"\x10" + ACK[3:],
        ACK[:236] + b"\0\0\0\0" + ACK[240:],
    ],
)
def test_what_is_refused(message: bytes) -> None:
    with pytest.raises(MalformedFrame):
        dhcp.parse(message)


# ---- DHCPv6 -------------------------------------------------------------------------------


def test_a_reply_gives_the_addresses_of_its_associations() -> None:
    message = made.v6(
        made.REPLY,
        XID_V6,
        made.option(1, bytes(10)),
        made.lease(("fd00::77", 60), ("fd00::78", 0)),
        made.lease(("fd00::79", 1)),
        made.option(25, bytes(12) + made.option(26, bytes(25))),  # a delegated prefix is no address
    )
    assert dhcpv6.parse(message) == (dhcpv6.REPLY, XID_V6, (ip("fd00::77"), ip("fd00::79")))


def test_a_message_without_options_is_one() -> None:
    assert dhcpv6.parse(made.v6(made.SOLICIT, XID_V6)) == (dhcpv6.SOLICIT, XID_V6, ())


@pytest.mark.parametrize("kind", [0, 12, 13, 255])
def test_what_relays_wrap_is_refused(kind: int) -> None:
    with pytest.raises(MalformedFrame):
        dhcpv6.parse(made.v6(kind, XID_V6) + bytes(40))


def test_no_part_of_a_reply_is_taken_for_it() -> None:
    whole = made.v6(made.REPLY, XID_V6, made.lease(("fd00::77", 60)))
    assert dhcpv6.parse(whole).addresses
    for part in truncated(whole):
        try:
            assert not dhcpv6.parse(part).addresses
        except MalformedFrame:
            continue


@pytest.mark.parametrize(
    "options",
    [
        made.option(3, bytes(11)),
        made.option(3, bytes(12) + made.option(5, bytes(23))),
        made.option(3, bytes(12) + b"\0\5\0\x19" + bytes(24)),
        b"\0\3\0",
    ],
)
def test_lying_options_are_refused(options: bytes) -> None:
    with pytest.raises(MalformedFrame):
        dhcpv6.parse(made.v6(made.REPLY, XID_V6, options))


# ---- UDP ----------------------------------------------------------------------------------


def test_a_datagram_is_found_in_both_families() -> None:
    data = made.udp(67, 68, b"hello")
    frame = ethernet(BROADCAST, CLIENT, 0x0800, ipv4("10.0.0.1", "10.0.0.2", UDP, data))
    found = udp.find(frame + bytes(9))  # padding of Ethernet is none of it
    assert found == (67, 68, 42, 47)
    assert frame[found.start : found.end] == b"hello"
    frame = ethernet(BROADCAST, CLIENT, 0x86DD, ipv6("fd00::1", "fd00::2", UDP, data))
    assert udp.find(frame) == (67, 68, 62, 67)


def test_behind_ipv4_options_too() -> None:
    frame = ethernet(BROADCAST, CLIENT, 0x0800, ipv4("10.0.0.1", "10.0.0.2", UDP, made.udp(1, 2, b"")))
    longer = frame[:14] + b"\x46" + frame[15:34] + bytes(4) + frame[34:]
    assert udp.find(longer) == (1, 2, 46, 46)


def _v4(protocol: int = UDP, payload: bytes = made.udp(67, 68, b"hello"), fragment: int = 0) -> bytes:
    return ethernet(BROADCAST, CLIENT, 0x0800, ipv4("10.0.0.1", "10.0.0.2", protocol, payload, fragment))


@pytest.mark.parametrize(
    "frame",
    [
        _v4(TCP),
        _v4(fragment=0x2000),
        _v4(fragment=0x0005),
        _v4()[:-1],
        _v4(payload=b"\0\x43\0\x44\0\7\0\0"),
        _v4(payload=bytes(7)),
        _v4()[:14] + b"\x44" + _v4()[15:],
        _v4()[:14] + b"\x65" + _v4()[15:],
        _v4()[:12] + b"\x08\x06" + _v4()[14:],
        _v4()[:33],
        b"",
        ethernet(BROADCAST, CLIENT, 0x86DD, ipv6("fd00::1", "fd00::2", 44, made.udp(67, 68, b""))),
    ],
)
def test_where_there_is_none(frame: bytes) -> None:
    assert udp.find(frame) is None
