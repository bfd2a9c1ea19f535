"""Taps: what a capture sees inside of a switch is what happens there, and changes nothing of it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.extensions import from_blue2, udp
from support.frames import TCP, UDP, arp, encapsulated, ethernet, ip, ipv4, ports, vnet
from support.random_frames import tenant_frames, vnet_headers, wire_frames
from support.switch import MemorySwitch, gateway_mac, mac_of, nic_mac, pa, v4
from testbed.capture import pcapng
from testbed.capture.filters import Criteria, at_wire
from testbed.capture.inside import SwitchSource
from testbed.capture.records import Record
from testbed.errors import BadInput
from testbed.host.taps import Taps
from testbed.switch.packet import Packet, Tunnel
from testbed.switch.pipeline import Pipeline
from testbed.switch.tap import POINTS, TappedPipeline
from testbed.topology.schema import WnvMode

IN, OUT = pcapng.INBOUND, pcapng.OUTBOUND
FROM_BLUE1 = "VSID 5001, from port blue1"
BLUE2_PA = pa(2, 5001)


class Tapped(NamedTuple):
    """A switch, its taps, and a reader at each point."""

    switch: MemorySwitch
    taps: Taps
    readers: dict[str, SwitchSource]
    watched: dict[int, object]

    def seen(self, point: str) -> list[Record]:
        """What has come to a reader since the last time."""
        return list(self.readers[point].read(10_000))

    def told(self, point: str) -> list[tuple[int, tuple[str, ...]]]:
        """Directions and comments of that."""
        return [(each.flags, each.comments) for each in self.seen(point)]


@contextlib.contextmanager
def tapped(
    wanted: Criteria = Criteria(),  # noqa: B008 - it is frozen
    snaplen: int = 0,
    version: int = 4,
    mode: WnvMode = "in-switch",
) -> Iterator[Tapped]:
    with MemorySwitch(version=version, mode=mode) as switch, contextlib.ExitStack() as stack:
        watched: dict[int, object] = {}
        taps = Taps(switch.state, switch.datapath, watched.__setitem__, watched.pop)
        readers = {}
        for number, point in enumerate(POINTS):
            program = at_wire(Criteria(ca=wanted.ca, pa=wanted.pa))
            reader = SwitchSource(number, point, program, lambda name=point: taps.counts(name))  # type: ignore[misc]
            stack.callback(reader.close)
            readers[point] = reader
            fields = {"id": point, "point": point, "vsid": wanted.vsid, "snaplen": snaplen}
            taps.open(fields, reader._theirs.detach())
        stack.callback(lambda: [end() for end in [*watched.values()]])  # type: ignore[operator]
        yield Tapped(switch, taps, readers, watched)


def test_a_packet_to_another_host_is_seen_at_every_point() -> None:
    frame = udp("blue1", "blue2")
    with tapped() as it:
        sent = it.switch.from_vm("blue1", frame)
        ((_, outside),) = sent.wire
        (ingress,) = it.seen("ingress")
        assert (ingress.data, ingress.length, ingress.flags) == (frame, len(frame), IN)
        assert ingress.comments == (FROM_BLUE1, f"to PA {BLUE2_PA}")
        (wnv,) = it.seen("wnv")
        assert (wnv.data, wnv.flags, wnv.comments) == (frame, OUT, (FROM_BLUE1, f"to PA {BLUE2_PA}"))
        for point in ("team", "egress"):
            (each,) = it.seen(point)
            assert (each.data, each.flags, each.comments) == (outside, OUT, (FROM_BLUE1, "through nic1"))
        assert ingress.time <= wnv.time <= each.time


def test_a_packet_from_the_wire_is_seen_without_its_outer_header_behind_the_filter() -> None:
    frame = from_blue2()
    origin = "VSID 5001, from NIC nic1"
    with tapped() as it:
        ((name, ((_, inside),)),) = it.switch.from_wire(frame).ports.items()
        assert name == "blue1"
        assert [(each.data, each.comments) for each in it.seen("ingress")] == [(frame, (origin, "to blue1"))]
        assert [(each.data, each.flags) for each in it.seen("team")] == [(frame, IN)]
        assert [(each.data, each.comments) for each in it.seen("wnv")] == [(inside, (origin, "to blue1"))]
        assert [(each.data, each.flags) for each in it.seen("egress")] == [(inside, OUT)]


def test_drops_are_told_with_stage_and_reason() -> None:
    with tapped() as it:
        it.switch.from_vm(
            "blue1",
            ethernet(
                gateway_mac(5001),
                mac_of("blue1"),
                0x0800,
                ipv4(v4("blue1"), "10.0.0.99", UDP, ports(1, 2) + bytes(8)),
            ),
        )
        assert it.told("ingress") == [(IN, (FROM_BLUE1, "dropped by wnv: no-lookup-record"))]
        assert it.told("wnv") == [(OUT, (FROM_BLUE1, "dropped: no-lookup-record"))]
        assert it.told("egress") == it.told("team") == []
        it.switch.from_wire(encapsulated(udp("blue2", "blue1"), 4999, pa(2, 5001), pa(1, 5001), nic_mac(1)))
        ((_, comments),) = it.told("ingress")
        assert comments[1] == "dropped by wnv: policy-mismatch"
        ((_, comments),) = it.told("wnv")
        assert comments[1] == "dropped: policy-mismatch"


def test_what_is_lost_at_the_nic_is_told() -> None:
    with tapped() as it:
        it.switch.nic.error = OSError(105, "no buffer space")
        it.switch.from_vm("blue1", udp("blue1", "blue2"))
        for point in ("team", "egress"):
            assert it.told(point) == [(OUT, (FROM_BLUE1, "through nic1", "dropped by nic: tx-refused"))]
        it.switch.lose_nics()
        it.switch.state.forget_flows()
        it.switch.from_vm("blue1", udp("blue1", "blue2"))
        assert it.told("team") == [(OUT, (FROM_BLUE1, "dropped: no-uplink"))]


def test_answers_and_waiting_are_told() -> None:
    with tapped() as it:
        it.switch.from_vm(
            "blue1", arp(1, (mac_of("blue1"), v4("blue1")), (bytes(6), v4("blue2")), b"\xff" * 6)
        )
        assert it.told("wnv") == [(OUT, (FROM_BLUE1, "answered by the switch"))]
        assert it.told("ingress") == [(IN, (FROM_BLUE1, "answered by the switch"))]
        it.switch.state.neighbors.clear()
        it.switch.from_vm("blue1", udp("blue1", "blue2"))
        waits = f"waits for the MAC of PA {BLUE2_PA}"
        assert it.told("ingress") == [(IN, (FROM_BLUE1, waits))]
        it.told("egress")
        it.switch.neighbor(BLUE2_PA, nic_mac(2))
        assert it.told("ingress") == []  # it came once only
        assert it.told("egress") == [(OUT, (FROM_BLUE1, "through nic1"))]


def test_a_super_packet_is_one_on_both_sides() -> None:
    tcp = ports(1, 2) + bytes(8) + b"\x50" + bytes(7)
    frame = ethernet(
        mac_of("blue2"), mac_of("blue1"), 0x0800, ipv4(v4("blue1"), v4("blue2"), TCP, tcp + bytes(4000))
    )
    head = vnet(34, 16, gso_type=1, gso_size=1400, header=54)
    with tapped(snaplen=100) as it:
        it.switch.from_vm("blue1", frame, head)
        for point in POINTS:
            (each,) = it.seen(point)
            assert each.comments[-1] == "super-packet: 3 segments of 1400 bytes", point
            assert len(each.data) == 100
            assert each.length - len(frame) == (42 if point in ("team", "egress") else 0)


def test_a_super_packet_from_the_wire_is_one_behind_the_filter_too() -> None:
    tcp = ports(1, 2) + bytes(8) + b"\x50" + bytes(7)
    inner = ipv4(v4("blue2"), v4("blue1"), TCP, tcp + bytes(4000))
    frame = ethernet(mac_of("blue1"), mac_of("blue2"), 0x0800, inner)
    outside = encapsulated(frame, 5001, pa(2, 5001), pa(1, 5001), nic_mac(1))
    with tapped(snaplen=100) as it:
        assert it.switch.from_wire(outside, vnet(76, 16, gso_type=1, gso_size=1400, header=96)).ports
        for point in POINTS:
            (each,) = it.seen(point)
            assert each.comments[-1] == "super-packet: 3 segments of 1400 bytes", point
            assert each.length == len(outside if point in ("ingress", "team") else frame)


def test_the_team_decides_on_the_mac() -> None:
    other = bytes.fromhex("020000000077")
    with tapped() as it:
        pipeline = it.switch.datapath.pipeline
        assert isinstance(pipeline, TappedPipeline)
        packet = Packet(udp("blue1", "blue2"), it.switch.state.ports["blue1"], 5001)
        packet.tunnels = (Tunnel(ip(pa(1, 5001)), ip(BLUE2_PA), ip(BLUE2_PA), 5001, 7),)
        for mac, source in ((other, other), (b"", nic_mac(1))):
            pipeline.departure(packet, lambda _: None, it.switch.nic, mac)(0)
            (each,) = it.seen("team")
            assert each.data[:12] == nic_mac(2) + source


def test_a_tap_sees_flows_that_were_there_before() -> None:
    with tapped() as it:
        for end in [*it.watched.values()]:
            end()  # type: ignore[operator]
        it.switch.from_vm("blue1", udp("blue1", "blue2"))
        assert it.switch.cached() == 1
        reader = SwitchSource(0, "x", at_wire(Criteria()), dict)
        it.taps.open({"id": "x", "point": "wnv", "vsid": None, "snaplen": 0}, reader._theirs.detach())
        it.switch.from_vm("blue1", udp("blue1", "blue2"))
        assert len(list(reader.read(10))) == 1
        reader.close()


def test_only_what_is_wanted_takes_the_full_path() -> None:
    with tapped(Criteria(vsid=5002)) as it:
        for _ in range(3):
            it.switch.from_vm("blue1", udp("blue1", "blue2"))
            it.switch.from_wire(from_blue2())
        assert it.switch.cached() == 2
        it.switch.from_vm(
            "web1",
            ethernet(
                mac_of("web2"),
                mac_of("web1"),
                0x0800,
                ipv4(v4("web1"), v4("web2"), UDP, ports(1, 2) + bytes(8)),
            ),
        )
        assert it.switch.cached() == 2
        assert {point: len(it.seen(point)) for point in POINTS} == dict.fromkeys(POINTS, 1)


def test_the_team_knows_the_vsid_of_what_it_has_accepted() -> None:
    with tapped(Criteria(vsid=5001)) as it:
        it.switch.from_wire(from_blue2())
        assert {point: len(it.seen(point)) for point in POINTS} == dict.fromkeys(POINTS, 1)


def test_addresses_are_filtered_where_packets_are_read() -> None:
    with tapped(Criteria(ca=ip(v4("blue3")))) as it:
        for to in ("blue2", "blue3"):
            it.switch.from_vm("blue1", udp("blue1", to))
        assert {point: len(it.seen(point)) for point in POINTS} == dict.fromkeys(POINTS, 1)
        it.readers["wnv"].count()
        assert (it.readers["wnv"].received, it.readers["wnv"].lost) == (2, 0)


def test_without_a_tap_the_pipeline_is_the_switchs_own() -> None:
    with tapped() as it:
        assert type(it.switch.datapath.pipeline) is not Pipeline
        plain = it.taps.plain
        for end in [*it.watched.values()]:  # all readers go
            end()  # type: ignore[operator]
        assert it.switch.datapath.pipeline is plain
        for _ in range(2):
            it.switch.from_vm("blue1", udp("blue1", "blue2"))
        assert it.switch.cached() == 1


def calls(switch: MemorySwitch) -> int:
    """Calls of functions, Python's and C's, for some packets of known flows, both ways."""
    switch.from_vm("blue1", udp("blue1", "blue2"))
    switch.from_wire(from_blue2())
    counted = 0

    def count(_frame: object, event: str, _what: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        for _ in range(20):
            switch.from_vm("blue1", udp("blue1", "blue2"))
            switch.from_wire(from_blue2())
    finally:
        sys.setprofile(None)
    return counted


def test_before_and_after_a_capture_a_packet_costs_what_it_did() -> None:
    with MemorySwitch() as untouched, tapped() as it:
        meanwhile = calls(it.switch)
        for end in [*it.watched.values()]:
            end()  # type: ignore[operator]
        assert calls(it.switch) == calls(untouched) < meanwhile


def test_what_a_capture_does_not_want_costs_what_it_did() -> None:
    with MemorySwitch() as untouched, tapped(Criteria(vsid=5002)) as it:
        assert calls(it.switch) == calls(untouched)


def test_a_reader_that_does_not_read_costs_packets_of_the_capture_only() -> None:
    large = udp("blue1", "blue2")[:-20] + bytes(1300)
    large = ethernet(
        mac_of("blue2"),
        mac_of("blue1"),
        0x0800,
        ipv4(v4("blue1"), v4("blue2"), UDP, ports(1, 2) + bytes(1200)),
    )
    with tapped() as it:
        for _ in range(12_000):
            assert it.switch.from_vm("blue1", large).wire
        counts = it.taps.counts("ingress")
        assert counts["seen"] == 12_000
        assert counts["lost"] > 0
        assert len(list(it.readers["ingress"].read(20_000))) == counts["seen"] - counts["lost"]


def test_a_reader_that_has_gone_does_no_harm() -> None:
    with tapped() as it:
        for reader in it.readers.values():
            reader.socket.close()
        assert it.switch.from_vm("blue1", udp("blue1", "blue2")).wire


def test_a_point_that_does_not_exist_is_refused() -> None:
    with tapped() as it:
        reader = SwitchSource(0, "x", at_wire(Criteria()), dict)
        with pytest.raises(BadInput, match="no point 'exit' in a switch: one of ingress, egress, wnv, team"):
            it.taps.open({"id": "x", "point": "exit", "vsid": None, "snaplen": 0}, reader._theirs.detach())
        reader.close()


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from((4, 6)), st.sampled_from(("in-switch", "below-switch")))
def test_a_tapped_switch_does_the_same_and_egress_is_what_leaves(
    data: st.DataObject, version: int, mode: WnvMode
) -> None:
    with tapped(version=version, mode=mode) as it, MemorySwitch(version=version, mode=mode) as plain:
        for _ in range(4):
            head = data.draw(vnet_headers())
            if data.draw(st.booleans()):
                frame = data.draw(tenant_frames("blue1"))
                one, other = it.switch.from_vm("blue1", frame, head), plain.from_vm("blue1", frame, head)
            else:
                frame = data.draw(wire_frames(version))
                one, other = it.switch.from_wire(frame, head), plain.from_wire(frame, head)
            assert one == other
            seen = {
                each.data
                for each in it.seen("egress")
                if not any("dropped" in word for word in each.comments)
            }
            # what comes back to the sender are the switch's own answers, and no copies of the packet
            copies = [
                *one.wire,
                *(each for name, got in one.ports.items() if name != "blue1" for each in got),
            ]
            assert {frame for _, frame in copies} <= seen, one
