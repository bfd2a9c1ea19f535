"""Captures at interfaces of namespaces: both directions, the kernel's filter, losses, ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator, Sequence

import pytest
from pyroute2 import IPRoute

from support.frames import UDP, encapsulated, ethernet, ip, ipv4, ports
from testbed.capture import bpf, pcapng, source
from testbed.capture.filters import Criteria, at_wire
from testbed.capture.output import PcapngOutput
from testbed.capture.points import Point
from testbed.capture.records import Record
from testbed.capture.session import Interrupt, Limits, Session
from testbed.capture.source import Reader, Source
from testbed.errors import LabError
from testbed.namespaces import in_netns, new_netns

pytestmark = pytest.mark.netns
MAC_A, MAC_B = bytes.fromhex("00155d000001"), bytes.fromhex("00155d000002")
KIND = 0x88B5  # for experiments (IEEE 802)
POINTS = [Point("one:nic1", "one", "nic1", ""), Point("two:p0", "two", "p0", "")]
SECONDS = 20.0


class Kept:
    """An output that keeps what it gets."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.counts: list[tuple[int, int]] = []

    def packet(self, record: Record) -> None:
        self.records.append(record)

    def flush(self) -> None:
        """Nothing to do."""

    def finish(self, sources: Sequence[Reader]) -> None:
        self.counts = [(each.received, each.lost) for each in sources]


