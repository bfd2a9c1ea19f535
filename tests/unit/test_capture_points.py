"""Points of a lab and how they are chosen; the order of time; what is said of a packet."""

from __future__ import annotations

import struct

import pytest
from msgspec.structs import replace

from support.cli import FOUR_HOSTS
from support.frames import TCP, UDP, arp, ethernet, ipv4, ipv6, ports
from testbed.capture import pcapng, points
from testbed.capture.merge import WINDOW_NS, Merge
from testbed.capture.records import Record, super_packet
from testbed.capture.summary import describe, line
from testbed.errors import BadInput
from testbed.topology import plan_from_file

PLAN = plan_from_file(FOUR_HOSTS, {})
KNOWN = points.known(PLAN)
MAC_A, MAC_B = bytes.fromhex("00155d000001"), bytes.fromhex("00155d000002")


def names(*patterns: str) -> list[str]:
    return [point.name for point in points.choose("4host", KNOWN, patterns)]


def test_every_adapter_nic_cable_and_port_is_a_point() -> None:
    known = {point.name for point in KNOWN}
    assert {f"vm:{vm.name}" for vm in PLAN.vms} <= known
    assert {f"{host.name}:{nic.name}" for host in PLAN.hosts for nic in host.nics} <= known
    cables = PLAN.fabric.cables
    assert {f"cable:{cable.host}/{cable.nic}" for cable in cables} <= known
    assert {f"switch:{cable.switch}/{cable.port}" for cable in cables} <= known
    ends = [end for trunk in PLAN.fabric.trunks for end in trunk.ends]
    assert ends
    assert {f"switch:{end.switch}/{end.port}" for end in ends} <= known


def test_globs_name_several_and_an_interface_is_chosen_once() -> None:
    blue = [f"vm:{vm.name}" for vm in PLAN.vms if vm.name.startswith("blue")]
    assert names("vm:blue*") == blue
    assert names("cable:*", "switch:*")[: len(PLAN.fabric.cables)] == [
        f"cable:{cable.host}/{cable.nic}" for cable in PLAN.fabric.cables
    ]
    interfaces = [(point.node, point.interface) for point in points.choose("4host", KNOWN, ["*"])]
    assert len(set(interfaces)) == len(interfaces)


def test_a_switch_is_all_its_ports() -> None:
    switch = PLAN.fabric.switches[0].name
    found = points.choose("4host", KNOWN, [f"switch:{switch}"])
    ends = [end for trunk in PLAN.fabric.trunks for end in trunk.ends if end.switch == switch]
    cables = [cable for cable in PLAN.fabric.cables if cable.switch == switch]
    assert {point.interface for point in found} == {each.interface for each in [*ends, *cables]}


def test_adapters_of_a_vm_that_has_several() -> None:
    vm = PLAN.vms[0]
    second = replace(vm.vnics[0], interface="eth1", port=f"{vm.name}:eth1")
    changed = replace(PLAN, vms=(replace(vm, vnics=(*vm.vnics, second)), *PLAN.vms[1:]))
    for pattern in (f"vm:{vm.name}", f"vm:{vm.name}*"):
        found = points.choose("x", points.known(changed), [pattern])
        assert [point.name for point in found] == [f"vm:{vm.name}:eth0", f"vm:{vm.name}:eth1"]
    (found,) = points.choose("x", points.known(changed), [f"vm:{vm.name}:eth1"])
    assert (found.node, found.interface, found.port) == (vm.name, "eth1", f"{vm.name}:eth1")


def test_an_unknown_point_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"4host has no point 'vm:blu': one of vm:.*host1:nic1.*cable:"):
        names("vm:blu")


# ---- order --------------------------------------------------------------------------------------


def record(time: int, data: bytes = b"") -> Record:
    return Record(time, 0, data, len(data), 0)


def test_nothing_goes_on_that_something_older_may_precede() -> None:
    merge = Merge()
    for time in (30, 10, 20):
        merge.add(record(time))
    assert [each.time for each in merge.ready(WINDOW_NS + 9)] == []
    assert [each.time for each in merge.ready(WINDOW_NS + 20)] == [10, 20]
    merge.add(record(25))
    assert [each.time for each in merge.rest()] == [25, 30]
    assert (merge.disordered, len(merge)) == (0, 0)


