"""What the PA network would have to fragment is dropped, and the VM is told the MTU it has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from support.frames import BROADCAST, UDP, ethernet, ip, ipv4, ipv6, naive_checksum, ports, vnet
from support.switch import PLAIN, MemorySwitch, Seen, gateway_mac, mac_of, pa, v4, v6
from testbed.packets import icmp_error, nvgre
from testbed.switch.actions import Encapsulate, EncapsulateIPv6, Oversize
from testbed.switch.buffer import INNER, FrameBuffer
from testbed.switch.drops import Drop
from testbed.switch.pipeline import WNV

TCP_HEADER = ports(1, 2) + bytes(8) + b"\x80" + bytes(19)  # 32 bytes: with options


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch() as made:
        yield made


def _transport(protocol: int, size: int) -> bytes:
    header = ports(1, 2) + size.to_bytes(2, "big") + bytes(2) if protocol == UDP else TCP_HEADER
    return header + bytes(size - len(header))


def _v4(size: int, protocol: int = UDP, fragment: int = 0, target: str = "blue2") -> bytes:
    """A frame whose IP packet has ``size`` bytes."""
    payload = _transport(protocol, size - 20)
    return ethernet(
        mac_of(target), mac_of("blue1"), 0x0800, ipv4(v4("blue1"), v4(target), protocol, payload, fragment)
    )


def _v6(size: int, protocol: int = UDP) -> bytes:
    payload = _transport(protocol, size - 40)
    return ethernet(
        mac_of("blue2"), mac_of("blue1"), 0x86DD, ipv6(v6("blue1"), v6("blue2"), protocol, payload)
    )


def _told(seen: Seen) -> Ether:
    """The one answer to the VM, given that the packet was dropped as too long."""
    assert seen.drops == {("blue1", Drop.OVERSIZE): 1}
    assert not seen.wire
    ((header, frame),) = seen.ports["blue1"]
    assert header == PLAIN
    return Ether(frame)


@pytest.mark.parametrize("fragment", [0, 0x4000, 0x2000], ids=["DF=0", "DF=1", "first fragment"])
def test_ipv4(switch: MemorySwitch, fragment: int) -> None:
    assert len(switch.from_vm("blue1", _v4(1458, fragment=fragment)).wire) == 1
    sent = _v4(1459, fragment=fragment)
    for _ in range(2):
        answer = _told(switch.from_vm("blue1", sent))
        assert answer.dst == mac_of("blue1").hex(":")
        assert answer[IP].dst == v4("blue1")
        assert (answer[ICMP].type, answer[ICMP].code, answer[ICMP].nexthopmtu) == (3, 4, 1458)
        assert len(answer[IP]) == answer[IP].len == 576  # RFC 1812 section 4.3.2.3
        assert answer.original[42:] == sent[14 : 14 + 548]
        assert naive_checksum(answer.original[14:34]) == naive_checksum(answer.original[34:]) == 0
    assert switch.datapath.drops == {(WNV, "blue1", 5001, Drop.OVERSIZE): 2}


def test_ipv6(switch: MemorySwitch) -> None:
    assert len(switch.from_vm("blue1", _v6(1458)).wire) == 1
    sent = _v6(1459)
    for _ in range(2):
        answer = _told(switch.from_vm("blue1", sent))
        assert answer.dst == mac_of("blue1").hex(":")
        assert (ip(answer[IPv6].dst), answer[IPv6].hlim) == (ip(v6("blue1")), 64)
        assert answer[ICMPv6PacketTooBig].mtu == 1458
        assert len(answer[IPv6]) == 1280
        assert bytes(answer[ICMPv6PacketTooBig].payload) == sent[14 : 14 + 1232]
        again = answer.copy()
        del again[ICMPv6PacketTooBig].cksum, again[IPv6].plen
        assert bytes(again) == bytes(answer)


def _super(segment: int, start: int = 34, gso_type: int = 1) -> bytes:
    return vnet(start, 16, gso_type=gso_type, gso_size=segment, header=start + 32)


def test_of_a_super_packet_the_segments_count(switch: MemorySwitch) -> None:
    """20 + 32 + 1406 = 1458 bytes of IP packet; 32 by the TCP header's data offset."""
    frame = _v4(40000, 6)
    assert switch.from_vm("blue1", frame, _super(1406)).wire
    answer = _told(switch.from_vm("blue1", frame, _super(1407)))
    assert answer[ICMP].nexthopmtu == 1458
    assert switch.from_vm("blue1", frame, _super(1406)).wire
    wide = _v6(40000, 6)
    assert switch.from_vm("blue1", wide, _super(1386, 54, 4)).wire
    assert _told(switch.from_vm("blue1", wide, _super(1387, 54, 4)))[ICMPv6PacketTooBig].mtu == 1458
    # shorter than its own segment size: it stays one packet, and fits
    assert switch.from_vm("blue1", _v4(1400, 6), _super(9000)).wire
    # a checksum to complete makes no super-packet
    assert switch.from_vm("blue1", _v4(1458, 6), vnet(34, 16)).wire
    assert _told(switch.from_vm("blue1", _v4(1459, 6), vnet(34, 16)))[ICMP].nexthopmtu == 1458