class Cable:
    """nic1 in one namespace, p0 in another."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.ends = (new_netns(), new_netns())
        for end in self.ends:
            stack.callback(os.close, end)
            with in_netns(end):
                for name in ("all", "default"):
                    path = f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6"
                    with open(path, "w") as file:  # noqa: PTH123
                        file.write("1")
        with in_netns(self.ends[0]), IPRoute() as route:
            peer = {"ifname": "p0", "net_ns_fd": self.ends[1], "address": MAC_B.hex(":")}
            route.link("add", ifname="nic1", kind="veth", address=MAC_A.hex(":"), peer=peer)
        for end, name in zip(self.ends, ("nic1", "p0"), strict=True):
            with in_netns(end), IPRoute() as route:
                route.link("set", index=route.link_lookup(ifname=name)[0], state="up")
        self.sender = self._socket(0, "nic1")
        stack.callback(self.sender.close)

    def _socket(self, end: int, name: str) -> socket.socket:
        with in_netns(self.ends[end]):
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            made.bind((name, 0))
            return made

    def set_state(self, state: str) -> None:
        with in_netns(self.ends[0]), IPRoute() as route:
            route.link("set", index=route.link_lookup(ifname="nic1")[0], state=state)

    def remove(self) -> None:
        with in_netns(self.ends[0]), IPRoute() as route:
            route.link("del", index=route.link_lookup(ifname="nic1")[0])


@pytest.fixture
def cable() -> Iterator[Cable]:
    with contextlib.ExitStack() as stack:
        yield Cable(stack)


@contextlib.contextmanager
def sources(cable: Cable, program: bpf.Program = at_wire(Criteria())) -> Iterator[list[Source]]:  # noqa: B008
    with contextlib.ExitStack() as stack:
        made = []
        for number, (point, end) in enumerate(zip(POINTS, cable.ends, strict=True)):
            made.append(Source(number, point.name, end, point.interface, program))
            stack.callback(made[-1].close)
        yield made


def numbered(number: int, destination: bytes = MAC_B) -> bytes:
    return ethernet(destination, MAC_A, KIND, number.to_bytes(2) + bytes(60))


def ran(made: list[Source], **limits: float) -> Kept:
    output = Kept()
    with Interrupt() as interrupt:
        session = Session(made, {}, output)
        session.run(
            Limits(limits.get("seconds"), int(limits["packets"]) if "packets" in limits else None), interrupt
        )
    assert session.packets == len(output.records)
    return output


def test_each_point_sees_each_packet_once_in_order_of_time(cable: Cable) -> None:
    with sources(cable) as made:
        for number in range(50):
            cable.sender.send(numbered(number))
        output = ran(made, seconds=SECONDS, packets=100)
    times = [record.time for record in output.records]
    assert times == sorted(times)
    for point, flags in ((0, pcapng.OUTBOUND), (1, pcapng.INBOUND | pcapng.UNICAST)):
        mine = [record for record in output.records if record.point == point]
        assert [record.data for record in mine] == [numbered(number) for number in range(50)]
        assert {record.flags for record in mine} == {flags}
    # in time the wire comes first at its own end: every packet is seen at nic1 before it is at p0
    assert [record.point for record in output.records] == [0, 1] * 50
    assert output.counts == [(50, 0), (50, 0)]


def test_how_a_packet_was_received_is_told(cable: Cable) -> None:
    kinds = {MAC_B: pcapng.UNICAST, b"\xff" * 6: pcapng.BROADCAST}
    kinds |= {bytes.fromhex("01005e000001"): pcapng.MULTICAST, MAC_A: pcapng.PROMISCUOUS}
    with sources(cable) as made:
        for destination in kinds:
            cable.sender.send(numbered(0, destination))
        output = ran(made, seconds=SECONDS, packets=2 * len(kinds))
    seen = {record.data[:6]: record.flags for record in output.records if record.point == 1}
    assert seen == {destination: pcapng.INBOUND | kind for destination, kind in kinds.items()}


def test_the_kernel_lets_only_through_what_is_wanted(cable: Cable) -> None:
    inner = ethernet(MAC_B, MAC_A, 0x0800, ipv4("10.0.0.5", "10.0.0.6", UDP, ports(1, 2) + bytes(40)))
    frames = [encapsulated(inner, vsid, "192.168.7.1", "192.168.7.2", MAC_B) for vsid in (5001, 5002)]
    with sources(cable, at_wire(Criteria(5002, ip("10.0.0.6")), 60)) as made:
        for frame in [*frames, inner]:
            cable.sender.send(frame)
        output = ran(made, seconds=0.2)
    assert [(each.point, each.data, each.length) for each in output.records] == [
        (point, frames[1][:60], len(frames[1])) for point in (0, 1)
    ]
    assert output.counts == [(1, 0), (1, 0)]


def test_a_vlan_tag_is_where_it_was(cable: Cable) -> None:
    frame = ethernet(MAC_B, MAC_A, 0x8100, struct.pack("!HH", 7, KIND) + bytes(60))
    with sources(cable) as made:
        cable.sender.send(frame)
        output = ran(made, seconds=0.2)
    assert [(each.data, each.length) for each in output.records] == [(frame, len(frame))] * 2


def test_it_ends_after_so_many_packets(cable: Cable) -> None:
    with sources(cable) as made:
        for number in range(50):
            cable.sender.send(numbered(number))
        assert len(ran(made, packets=7).records) == 7


def test_what_is_lost_is_told(cable: Cable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "RECEIVE_BYTES", 1 << 14)
    with sources(cable) as made:
        for number in range(500):
            cable.sender.send(numbered(number))
        output = ran(made, seconds=0.2)
    for point, (received, lost) in enumerate(output.counts):
        assert lost > 0
        assert received == 500
        assert received - lost == len([each for each in output.records if each.point == point])


def test_an_interface_that_goes_ends_its_point_and_at_last_the_capture(cable: Cable) -> None:
    with sources(cable) as made:
        cable.sender.send(numbered(1))
        timer = threading.Timer(0.3, cable.remove)
        timer.start()
        output = ran(made, seconds=SECONDS)
        timer.join()
    assert len(output.records) == 2
    assert all(each.ended for each in made)


@pytest.mark.parametrize("removed", [False, True])
def test_an_interface_that_is_down_comes_again_unless_it_is_removed(cable: Cable, removed: bool) -> None:
    def disturb() -> None:
        cable.set_state("down")
        if removed:
            cable.remove()
            return
        cable.set_state("up")
        with cable._socket(0, "nic1") as sender:
            sender.send(numbered(2))

    with sources(cable) as made:
        cable.sender.send(numbered(1))
        timer = threading.Timer(0.3, disturb)
        timer.start()
        output = ran(made, seconds=SECONDS, packets=4)
        timer.join()
    assert len(output.records) == (2 if removed else 4)
    assert all(bool(each.ended) is removed for each in made)


def test_a_node_that_ends_takes_its_points_along(cable: Cable) -> None:
    reader, writer = os.pipe()
    with sources(cable) as made, Interrupt() as interrupt:
        session = Session(made, {reader: made}, Kept())
        timer = threading.Timer(0.2, os.close, [writer])
        timer.start()
        session.run(Limits(SECONDS), interrupt)
        timer.join()
        os.close(reader)
        assert {each.ended for each in made} == {"its node has ended"}
        assert {each.socket.fileno() for each in made} == {-1}


def test_a_signal_ends_it_in_good_order(cable: Cable) -> None:
    before = signal.getsignal(signal.SIGINT)
    output = Kept()
    with sources(cable) as made, Interrupt() as interrupt:
        cable.sender.send(numbered(1))
        timer = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT])
        timer.start()
        Session(made, {}, output).run(Limits(SECONDS), interrupt)
        timer.join()
    assert interrupt.asked
    assert len(output.records) == 2
    assert output.counts == [(1, 0), (1, 0)]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_reader_that_has_gone_or_sleeps_ends_it(cable: Cable) -> None:
    for sleeps in (False, True):
        reader, writer = os.pipe()
        with sources(cable) as made, Interrupt() as interrupt:
            output = PcapngOutput(writer, POINTS, 0, lambda: True)
            for number in range(2000 if sleeps else 10):
                cable.sender.send(numbered(number) + bytes(1200))
            if not sleeps:
                os.close(reader)
            Session(made, {}, output).run(Limits(0.2), interrupt)
        os.close(writer)
        if sleeps:
            os.close(reader)


def test_an_interface_that_is_not_there_is_named(cable: Cable) -> None:
    with pytest.raises(LabError, match="one:nic9: cannot listen at nic9: No such device"):
        Source(0, "one:nic9", cable.ends[0], "nic9", at_wire(Criteria()))
