"""`testbed capture` on a running lab: the way of a packet over hosts, filters, live output, ends."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from scapy.utils import RawPcapNgReader

from support.cli import TWO_HOSTS, Cli
from support.labs import Lab
from support.waiting import until

pytestmark = pytest.mark.e2e
SECONDS = 30.0
TOKEN = bytes.fromhex("c0ffee")
WAY = ["vm:blue1", "host1:nic1", "cable:host1/nic1", "cable:host2/nic1", "host2:nic1", "vm:blue2"]


@pytest.fixture(scope="module")
def two(module_lab: Callable[..., Any]) -> Iterator[Lab]:
    """Two hosts, a VM on each."""
    with module_lab(TWO_HOSTS) as lab:
        yield lab


class Capturing:
    """A capture that has begun. said: by it, once it has ended."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.said = ""

    def end(self, number: int = signal.SIGINT) -> bytes:
        """End it by a signal; its output."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> bytes:
        """Its output, when it has ended."""
        out, said = self.process.communicate(timeout=SECONDS)
        self.said = said.decode()
        assert self.process.returncode == 0, self.said
        assert "Traceback" not in self.said, self.said
        return out or b""


@contextmanager
def capturing(lab: Lab, *words: object, **more: Any) -> Iterator[Capturing]:
    process = lab.cli.start("capture", lab.name, *words, **more)
    with lab.cli.ended(process):
        assert process.stderr
        assert (line := process.stderr.readline()).startswith(b"capturing at"), line
        yield Capturing(process)


def ping(lab: Lab, address: str = "10.0.0.6", count: int = 3) -> None:
    words = ["ping", "-c", count, "-i", 0.05, "-W", 2, "-p", TOKEN.hex(), address]
    lab.cli.ok("exec", lab.name, "blue1", "--", *words)


class Packet(NamedTuple):
    """As scapy has read it."""

    point: str
    time: int
    data: bytes
    length: int
    direction: int
    comments: list[str]


def read(file: Path) -> list[Packet]:
    with RawPcapNgReader(str(file)) as reader:
        return [
            Packet(
                told.ifname.decode(),
                (told.tshigh << 32) + told.tslow,
                data,
                told.wirelen,
                told.direction,
                [each.decode() for each in told.comments or []],
            )
            for data, told in reader
        ]


@pytest.mark.parametrize("address", ["10.0.0.6", "fd00::6"])
def test_a_packet_is_followed_over_all_points_in_order_of_time(
    two: Lab, tmp_path: Path, address: str
) -> None:
    file = tmp_path / "all.pcapng"
    with capturing(two, "vm:*", "*:nic1", "cable:*", "-w", file, "--ca", address) as capture:
        ping(two, address)
        capture.end()
    packets = read(file)
    assert all(one.time <= other.time for one, other in pairwise(packets))
    requests = [each for each in packets if TOKEN * 5 in each.data and _is_request(each.data)]
    assert [each.point for each in requests] == WAY * 3
    outer = [each for each in requests if b"\x20\x00\x65\x58" + (5001).to_bytes(3) in each.data]
    assert {each.point for each in outer} == set(WAY[1:5])
    assert {each.point: each.direction for each in requests} == dict(
        zip(WAY, (2, 2, 1, 2, 1, 1), strict=True)
    )
    assert "lost" not in capture.said


def _is_request(frame: bytes) -> bool:
    """Echo requests go to blue2: its address stands behind blue1's."""
    return any(
        bytes.fromhex(source + destination) in frame
        for source, destination in (
            ("0a000005", "0a000006"),
            ("fd00" + "00" * 13 + "05", "fd00" + "00" * 13 + "06"),
        )
    )


def test_filters_look_inside_and_know_adapters(two: Lab, tmp_path: Path) -> None:
    for words, wanted in (
        (("--vsid", 5001), set(WAY)),
        (("--vsid", 5001, "--bpf", "icmp"), set(WAY)),
        (("--ca", "10.0.0.6", "-s", 60), set(WAY)),
        (("--vsid", 5002), set()),
        (("--ca", "10.0.0.99"), set()),
        (("--bpf", "tcp port 9"), set()),
    ):
        file = tmp_path / "some.pcapng"
        with capturing(two, "vm:*", "*:nic1", "cable:*", "-w", file, *words) as capture:
            ping(two, count=1)
            capture.end()
        packets = read(file)
        assert {each.point for each in packets} == wanted, words
        if "-s" in words:
            assert {len(each.data) for each in packets} == {60}
            assert all(each.length > 60 for each in packets if each.point in WAY[1:5])


def test_provider_addresses(two: Lab, tmp_path: Path) -> None:
    inside = two.cli.inspect(two.name)
    (pa,) = (each["provider_addresses"][0] for each in inside["hosts"] if each["name"] == "host1")
    file = tmp_path / "pa.pcapng"
    with capturing(two, "vm:*", "*:nic1", "cable:*", "-w", file, "--pa", pa) as capture:
        ping(two)
        capture.end()
    assert {each.point for each in read(file)} == set(WAY[1:5])
    said = two.cli.refused(2, "capture", two.name, "vm:*", "--pa", pa, "--seconds", 1)
    assert "no provider addresses" in said


