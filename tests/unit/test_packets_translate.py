"""testbed.packets.translate: scapy, which computes checksums anew, gets the same bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from support.frames import ip
from support.random_frames import broken
from support.random_input import repeatable
from testbed.packets.malformed import MalformedFrame
from testbed.packets.translate import replace_addresses

OLD = {4: ("10.0.0.5", "10.0.0.6"), 6: ("fd00::5", "fd00::6")}
NEW = {4: ("192.168.0.7", "172.31.255.254"), 6: ("2001:db8::7", "2001:db8:ffff::1")}

_transports = st.sampled_from(
    [
        TCP(sport=1, dport=2, options=[("Timestamp", (1, 2))]),
        UDP(sport=1, dport=2),
    ]
)


def _frame(version: int, transport: Packet, addresses: dict[int, tuple[str, str]], *between: Packet) -> bytes:
    layer = IP if version == 4 else IPv6
    packet = layer(src=addresses[version][0], dst=addresses[version][1])
    for each in between:
        packet /= each
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet / transport)


def _replaced(frame: bytes, version: int, open_at: int = -1) -> bytes:
    data = bytearray(frame)
    replace_addresses(memoryview(data), *map(ip, NEW[version]), open_at)
    return bytes(data)


@pytest.mark.parametrize("version", [4, 6])
@repeatable
@given(transport=_transports, payload=st.binary(max_size=80))
def test_tcp_and_udp(version: int, transport: Packet, payload: bytes) -> None:
    transport = transport / Raw(payload)
    assert _replaced(_frame(version, transport, OLD), version) == _frame(version, transport, NEW)


@repeatable
@given(
    source=st.binary(min_size=4, max_size=4),
    target=st.binary(min_size=4, max_size=4),
    port=st.integers(0, 65535),
)
def test_any_addresses(source: bytes, target: bytes, port: int) -> None:
    """Sums that wrap around, and UDP's 0, which is sent as 0xFFFF."""
    before = bytearray(_frame(4, UDP(sport=port, dport=2), OLD))
    replace_addresses(memoryview(before), source, target)
    wanted = bytes(
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        / IP(src=".".join(map(str, source)), dst=".".join(map(str, target)))
        / UDP(sport=port, dport=2)
    )
    assert bytes(before) == wanted


def test_a_udp_checksum_that_becomes_zero() -> None:
    for port in range(65536):  # one of them must
        frame = _frame(4, UDP(sport=port, dport=2, chksum=port or 1), OLD)
        changed = _replaced(frame, 4)
        if changed[40:42] == b"\xff\xff":
            return
        assert changed[40:42] != b"\0\0"
    raise AssertionError("no such checksum")


def test_icmp() -> None:
    """ICMPv6 has a pseudo-header, ICMP has none."""
    for version, message in ((4, ICMP(id=1, seq=2)), (6, ICMPv6EchoRequest(id=1, seq=2, data=b"abc"))):
        assert _replaced(_frame(version, message, OLD), version) == _frame(version, message, NEW)
    other = _frame(4, Raw(bytes(50)), OLD)
    assert _replaced(other, 4) == _frame(4, Raw(bytes(50)), NEW)


def test_ipv4_options() -> None:
    """The transport header starts where IHL says."""

    def frame(addresses: dict[int, tuple[str, str]]) -> bytes:
        source, target = addresses[4]
        return bytes(Ether() / IP(src=source, dst=target, options=[IPOption_NOP()] * 8) / TCP() / Raw(b"abc"))

    assert _replaced(frame(OLD), 4)[12:] == frame(NEW)[12:]


def test_ipv6_extension_headers() -> None:
    headers = [IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()]
    for count in (1, 2):
        chain = headers[:count]
        assert _replaced(_frame(6, TCP(), OLD, *chain), 6) == _frame(6, TCP(), NEW, *chain)
    first = [IPv6ExtHdrFragment(m=1)]
    assert _replaced(_frame(6, UDP(), OLD, *first), 6) == _frame(6, UDP(), NEW, *first)
    done = [IPv6ExtHdrRouting(addresses=["fd00::9"], segleft=0)]
    assert _replaced(_frame(6, UDP(), OLD, *done), 6) == _frame(6, UDP(), NEW, *done)
    with pytest.raises(MalformedFrame, match="not the last"):
        _replaced(_frame(6, UDP(), OLD, IPv6ExtHdrRouting(addresses=["fd00::9"], segleft=1)), 6)