def test_a_larger_mtu_of_the_nic(switch: MemorySwitch) -> None:
    switch.nic.mtu = 9000
    switch.state.forget_flows()
    assert switch.from_vm("blue1", _v4(8958)).wire
    assert _told(switch.from_vm("blue1", _v4(8959)))[ICMP].nexthopmtu == 8958


def test_over_ipv6_there_are_20_bytes_less() -> None:
    for size, fits in ((1438, True), (1439, False)):
        for header in (PLAIN, vnet(34, 6)):
            assert _direct(_v4(size), header, pa_size=16) == (fits, not fits)
    for segment, fits in ((1386, True), (1387, False)):
        assert _direct(_v4(40000, 6), _super(segment), pa_size=16) == (fits, not fits)
        assert _direct(_v4(40000, 6), _super(segment + 20), pa_size=4) == (fits, not fits)
    assert _direct(_v4(1438), _super(9000), pa_size=16) == (True, False)


def _direct(frame: bytes, header: bytes, pa_size: int) -> tuple[bool, bool]:
    """Whether the action alone sends, and whether it finds a packet too long."""
    sent, refused = [], []

    class Wire:
        name, mtu, tx_packets, tx_bytes = "nic1", 1500, 0, 0
        send = staticmethod(sent.append)

        def count_lso(self, payload: int, mss: int) -> None:
            pass

    buffer = FrameBuffer()
    end = INNER + len(frame)
    buffer.vnet[:] = header
    buffer.view[INNER:end] = frame
    outer = nvgre.template(bytes(6), bytes(6), bytes(pa_size), bytes(pa_size), 5001, 0)
    kind = Encapsulate if pa_size == 4 else EncapsulateIPv6
    kind(buffer, outer, frame[:12], Wire(), {}, 5001, refused.append)(end)  # type: ignore[arg-type]
    return bool(sent), bool(refused)


# ---- who answers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "layer", "gateway", "other", "target"),
    [
        (_v4(1459), IP, "10.0.0.1", "fd00::1", v4("blue2")),
        (_v6(1459), IPv6, "fd00::1", "10.0.0.1", v6("blue2")),
    ],
)
def test_who_answers(frame: bytes, layer: type[Packet], gateway: str, other: str, target: str) -> None:
    """The gateway; where none is known, or one of the other family, the packet's destination."""
    made = icmp_error.too_big(frame, 1458, mac_of("blue1"), b"\2\0\0\0\0\1", ip(gateway))
    assert made is not None
    assert (Ether(made).src, Ether(made)[layer].src) == ("02:00:00:00:00:01", gateway)
    for unknown in (b"", ip(other)):
        made = icmp_error.too_big(frame, 1458, mac_of("blue1"), b"", unknown)
        assert made is not None
        assert Ether(made).src == mac_of("blue2").hex(":")
        assert ip(Ether(made)[layer].src) == ip(target)


def test_the_subnets_gateway_is_asked(switch: MemorySwitch) -> None:
    for frame, layer, address in ((_v4(1459), IP, "10.0.0.1"), (_v6(1459), IPv6, "fd00::1")):
        answer = _told(switch.from_vm("blue1", frame))
        assert (answer.src, answer[layer].src) == (gateway_mac(5001).hex(":"), address)


def _changed(frame: bytes, position: int, value: bytes) -> bytes:
    return frame[:position] + value + frame[position + len(value) :]