def test_super_packets_are_told(two: Lab, tmp_path: Path) -> None:
    file = tmp_path / "super.pcapng"
    with capturing(two, "vm:*", "*:nic1", "cable:*", "-w", file, "--vsid", 5001, "-s", 128) as capture:
        two.cli.ok("bench", two.name, "--seconds", 1, "--repeat", 1)
        capture.end()
    packets = read(file)
    large = [each for each in packets if each.comments]
    assert {each.point for each in large} >= {"vm:blue1", "vm:blue2", "host2:nic1"}
    for each in large:
        (comment,) = each.comments
        words = comment.split()
        assert words[0] == "super-packet:", comment
        headers = each.length - int(words[1]) * int(words[4])
        assert -int(words[4]) < headers < 200, (comment, each.length)
    assert all(each.length <= 1514 + 42 for each in packets if not each.comments)


def test_inside_the_switch_there_are_verdicts(two: Lab, tmp_path: Path) -> None:
    file = tmp_path / "inside.pcapng"
    with capturing(two, "host*:[!n]*", "-w", file, "--vsid", 5001, "--bpf", "icmp") as capture:
        ping(two, count=1)
        neighbor = ["ip", "neigh", "replace", "10.0.0.99", "lladdr", "00:15:5d:00:00:99", "dev", "eth0"]
        two.cli.ok("exec", two.name, "blue1", "--", *neighbor)
        lost = two.cli.run("exec", two.name, "blue1", "--", "ping", "-c", 1, "-W", 1, "10.0.0.99")
        assert lost.returncode == 1
        capture.end()
    packets = read(file)
    requests = [each for each in packets if TOKEN * 5 in each.data and _is_request(each.data)]
    assert [each.point for each in requests if each.point.startswith("host1")] == [
        "host1:ingress",
        "host1:wnv",
        "host1:team",
        "host1:egress",
    ]
    assert [each.point for each in requests if each.point.startswith("host2")] == [
        "host2:ingress",
        "host2:team",
        "host2:wnv",
        "host2:egress",
    ]
    told = {each.point: each.comments for each in requests}
    assert told["host1:ingress"][0] == "VSID 5001, from port blue1:eth0"
    assert told["host1:egress"][-1] == "through nic1"
    assert told["host2:ingress"] == ["VSID 5001, from NIC nic1", "to blue2:eth0"]
    dropped = [each for each in packets if any("dropped" in comment for comment in each.comments)]
    assert {each.comments[-1] for each in dropped if each.point == "host1:ingress"} == {
        "dropped by wnv: no-lookup-record"
    }
    assert "lost" not in capture.said


def test_lines_for_people(two: Lab) -> None:
    with capturing(two, "cable:host1/nic1", "--bpf", "icmp", "--count", 2, "--seconds", SECONDS) as capture:
        ping(two, count=2)
        lines = capture.wait().decode().splitlines()
    assert len(lines) == 2
    assert "cable:host1/nic1 in  VSID 5001 PA " in lines[0]
    assert ": 10.0.0.5 > 10.0.0.6 ICMP type 8 code 0, " in lines[0]
    assert ": 10.0.0.6 > 10.0.0.5 ICMP type 0 code 0, " in lines[1]
    assert capture.said.strip() == "2 packets"


def test_a_reader_can_follow_and_go(two: Lab) -> None:
    with capturing(two, "vm:*", "-w", "-", "--bpf", "icmp") as capture:
        stream = capture.process.stdout
        assert stream
        os.set_blocking(stream.fileno(), False)
        seen = bytearray()
        ping(two)
        until(
            lambda: bool(seen.extend(stream.read() or b"") or seen.count(TOKEN * 5) >= 12), "it is not live"
        )
        stream.close()
        ping(two)
        assert capture.process.wait(SECONDS) == 0
    with capturing(two, "vm:*", "--bpf", "icmp") as capture:
        ping(two, count=1)
        stream = capture.process.stdout
        assert stream
        assert b" > " in stream.readline()
        stream.close()
        ping(two)
        assert capture.process.wait(SECONDS) == 0


def test_a_file_is_decoded_in_columns(two: Lab, tmp_path: Path) -> None:
    file = tmp_path / "x.pcapng"
    with capturing(two, "cable:host1/nic1", "-w", file, "--bpf", "icmp") as capture:
        ping(two, count=1)
        capture.end(signal.SIGTERM)
    head, *rows = [line.split("\t") for line in two.cli.ok("capture", "--decode", file).splitlines()]
    assert len(rows) == 2
    told = dict(zip(head, rows[0], strict=True))
    assert (told["point"], told["VSID"]) == ("cable:host1/nic1", "5001")
    assert (told["CA source"], told["CA destination"]) == ("10.0.0.5", "10.0.0.6")
    assert told["PA source"]
    assert told["PA destination"]
    assert "Echo (ping) request" in told["info"]


def test_what_is_wrong_is_told(two: Lab, tmp_path: Path) -> None:
    said = two.cli.refused(2, "capture", two.name, "vm:blu")
    assert "no point 'vm:blu': one of vm:blue1, vm:blue2, host1:ingress" in said
    assert "name a lab" in two.cli.refused(2, "capture", two.name)
    assert "no IP address" in two.cli.refused(2, "capture", two.name, "*", "--ca", "10.0.0")
    assert "No such file" in two.cli.refused(3, "capture", two.name, "*", "-w", tmp_path / "none" / "x")


def test_a_capture_keeps_nothing_of_a_lab_alive(each_cli: Cli, tmp_path: Path) -> None:
    lab = Lab(each_cli, each_cli.up(TWO_HOSTS)["name"])
    with capturing(lab, "*", "-w", tmp_path / "x.pcapng") as capture:
        each_cli.ok("down", lab.name)
        capture.wait()
    assert "vm:blue1: ended early, its node has ended" in capture.said
    read(tmp_path / "x.pcapng")