def test_later_fragments_have_no_transport_header() -> None:
    payload = bytes(range(40))
    frame = bytes(Ether() / IP(src=OLD[4][0], dst=OLD[4][1], proto=17, frag=5) / Raw(payload))
    assert _replaced(frame, 4)[34:] == payload
    first = bytes(
        Ether() / IP(src=OLD[4][0], dst=OLD[4][1], flags="MF") / UDP(sport=1, dport=2) / Raw(payload)
    )
    assert _replaced(first, 4)[40:42] != first[40:42]
    frame = bytes(
        Ether() / IPv6(src=OLD[6][0], dst=OLD[6][1]) / IPv6ExtHdrFragment(offset=5, nh=17) / Raw(payload)
    )
    assert _replaced(frame, 6)[62:] == payload


@pytest.mark.parametrize("version", [4, 6])
def test_a_udp_checksum_of_zero_stays(version: int) -> None:
    start = 34 if version == 4 else 54
    frame = _frame(version, UDP(sport=1, dport=2, chksum=0), OLD)
    assert _replaced(frame, version)[start + 6 : start + 8] == b"\0\0"


def _pseudo(version: int, addresses: dict[int, tuple[str, str]], protocol: int, length: int) -> int:
    data = b"".join(map(ip, addresses[version])) + bytes(2) + bytes([0, protocol]) + length.to_bytes(4, "big")
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("protocol", "offset"), [(6, 16), (17, 6)])
def test_the_sum_of_an_open_checksum(version: int, protocol: int, offset: int) -> None:
    """It is the pseudo-header's, not complemented."""
    at = (34 if version == 4 else 54) + offset
    transport = TCP() if protocol == 6 else UDP()
    frames = []
    for addresses in (OLD, NEW):
        frame = bytearray(_frame(version, transport / Raw(bytes(30)), addresses))
        length = len(frame) - at + offset
        frame[at : at + 2] = _pseudo(version, addresses, protocol, length).to_bytes(2, "big")
        frames.append(bytes(frame))
    assert _replaced(frames[0], version, at) == frames[1]
    assert _replaced(frames[0], version) != frames[1]


def test_the_same_addresses_change_nothing() -> None:
    frame = bytearray(_frame(4, UDP(chksum=0xFFFF), OLD))
    before = bytes(frame)
    replace_addresses(memoryview(frame), *map(ip, OLD[4]))
    assert bytes(frame) == before


@pytest.mark.parametrize(
    "frame",
    [
        bytes(Ether() / ARP()),
        _frame(6, UDP(), OLD),
        _frame(4, UDP(), OLD)[:33],
        _frame(4, UDP(), OLD)[:41],
        _frame(4, TCP(), OLD)[:51],
        _frame(4, UDP(), OLD)[:14] + b"\x44" + _frame(4, UDP(), OLD)[15:],
        _frame(4, UDP(), OLD)[:14] + b"\x4f" + _frame(4, UDP(), OLD)[15:],
        _frame(4, UDP(), OLD)[:14] + b"\x65" + _frame(4, UDP(), OLD)[15:],
        b"",
    ],
    ids=["ARP", "IPv6", "short IP", "short UDP", "short TCP", "IHL 4", "IHL 15", "version 6", "nothing"],
)
def test_what_cannot_be_translated(frame: bytes) -> None:
    data = bytearray(frame)
    with pytest.raises(MalformedFrame):
        replace_addresses(memoryview(data), *map(ip, NEW[4]))
    assert bytes(data) == frame


@repeatable
@given(
    frame=broken(st.sampled_from([_frame(4, TCP(), OLD), _frame(6, UDP(), OLD, IPv6ExtHdrHopByHop())])),
    open_at=st.integers(-1, 80),
)
def test_hostile_bytes(frame: bytes, open_at: int) -> None:
    for version in (4, 6):
        data = bytearray(frame)
        try:
            replace_addresses(memoryview(data), *map(ip, NEW[version]), open_at)
        except MalformedFrame:
            assert bytes(data) == frame
        else:
            assert len(data) == len(frame)
