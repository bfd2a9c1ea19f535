"""Events in a capture: in their place among packets, none missed at the end, readable by tshark."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.waiting import until
from testbed.capture import pcapng
from testbed.capture.events import EVENTS, EventReader, Happened, pdu
from testbed.capture.output import LinesOutput, PcapngOutput
from testbed.capture.points import Point
from testbed.capture.records import Record
from testbed.capture.session import Interrupt, Limits, Session
from testbed.capture.source import Reader

POINT = Point("host1:nic1", "host1", "nic1", "")
FRAME = bytes.fromhex("ffffffffffff020000000001") + b"\x88\xb5" + bytes(46)
DOWN = "host1 link nic1 down"


class Looks:
    """What looks bring: events as they are put here."""

    def __init__(self) -> None:
        self.news: list[Happened] = []
        self.count = 0
        self.until: int | None = None  # what is told is no longer all since then
        self.closed = threading.Event()
        self.fails = False

    def __call__(self) -> tuple[list[Happened], int]:
        if self.fails:
            raise RuntimeError("on purpose")
        self.count += 1
        until = self.until or time.time_ns()
        found, self.news = self.news, []
        return found, until

    def close(self) -> None:
        self.closed.set()


class Packets(Reader):
    """A point at which a packet passes whenever somebody says so."""

    def __init__(self) -> None:
        super().__init__(0, POINT.name)
        self.socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.setblocking(False)

    def passes(self) -> None:
        self._theirs.send(time.time_ns().to_bytes(8))

    def read(self, limit: int) -> Iterator[Record]:
        before = time.time_ns()
        try:
            stamp = self.socket.recv(8)
        except BlockingIOError:
            self.read_until = before
            return
        yield Record(int.from_bytes(stamp), 0, FRAME, len(FRAME), pcapng.INBOUND)

    def count(self) -> None:
        pass

    def close(self) -> None:
        super().close()
        self._theirs.close()


class Kept:
    def __init__(self) -> None:
        self.records: list[Record] = []

    def packet(self, record: Record) -> None:
        self.records.append(record)

    def flush(self) -> None:
        pass

    def finish(self, sources: object) -> None:
        pass


def test_events_have_their_place_among_packets_and_are_not_counted_as_such() -> None:
    looks, packets, kept = Looks(), Packets(), Kept()
    events = EventReader(1, looks, 0.02)
    session = Session([packets, events], {}, kept)

    def happen() -> None:
        for number in range(5):
            looks.until = time.time_ns()
            packets.passes()
            moment = time.time_ns()
            packets.passes()
            time.sleep(0.15)  # longer than packets wait for each other: it is told as late as that
            looks.news.append(Happened(moment, f"host1/{number}", DOWN))
            looks.until = None

    happening = threading.Thread(target=happen)
    happening.start()
    with Interrupt() as interrupt:
        session.run(Limits(seconds=20.0, packets=10), interrupt)
    happening.join()
    assert [record.point for record in kept.records] == [0, 1, 0] * 5
    assert (session.packets, session.events, session.merge.disordered) == (10, 5, 0)
    packets.close()
    events.close()
    assert looks.closed.wait(5)


def test_what_has_happened_by_the_end_is_in_it() -> None:
    looks, packets, kept = Looks(), Packets(), Kept()
    events = EventReader(1, looks, 3600.0)  # no look but the first and the last
    until(lambda: looks.count == 1, "no first look")
    looks.news.append(Happened(time.time_ns(), "host1/12", DOWN))
    with Interrupt() as interrupt:
        session = Session([packets, events], {}, kept)
        session.run(Limits(seconds=0.05), interrupt)
    assert [record.comments for record in kept.records] == [(f"event host1/12: {DOWN}",)]
    assert (session.packets, session.events, events.received, events.ended) == (0, 1, 1, "")
    packets.close()
    events.close()


def test_a_capture_does_not_go_on_for_events_alone() -> None:
    looks, packets = Looks(), Packets()
    events = EventReader(1, looks, 0.02)
    reader, writer = os.pipe()
    os.close(writer)  # the node has ended
    with Interrupt() as interrupt:
        began = time.monotonic()
        Session([packets, events], {reader: [packets]}, Kept()).run(Limits(seconds=20.0), interrupt)
    assert time.monotonic() - began < 10
    os.close(reader)
    packets.close()
    events.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_time_line_that_breaks_is_told_and_the_capture_goes_on() -> None:
    looks, packets, kept = Looks(), Packets(), Kept()
    looks.fails = True
    events = EventReader(1, looks, 0.02)
    packets.passes()
    with Interrupt() as interrupt:
        Session([packets, events], {}, kept).run(Limits(seconds=20.0, packets=1), interrupt)
    assert events.ended
    assert [record.point for record in kept.records] == [0]
    packets.close()
    events.close()


def test_a_pdu_is_as_wireshark_wants_it() -> None:
    assert pdu("syslog", b"x") == bytes.fromhex("000c0008") + b"syslog\0\0" + bytes.fromhex("00000000") + b"x"


def test_lines_for_people() -> None:
    lines: list[str] = []
    output = LinesOutput([POINT, EVENTS], lines.append)
    output.packet(Record(0, 1, b"", 0, 0, (f"event host1/12: {DOWN}",)))
    assert lines[0].endswith(f"events     event host1/12: {DOWN}")


@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark")
def test_tshark_shows_the_text(tmp_path: Path) -> None:
    file = tmp_path / "x.pcapng"
    looks = Looks()
    stamp = 1_700_000_000_000_000_000
    looks.news.append(Happened(stamp, "host1/12", DOWN))
    events = EventReader(1, looks, 3600.0)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    output = PcapngOutput(descriptor, [POINT, EVENTS], 60, lambda: False)
    output.packet(Record(stamp - 1, 0, FRAME, len(FRAME), pcapng.INBOUND))
    until(lambda: looks.count == 1, "no look")
    events.settle()
    for record in events.read(64):
        output.packet(record)
    events.close()
    output.finish([events])
    os.close(descriptor)
    fields = ("frame.interface_name", "frame.time_epoch", "_ws.col.Info", "frame.comment")
    words = ["tshark", "-n", "-r", str(file), "-T", "fields"]
    for each in fields:
        words += ["-e", each]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    _, event = [text.split("\t") for text in done.stdout.splitlines()]
    assert event == [
        "events",
        "1700000000.000000000",
        f"LOCAL0.INFO: {DOWN}",
        f"event host1/12: {DOWN}",
    ]