def test_packets_of_the_same_time_keep_their_order() -> None:
    merge = Merge()
    for number in range(5):
        merge.add(record(1, bytes([number])))
    assert [each.data[0] for each in merge.rest()] == [0, 1, 2, 3, 4]


def test_memory_is_finite_and_what_is_out_of_order_is_counted() -> None:
    merge = Merge(maximum=1000)
    merge.add(record(50, bytes(900)))
    assert [each.time for each in merge.ready(0)] == [50]
    merge.add(record(40))
    assert [each.time for each in merge.rest()] == [40]
    assert merge.disordered == 1


# ---- super-packets ------------------------------------------------------------------------------


def vnet(kind: int, size: int, start: int, flags: int = 1) -> bytes:
    return struct.pack("=BBHHHH", flags, kind, 0, size, start, 16)


@pytest.mark.parametrize(("payload", "segments"), [(1400, 1), (1401, 2), (14000, 10)])
def test_a_super_packet_is_told_with_its_segments(payload: int, segments: int) -> None:
    tcp = ports(1, 2) + bytes(8) + b"\x80" + bytes(19)  # 32 bytes
    frame = ethernet(MAC_B, MAC_A, 0x0800, ipv4("10.0.0.5", "10.0.0.6", TCP, tcp + bytes(payload)))
    for kind in (1, 4, 0x81):
        told = super_packet(vnet(kind, 1400, 34), frame, len(frame))
        assert told == f"super-packet: {segments} segments of 1400 bytes"
    # of what is not kept whole the length is known all the same
    assert super_packet(vnet(1, 1400, 34), frame[:60], len(frame)).startswith(f"super-packet: {segments} ")


def test_of_a_super_packet_without_its_headers_only_the_size_is_known() -> None:
    assert super_packet(vnet(1, 1400, 34), bytes(40), 9000) == "super-packet: segments of 1400 bytes"
    assert super_packet(vnet(1, 1400, 0, flags=0), bytes(90), 9000) == "super-packet: segments of 1400 bytes"
    assert (
        super_packet(vnet(5, 1000, 34), bytes(90), 34 + 8 + 2500) == "super-packet: 3 segments of 1000 bytes"
    )
    assert super_packet(vnet(0, 0, 34), bytes(90), 90) == ""


# ---- lines --------------------------------------------------------------------------------------


def tunnel(inner: bytes) -> bytes:
    key = b"\x20\x00\x65\x58" + (5001 << 8 | 9).to_bytes(4)
    return ethernet(MAC_B, MAC_A, 0x0800, ipv4("192.168.7.1", "192.168.7.2", 47, key + inner))


def test_what_a_line_says() -> None:
    inner = ethernet(MAC_B, MAC_A, 0x86DD, ipv6("fd00::5", "fd00::6", UDP, ports(5, 53) + bytes(4)))
    frame = tunnel(inner)
    told = line(Record(1_700_000_000_123_456_789, 0, frame, 900, pcapng.OUTBOUND, ("one",)), "host1:nic1")
    assert told.endswith(
        ".123456 host1:nic1 out VSID 5001 PA 192.168.7.1 > 192.168.7.2: "
        "fd00::5 > fd00::6 UDP 5 > 53, 900 bytes [one]"
    )
    assert describe(arp(1, (MAC_A, "10.0.0.5"), (bytes(6), "10.0.0.6"), b"\xff" * 6)) == (
        "ARP request 10.0.0.5 > 10.0.0.6"
    )
    assert describe(MAC_B + MAC_A + b"\x88\xcc" + bytes(50)) == (
        "00:15:5d:00:00:01 > 00:15:5d:00:00:02 type 0x88cc"
    )


def test_a_line_can_be_made_of_any_part_of_a_frame() -> None:
    inner = ethernet(MAC_B, MAC_A, 0x0800, ipv4("10.0.0.5", "10.0.0.6", TCP, ports(5, 53) + bytes(16)))
    for frame in (inner, tunnel(inner), tunnel(arp(1, (MAC_A, "10.0.0.5"), (MAC_B, "10.0.0.6"), MAC_B))):
        for end in range(len(frame) + 1):
            assert describe(frame[:end])
