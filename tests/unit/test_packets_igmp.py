"""testbed.packets.igmp, with scapy as the other codec."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.igmp import IGMP, IGMPv3_MQ, IGMPv3_MR, IGMPv3_MR_Group
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from support.frames import ip, naive_checksum
from support.random_input import repeatable
from testbed.packets import datagram, igmp
from testbed.packets.datagram import Datagram
from testbed.packets.igmp import Query, Record
from testbed.packets.malformed import MalformedFrame

MAC = b"\x00\x15\x5d\0\0\1"
GROUP, SOURCE = "239.1.2.3", "10.0.0.5"


def _frame(packet: Datagram) -> bytes:
    return datagram.build(packet, datagram.multicast_mac(packet.destination), MAC)


def test_a_report_is_scapys() -> None:
    records = [Record(igmp.TO_EXCLUDE, ip(GROUP)), Record(igmp.TO_INCLUDE, ip("239.1.2.4"))]
    ours = _frame(igmp.build_report(ip(SOURCE), records))
    heard = Ether(ours)
    assert (heard.dst, heard[IP].dst, heard[IP].ttl, heard[IP].tos) == (
        "01:00:5e:00:00:16",
        "224.0.0.22",
        1,
        0xC0,
    )
    assert bytes(heard[IP].options[0]) == b"\x94\x04\0\0"
    groups = [IGMPv3_MR_Group(rtype=4, maddr=GROUP), IGMPv3_MR_Group(rtype=3, maddr="239.1.2.4")]
    assert bytes(heard[IP].payload) == bytes(IGMPv3_MR(records=groups))


@pytest.mark.parametrize(
    ("packet", "kind", "destination"),
    [
        (igmp.build_v2_report(ip(SOURCE), ip(GROUP)), 0x16, GROUP),
        (igmp.build_v2_leave(ip(SOURCE), ip(GROUP)), 0x17, "224.0.0.2"),
    ],
)
def test_version_2_is_scapys(packet: Datagram, kind: int, destination: str) -> None:
    heard = Ether(_frame(packet))
    assert heard[IP].dst == destination
    assert bytes(heard[IP].payload) == bytes(IGMP(type=kind, mrcode=0, gaddr=GROUP))


def _heard(body: object, destination: str) -> Datagram:
    return datagram.parse(bytes(Ether() / IP(src=SOURCE, dst=destination, proto=2, ttl=1) / body))


@pytest.mark.parametrize("group", ["0.0.0.0", GROUP])
def test_queries_of_both_versions(group: str) -> None:
    destination = "224.0.0.1" if group == "0.0.0.0" else group
    newer = IGMPv3_MQ(mrcode=25, gaddr=group, qqic=10)
    assert igmp.parse_query(_heard(newer, destination)) == Query(ip(group), 2.5, False, 10.0)
    older = IGMP(type=0x11, mrcode=100, gaddr=group)
    found = igmp.parse_query(_heard(older, destination))
    assert found == Query(ip(group), 10.0, True)
    assert found.is_general is (group == "0.0.0.0")


def test_a_query_for_sources() -> None:
    newer = IGMPv3_MQ(mrcode=1, gaddr=GROUP, srcaddrs=["10.0.0.1", "10.0.0.2"])
    found = igmp.parse_query(_heard(newer, GROUP))
    assert found is not None
    assert found.sources == (ip("10.0.0.1"), ip("10.0.0.2"))


@pytest.mark.parametrize(
    ("code", "bits", "value"),
    [
        (127, 8, 127),
        (128, 8, 128),
        (0xFF, 8, 31744),
        (0x7FFF, 16, 32767),
        (0x8000, 16, 32768),
        (0xFFFF, 16, 8387584),
    ],
)
def test_codes(code: int, bits: int, value: int) -> None:
    assert igmp.decode_code(code, bits) == value


def test_a_report_is_no_query() -> None:
    assert igmp.parse_query(igmp.build_report(ip(SOURCE), [])) is None


def _query(body: bytes, destination: str = GROUP) -> Datagram:
    body = body[:2] + naive_checksum(body[:2] + b"\0\0" + body[4:]).to_bytes(2, "big") + body[4:]
    return Datagram(ip(SOURCE), ip(destination), 2, body)


V3 = b"\x11\x19\0\0" + ip(GROUP) + b"\2\x0a\0\2" + ip("10.0.0.1") + ip("10.0.0.2")


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (_query(V3[:11]), "between versions"),
        (_query(V3[:16]), "number of sources"),
        (_query(V3[:19]), "number of sources"),
        (_query(b"\x11\x19\0\0\x0a\0\0\1"), "no group"),
        (_query(b"\x11\x19\0\0\0\0\0\0"), "not for all systems"),
        (_query(V3)._replace(protocol=1), "not IGMP"),
        (_query(V3)._replace(payload=V3), "checksum"),
    ],
)
def test_what_a_host_must_ignore(packet: Datagram, why: str) -> None:
    with pytest.raises(MalformedFrame, match=why):
        igmp.parse_query(packet)


def test_truncations() -> None:
    assert igmp.parse_query(_query(V3)) is not None
    for length in set(range(len(V3))) - {8}:  # 8 bytes are a whole query of version 2
        with pytest.raises(MalformedFrame):
            igmp.parse_query(_query(V3[:length].ljust(4, b"\0")))
        with pytest.raises(MalformedFrame):
            igmp.parse_query(_query(V3)._replace(payload=_query(V3).payload[:length]))


@repeatable
@given(st.binary(max_size=40), st.booleans())
def test_nothing_but_malformed_frame_is_raised(data: bytes, query: bool) -> None:
    body = (b"\x11" if query else b"") + data
    for packet in (Datagram(bytes(4), bytes(4), 2, body), _query(body.ljust(4, b"\0"), "224.0.0.1")):
        try:
            igmp.parse_query(packet)
        except MalformedFrame:
            continue


@repeatable
@given(st.lists(st.tuples(st.sampled_from([2, 3, 4]), st.binary(min_size=4, max_size=4)), max_size=64))
def test_any_report_has_a_right_checksum(records: list[tuple[int, bytes]]) -> None:
    packet = igmp.build_report(bytes(4), [Record(*each) for each in records])
    assert naive_checksum(packet.payload) == 0
    assert struct.unpack_from("!H", packet.payload, 6) == (len(records),)
