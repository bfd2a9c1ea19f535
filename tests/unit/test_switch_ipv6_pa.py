"""NVGRE over IPv6 PAs: all four mixes of families, offload metadata, the flow cache, hostile bytes."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP as ICMP_MESSAGE
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether

from support.frames import BROADCAST, ICMP, TCP, UDP, encapsulated, ethernet, ip, ipv4, ipv6, ports, vnet
from support.random_frames import broken, tenant_frames, vnet_headers
from support.random_input import repeatable
from support.switch import PLAIN, MemorySwitch, Seen, mac_of, nic_mac, pa, policy, records, v4, v6
from testbed.packets import nvgre
from testbed.switch.datapath import Datapath
from testbed.switch.drops import Drop
from testbed.topology.plan import HostPolicy, ProviderAddress

SUPER = vnet(34, 16, gso_type=1, gso_size=1398, header=54)


def pa6(host: int, vsid: int = 5001) -> str:
    """A host's IPv6 PA for a virtual subnet."""
    return f"2001:db8:0:{vsid}::{host}"


def policy6(host: int = 1) -> HostPolicy:
    """The tests' network with IPv6 PAs."""
    moved = tuple(
        msgspec.structs.replace(
            record, provider_address=pa6(_host(record.provider_address), record.virtual_subnet_id)
        )
        if record.vm_name
        else msgspec.structs.replace(record, provider_address="fe80::254")
        for record in records()
    )
    own = tuple(ProviderAddress(pa6(host, vsid), 64, vsid) for vsid in (5001, 5002, 6001))
    return policy(host, lookup_records=moved, provider_addresses=own)


def _host(address: str) -> int:
    return int(address.rpartition(".")[2])


def over_ipv6(host: int = 1, *, cached: bool = True) -> MemorySwitch:
    """Host ``host`` of that network; all neighbors are resolved."""
    switch = MemorySwitch(host, cached=cached)
    switch.apply(policy6(host))
    for other in (1, 2, 3):
        for vsid in (5001, 5002, 6001):
            switch.state.neighbors[ip(pa6(other, vsid))] = nic_mac(other)
    return switch


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with over_ipv6() as made:
        yield made


def _v4(name: str, target: str, size: int = 40, protocol: int = TCP) -> bytes:
    packet = ipv4(v4(name), v4(target), protocol, ports(1, 2) + bytes(16 + size))
    return ethernet(mac_of(target), mac_of(name), 0x0800, packet)


def _v6(name: str, target: str, size: int = 40, protocol: int = TCP) -> bytes:
    packet = ipv6(v6(name), v6(target), protocol, ports(1, 2) + bytes(16 + size))
    return ethernet(mac_of(target), mac_of(name), 0x86DD, packet)


def arriving(inner: bytes, vsid: int = 5001, source: str = "", to: str = "") -> bytes:
    """What host 2 sends to host 1."""
    return encapsulated(inner, vsid, source or pa6(2), to or pa6(1), nic_mac(1), nic_mac(2))


@pytest.mark.parametrize("make", [_v4, _v6])
def test_encapsulated_as_scapy_reads_it(switch: MemorySwitch, make: type[object]) -> None:
    for size in (0, 40, 1000):
        inner = make("blue1", "blue2", size)  # type: ignore[call-arg]
        assert isinstance(inner, bytes)
        for _ in range(2):
            ((header, sent),) = switch.from_vm("blue1", inner).wire
            assert header == PLAIN
            read = Ether(sent)
            assert (read.dst, read.src) == (nic_mac(2).hex(":"), nic_mac(1).hex(":"))
            outer = read[IPv6]
            assert (outer.src, outer.dst) == ("2001:db8:0:5001::1", "2001:db8:0:5001::2")
            assert (outer.nh, outer.hlim, outer.fl, outer.plen) == (47, 64, 0, 8 + len(inner))
            assert read[GRE].key >> 8 == 5001
            assert bytes(read[GRE].payload) == inner == sent[62:]
    assert switch.cached() == 1


@pytest.mark.parametrize("protocol", [UDP, ICMP])
@pytest.mark.parametrize("make", [_v4, _v6])
@pytest.mark.parametrize("family", [4, 6])
def test_all_four_mixes_there_and_back(family: int, make: type[object], protocol: int) -> None:
    inner = make("blue1", "blue2", 400, protocol)  # type: ignore[call-arg]
    assert isinstance(inner, bytes)
    near, far = (over_ipv6(1), over_ipv6(2)) if family == 6 else (MemorySwitch(1), MemorySwitch(2))
    with near, far:
        for _ in range(2):
            ((header, sent),) = near.from_vm("blue1", inner, vnet(34, 6)).wire
            assert len(sent) - len(inner) == (62 if family == 6 else 42)
            assert far.from_wire(sent, header).ports == {"blue2": [(vnet(34, 6), inner)]}