SILENT = {
    "fragment": _v4(1459, fragment=0x0001),
    "broadcast MAC": _changed(_v4(1459), 0, BROADCAST),
    "multicast": _changed(_v4(1459), 30, b"\xe0\0\0\xfb"),
    "broadcast": _changed(_v4(1459), 30, b"\xff\xff\xff\xff"),
    "from nobody": _changed(_v4(1459), 26, bytes(4)),
    "from loopback": _changed(_v4(1459), 26, b"\x7f\0\0\1"),
    "from a group": _changed(_v4(1459), 26, b"\xe0\0\0\1"),
    "ICMP error": _changed(_v4(1459, 1), 34, b"\3\4"),
    "ICMP time exceeded": _changed(_v4(1459, 1), 34, b"\x0b\0"),
    "IHL below 5": _changed(_v4(1459), 14, b"\x44"),
    "another version": _changed(_v4(1459), 14, b"\x65"),
    "ARP": _changed(_v4(1459), 12, b"\x08\x06"),
    "ICMPv6 error": _changed(_v6(1459, 58), 54, b"\2\0"),
    "ICMPv6 redirect": _changed(_v6(1459, 58), 54, b"\x89\0"),
    "IPv6 from nobody": _changed(_v6(1459), 22, bytes(16)),
    "IPv6 from a group": _changed(_v6(1459), 22, b"\xff\2"),
    "IPv6 to a group, nobody known to answer": _changed(_v6(1459), 38, b"\xff\2"),
    "nothing": b"",
    "short": _v4(1459)[:33],
    "short IPv6": _v6(1459)[:53],
}


@pytest.mark.parametrize("frame", SILENT.values(), ids=SILENT.keys())
def test_what_is_not_answered(frame: bytes) -> None:
    assert icmp_error.too_big(frame, 1458, mac_of("blue1")) is None


def test_a_broadcast_is_not_answered_by_the_gateway_either() -> None:
    gateway = b"\2\0\0\0\0\1", ip("10.0.0.1")
    assert icmp_error.too_big(_v4(1459), 1458, mac_of("blue1"), *gateway)
    assert icmp_error.too_big(SILENT["broadcast MAC"], 1458, mac_of("blue1"), *gateway) is None


def test_an_echo_request_is_answered() -> None:
    for frame in (_changed(_v4(1459, 1), 34, b"\x08\0"), _changed(_v6(1459, 58), 54, b"\x80\0")):
        assert icmp_error.too_big(frame, 1458, mac_of("blue1"))


def test_an_ipv6_group_is_answered_by_the_gateway() -> None:
    """RFC 4443 section 2.4 (e.3): packet too big is the exception."""
    frame = _changed(_changed(_v6(1459), 38, ip("ff02::fb")), 0, b"\x33\x33\0\0\0\xfb")
    assert icmp_error.too_big(frame, 1458, mac_of("blue1"), b"\2\0\0\0\0\1", ip("fd00::1"))
    assert icmp_error.too_big(frame, 1458, mac_of("blue1"), b"", ip("fd00::1")) is None


def test_broadcasts_are_dropped_in_silence(switch: MemorySwitch) -> None:
    frame = ethernet(
        BROADCAST, mac_of("blue1"), 0x0800, ipv4(v4("blue1"), "255.255.255.255", UDP, bytes(1439))
    )
    seen = switch.from_vm("blue1", frame)
    assert seen.ports == {"blue4": [(PLAIN, frame)]}  # here it fits
    assert seen.drops == {("blue1", Drop.OVERSIZE): 2}  # of the two copies for other hosts
    assert not seen.wire


def test_between_vms_of_a_host_nothing_is_too_long(switch: MemorySwitch) -> None:
    assert switch.from_vm("blue1", _v4(1500, target="blue4")).ports.keys() == {"blue4"}


def test_a_vm_that_takes_no_answer(switch: MemorySwitch) -> None:
    """Without a port (a packet that did not come from one) the drop is counted all the same."""
    counted: list[int] = []
    buffer = FrameBuffer()
    buffer.view[INNER : INNER + 1473] = _v4(1459)
    Oversize(buffer, counted.append, None, 1458, (b"", b""))(INNER + 1473)
    assert counted == [INNER + 1473]
    switch.neighbor(pa(2, 5001), b"\2\0\0\0\0\x99")
