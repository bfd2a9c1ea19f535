"""testbed.packets.mld, with scapy as the other codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import (
    ICMPv6MLDMultAddrRec,
    ICMPv6MLDone,
    ICMPv6MLQuery,
    ICMPv6MLQuery2,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    IPv6,
    IPv6ExtHdrHopByHop,
    PadN,
    RouterAlert,
)
from scapy.layers.l2 import Ether

from support.frames import ip
from support.random_input import repeatable
from testbed.packets import datagram, igmp, mld
from testbed.packets.datagram import Datagram, with_checksum
from testbed.packets.igmp import Query, Record
from testbed.packets.malformed import MalformedFrame

MAC = b"\x00\x15\x5d\0\0\1"
GROUP, SOURCE = "ff15::1:2:3", "fe80::5"
ALERT = IPv6ExtHdrHopByHop(options=[RouterAlert(), PadN(optdata=b"")])


def _theirs(destination: str, body: object) -> bytes:
    mac = datagram.multicast_mac(ip(destination)).hex(":")
    header = IPv6(src=SOURCE, dst=destination, hlim=1)
    return bytes(Ether(dst=mac, src=MAC.hex(":")) / header / ALERT / body)


RECORDS = [
    ICMPv6MLDMultAddrRec(rtype=4, dst=GROUP),
    ICMPv6MLDMultAddrRec(rtype=3, dst="ff15::4"),
]


@pytest.mark.parametrize(
    ("packet", "destination", "body"),
    [
        (
            mld.build_report(ip(SOURCE), [Record(igmp.TO_EXCLUDE, ip(GROUP)), Record(3, ip("ff15::4"))]),
            "ff02::16",
            ICMPv6MLReport2(records=RECORDS),
        ),
        (mld.build_v1_report(ip(SOURCE), ip(GROUP)), GROUP, ICMPv6MLReport(mladdr=GROUP)),
        (mld.build_v1_done(ip(SOURCE), ip(GROUP)), "ff02::2", ICMPv6MLDone(mladdr=GROUP)),
    ],
)
def test_reports_are_scapys(packet: Datagram, destination: str, body: object) -> None:
    ours = datagram.build(packet, datagram.multicast_mac(packet.destination), MAC)
    assert ours == _theirs(destination, body)


def _heard(destination: str, body: object) -> Datagram:
    return datagram.parse(_theirs(destination, body))


@pytest.mark.parametrize("group", ["::", GROUP])
def test_queries_of_both_versions(group: str) -> None:
    destination = "ff02::1" if group == "::" else group
    newer = ICMPv6MLQuery2(mladdr=group, mrd=250, QQIC=10)
    assert mld.parse_query(_heard(destination, newer)) == Query(ip(group), 0.25, False, 10.0)
    found = mld.parse_query(_heard(destination, ICMPv6MLQuery(mladdr=group, mrd=10000)))
    assert found == Query(ip(group), 10.0, True)
    assert found.is_general is (group == "::")


def test_a_query_for_sources() -> None:
    found = mld.parse_query(_heard(GROUP, ICMPv6MLQuery2(mladdr=GROUP, sources=["fd00::1", "fd00::2"])))
    assert found is not None
    assert found.sources == (ip("fd00::1"), ip("fd00::2"))


def test_a_report_is_no_query() -> None:
    assert mld.parse_query(mld.build_report(ip(SOURCE), [])) is None


V2 = b"\x82\0\0\0\0\xfa\0\0" + ip(GROUP) + b"\2\x0a\0\1" + ip("fd00::1")


def _query(body: bytes = V2, destination: str = GROUP) -> Datagram:
    packet = Datagram(ip(SOURCE), ip(destination), 58, body.ljust(4, b"\0"), 1, True)
    return with_checksum(packet._replace(payload=packet.payload[:2] + b"\0\0" + packet.payload[4:]))


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (_query(V2[:23]), "of no version"),
        (_query(V2[:27]), "of no version"),
        (_query(V2[:28]), "number of sources"),
        (_query(V2[:43]), "number of sources"),
        (_query(V2[:8] + ip("fd00::9")), "no group"),
        (_query(V2[:8] + bytes(16)), "not for all nodes"),
        (_query()._replace(protocol=2), "not ICMPv6"),
        (_query()._replace(payload=V2), "checksum"),
        (_query()._replace(hops=2), "hop limit"),
        (_query()._replace(router_alert=False), "router alert"),
        (with_checksum(Datagram(ip("fd00::5"), ip(GROUP), 58, V2, 1, True)), "not link-local"),
    ],
)
def test_what_a_host_must_ignore(packet: Datagram, why: str) -> None:
    with pytest.raises(MalformedFrame, match=why):
        mld.parse_query(packet)


def test_truncations() -> None:
    assert mld.parse_query(_query()) is not None
    for length in set(range(len(V2))) - {24}:  # 24 bytes are a whole query of version 1
        with pytest.raises(MalformedFrame):
            mld.parse_query(_query(V2[:length]))
        with pytest.raises(MalformedFrame):
            mld.parse_query(_query()._replace(payload=_query().payload[:length]))


@repeatable
@given(st.binary(max_size=60), st.booleans())
def test_nothing_but_malformed_frame_is_raised(data: bytes, query: bool) -> None:
    body = (b"\x82" if query else b"") + data
    for packet in (Datagram(bytes(16), bytes(16), 58, body, 1, True), _query(body, "ff02::1")):
        try:
            mld.parse_query(packet)
        except MalformedFrame:
            continue