def test_offsets_move_with_62_bytes(switch: MemorySwitch) -> None:
    frame = _v4("blue1", "blue2", 5000)
    for _ in range(2):
        ((header, sent),) = switch.from_vm("blue1", frame, SUPER).wire
        assert header == vnet(96, 16, gso_type=1, gso_size=1398, header=116)
        assert nvgre.parse(sent).length == 62 + len(frame)
    back = _v4("blue2", "blue1", 5000)
    for _ in range(2):
        assert switch.from_wire(arriving(back), header).ports == {"blue1": [(SUPER, back)]}


@pytest.mark.parametrize("start", [0, 34, 61])
def test_a_checksum_in_the_outer_headers_is_malformed(switch: MemorySwitch, start: int) -> None:
    frame = arriving(_v4("blue2", "blue1"))
    for _ in range(2):
        assert switch.from_wire(frame, vnet(start, 6)).dropped(Drop.MALFORMED)
    assert switch.from_wire(frame, vnet(62, 6)).ports


@pytest.mark.parametrize("header", [vnet(34, 16, header=0xFFFF), vnet(0xFFF0, 16, header=54)])
def test_headers_that_pass_16_bits_are_refused(switch: MemorySwitch, header: bytes) -> None:
    for _ in range(2):
        assert switch.from_vm("blue1", _v4("blue1", "blue2"), header).dropped(Drop.TX_OVERSIZE)
    assert switch.from_vm("blue1", _v4("blue1", "blue2", 5000), SUPER).wire


# IPv6's payload length holds 65535 bytes, of which GRE takes 8
@pytest.mark.parametrize(("length", "fits"), [(65527, True), (65528, False)])
def test_what_exceeds_an_ipv6_payload(switch: MemorySwitch, length: int, fits: bool) -> None:
    frame = _v6("blue1", "blue2", 0)
    frame += bytes(length - len(frame))
    seen = switch.from_vm("blue1", frame, vnet(54, 16, gso_type=4, gso_size=1378, header=74))
    assert bool(seen.wire) is fits
    assert fits or seen.dropped(Drop.TX_OVERSIZE)


def test_broadcast_to_hosts_of_both_families(switch: MemorySwitch) -> None:
    """Copies over IPv6 and IPv4 of one packet do not disturb each other."""
    mixed = policy6()
    there = tuple(
        msgspec.structs.replace(record, provider_address=pa(3, 5001)) if record.vm_name == "blue3" else record
        for record in mixed.lookup_records
    )
    addresses = (*mixed.provider_addresses, ProviderAddress(pa(1, 5001), 16, 5001))
    switch.apply(msgspec.structs.replace(mixed, lookup_records=there, provider_addresses=addresses))
    packet = ipv4(v4("blue1"), "255.255.255.255", UDP, ports(1, 2) + bytes(40))
    frame, header = ethernet(BROADCAST, mac_of("blue1"), 0x0800, packet), vnet(34, 6)
    for _ in range(2):
        seen = switch.from_vm("blue1", frame, header)
        assert seen.ports == {"blue4": [(header, frame)]}
        copies = {nvgre.parse(sent).destination_pa: (moved, sent) for moved, sent in seen.wire}
        assert copies.keys() == {ip(pa(3, 5001)), ip(pa6(2))}
        moved, sent = copies[ip(pa6(2))]
        assert (moved, sent[62:]) == (vnet(96, 6, header=62), frame)
        moved, sent = copies[ip(pa(3, 5001))]
        assert (moved, sent[42:]) == (vnet(76, 6, header=42), frame)


def test_waits_for_an_ipv6_neighbor(switch: MemorySwitch) -> None:
    del switch.state.neighbors[ip(pa6(2))]
    frame = _v4("blue1", "blue2")
    assert not switch.from_vm("blue1", frame).wire
    assert switch.unresolved == [ip(pa6(2))]
    ((_, sent),) = switch.neighbor(pa6(2), nic_mac(2)).wire
    assert sent[62:] == frame


# ---- received -----------------------------------------------------------------------------


def test_received_frames_are_cached(switch: MemorySwitch) -> None:
    inner = _v4("blue2", "blue1")
    first = switch.from_wire(arriving(inner))
    assert first.ports == {"blue1": [(PLAIN, inner)]}
    assert switch.cached() == 1
    assert switch.from_wire(arriving(inner)) == first
    assert switch.from_wire(arriving(inner + bytes(9))).frame == inner + bytes(9)
    assert switch.cached() == 1
    padded = switch.from_wire(arriving(inner) + bytes(5))
    assert padded.ports == first.ports
    assert switch.nic.counters()["rx_bytes"] == 4 * len(arriving(inner)) + 9 + 5


def test_a_frame_cut_short_is_not_completed_from_the_buffer(switch: MemorySwitch) -> None:
    frame = arriving(_v4("blue2", "blue1"))
    assert switch.from_wire(frame).ports
    for size in range(14):
        assert switch.from_wire(arriving(_v4("blue2", "blue1")[:size])).dropped(Drop.MALFORMED)


def test_the_cache_is_used(switch: MemorySwitch, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = _v4("blue2", "blue1")
    switch.from_wire(arriving(frame))
    monkeypatch.setattr(Datapath, "_first_from_wire", None)  # calling it is a TypeError
    assert switch.from_wire(arriving(frame)).frame == frame


def test_a_vm_is_told_20_bytes_less(switch: MemorySwitch) -> None:
    for _ in range(2):
        seen = switch.from_vm("blue1", _v4("blue1", "blue2", 1439 - 40))
        assert seen.drops == {("blue1", Drop.OVERSIZE): 1}
        ((_, answer),) = seen.ports["blue1"]
        assert Ether(answer)[ICMP_MESSAGE].nexthopmtu == 1438
    assert switch.from_vm("blue1", _v4("blue1", "blue2", 1438 - 40)).wire


def test_no_cached_flow_answers_for_another_packet(switch: MemorySwitch) -> None:
    base = arriving(_v4("blue2", "blue1"))
    with over_ipv6(cached=False) as slow:
        for position in range(76):
            for flip in (0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFF):
                switch.from_wire(base)
                assert switch.cached()
                frame = base[:position] + bytes([base[position] ^ flip]) + base[position + 1 :]
                assert switch.from_wire(frame) == slow.from_wire(frame), (position, flip)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (arriving(_v4("blue2", "blue1"))[:75], Drop.MALFORMED),
        (arriving(_v4("blue2", "blue1"), to=pa6(3)), Drop.PA_NOT_LOCAL),
        (arriving(_v4("blue2", "blue1"), source=pa6(9)), Drop.POLICY_MISMATCH),
        (arriving(_v4("blue2", "blue1"), vsid=7777), Drop.POLICY_MISMATCH),
        (arriving(_v4("blue2", "blue1")[:12] + b"\x81\0\0\5" + bytes(50)), Drop.INNER_TAGGED),
    ],
    ids=["short", "other PA", "unknown PA", "unknown VSID", "tagged"],
)
def test_refused_by_name(switch: MemorySwitch, frame: bytes, reason: Drop) -> None:
    for _ in range(2):
        assert switch.from_wire(frame).dropped(reason)


@pytest.mark.parametrize("header", [0, 43, 44, 51, 60], ids=["hop", "routing", "fragment", "AH", "options"])
def test_extension_headers_are_malformed(switch: MemorySwitch, header: int) -> None:
    frame = bytearray(arriving(_v4("blue2", "blue1")))
    frame[54:54] = bytes([47, 0, 0, 0, 0, 0, 0, 0])
    frame[18:20] = (len(frame) - 54).to_bytes(2, "big")
    frame[20] = header
    assert switch.from_wire(bytes(frame)).dropped(Drop.MALFORMED)


_inner = st.builds(lambda frame, to: to + frame[6:], tenant_frames("blue2"), st.just(mac_of("blue1")))
_tunnelled = st.builds(
    arriving, _inner, st.sampled_from([5001, 5002, 7777]), st.sampled_from([pa6(2), pa6(3), pa6(9)])
)


@repeatable
@given(frame=_tunnelled | broken(_tunnelled), vnet=vnet_headers(), inspects=st.booleans())
def test_hostile_bytes(frame: bytes, vnet: bytes, inspects: bool) -> None:
    with over_ipv6() as fast, over_ipv6(cached=False) as slow:
        fast.datapath.inspects = inspects
        for _ in range(2):
            seen: Seen = fast.from_wire(frame, vnet)
            assert seen.ports or seen.drops
            assert not seen.wire
            assert seen == slow.from_wire(frame, vnet)


@repeatable
@given(frame=tenant_frames("blue1") | broken(tenant_frames("blue1")), vnet=vnet_headers())
def test_hostile_bytes_of_a_vm(frame: bytes, vnet: bytes) -> None:
    with over_ipv6() as fast, over_ipv6(cached=False) as slow:
        for _ in range(2):
            seen = fast.from_vm("blue1", frame, vnet)
            assert seen.wire or seen.ports or seen.drops
            assert seen == slow.from_vm("blue1", frame, vnet)
