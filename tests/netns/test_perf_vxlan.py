"""The baseline carries traffic, on its cables is what should be, nothing stays; bench compares two paths."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.errors import LabError, MachineLacks
from testbed.namespaces import in_netns, start_in_netns
from testbed.perf import iperf, kernel, vxlan
from testbed.perf.bench import BenchPath, Terms, bench, ratio
from testbed.perf.iperf import Load
from testbed.perf.vxlan import OVERHEAD, VxlanLab
from testbed.topology.schema import Wire

pytestmark = pytest.mark.netns

_SOL_PACKET, _PACKET_STATISTICS, _PACKET_VNET_HDR = 263, 6, 15  # linux/if_packet.h
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_ETH_P_ALL = 3
_VNET_NEEDS_CSUM = 1  # virtio_net_hdr.flags


class Tap:
    """Counts, and keeps some of, an interface's frames longer than so many bytes with Ethernet header."""

    def __init__(self, netns: int, interface: str, longer_than: int) -> None:
        # ld len; jgt longer_than, next, last; ret 65535; ret 0
        code = [(0x80, 0, 0, 0), (0x25, 0, 1, longer_than), (0x06, 0, 0, 65535), (0x06, 0, 0, 0)]
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
        with in_netns(netns):
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        attached = struct.pack("HP", len(code), ctypes.addressof(program))
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attached)
        self._sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self._sock.bind((interface, _ETH_P_ALL))
        self._sock.setblocking(False)

    def count(self) -> int:
        """Frames since the last call, kept or not."""
        return int(struct.unpack("II", self._sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[0])

    def offload_headers(self) -> Iterator[tuple[int, int]]:
        """(flags, gso_type) of the virtio_net_hdr of every frame kept."""
        while True:
            try:
                header = self._sock.recv(10)
            except BlockingIOError:
                return
            yield header[0], header[1]

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()


def _holders(inodes: set[int]) -> list[str]:
    """What refers to one of the network namespaces: descriptors and tasks of any process."""
    links = {f"net:[{inode}]" for inode in inodes}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        for pattern in ("fd/*", "task/*/ns/net"):
            try:
                found += [str(path) for path in process.glob(pattern) if _link(path) in links]
            except OSError:
                continue
    return found


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _inodes(lab: VxlanLab) -> set[int]:
    return {os.fstat(fd).st_ino for fd in (lab.client, lab.server, *lab.hosts, lab.fabric)}


def _send(lab: VxlanLab, version: int = 4) -> iperf.IperfResult:
    return iperf.run(lab.client, lab.server, lab.server_address(version), Load(seconds=1))


@pytest.mark.parametrize("version", [4, 6])
def test_frames_are_what_is_on_a_frames_wire(version: int) -> None:
    with VxlanLab(wire="frames") as lab:
        longest = lab.mtu + OVERHEAD + 14
        full = longest - 20  # a full segment; MSS may be some TCP options shorter
        with (
            Tap(lab.fabric, "p0", longest + 4) as above_sent,
            Tap(lab.fabric, "p1", longest + 4) as above_received,
            Tap(lab.fabric, "p0", full) as frames,
            Tap(lab.hosts[1], "nic1", longest + 4) as coalesced,
        ):
            assert _send(lab, version).gigabits_per_second > 0.1
            assert above_sent.count() == 0
            assert above_received.count() == 0
            assert frames.count() > 10_000
            assert coalesced.count() > 1000  # GRO at the receiving NIC
            headers = list(frames.offload_headers())
            assert len(headers) > 20
            assert {flags & _VNET_NEEDS_CSUM for flags, _ in headers} == {0}
            assert {gso_type for _, gso_type in headers} == {0}


def test_aggregates_are_on_an_aggregated_wire() -> None:
    with VxlanLab(wire="aggregated") as lab:
        longest = lab.mtu + OVERHEAD + 14
        with Tap(lab.fabric, "p0", longest + 4) as above:
            assert _send(lab).gigabits_per_second > 0.1
            assert above.count() > 1000


def _datagrams(address: str) -> None:
    """Send UDP super-packets (UDP_SEGMENT, linux/udp.h) of 40 datagrams each."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_UDP, 103, 1200)
        for _ in range(50):
            sock.sendto(bytes(40 * 1200), (address, 9))


@pytest.mark.parametrize(("wire", "above"), [("frames", False), ("aggregated", True)])
def test_udp_super_packets_without_a_tunnel_are_cut_too(wire: Wire, above: bool) -> None:
    with VxlanLab(wire=wire) as lab, Tap(lab.fabric, "p0", lab.mtu + OVERHEAD + 18) as tap:
        with start_in_netns(lab.hosts[0], _datagrams, vxlan.outer_address(1)) as sending:
            sending.result(5)
        assert (tap.count() > 0) is above


def test_guests_have_the_mtu_and_the_gso_size_that_were_asked_for() -> None:
    with (
        VxlanLab(mtu=2000, gso_max_size=30000) as lab,
        Tap(lab.client, "eth0", 30000 + 14) as above,
        Tap(lab.client, "eth0", 20000) as large,
        Tap(lab.fabric, "p0", 1900 + OVERHEAD) as full,
    ):
        _send(lab)
        assert above.count() == 0
        assert large.count() > 1000
        assert full.count() > 1000


def test_nothing_refers_to_the_namespaces_afterwards() -> None:
    fds = {path.name for path in Path("/proc/self/fd").iterdir()}
    with VxlanLab() as lab:
        inodes = _inodes(lab)
        assert len(inodes) == 5
        assert len(_holders(inodes)) == 5
    assert _holders(inodes) == []
    assert {path.name for path in Path("/proc/self/fd").iterdir()} == fds


def _not_permitted() -> int:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize(
    ("name", "replacement", "error", "message"),
    [
        ("guest_mac", lambda _: "01:00:00:00:00:01", LabError, "the baseline vxlan cannot be built"),
        ("new_netns", _not_permitted, MachineLacks, "the baseline vxlan needs root"),
    ],
)
def test_a_failed_build_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, replacement: object, error: type[Exception], message: str
) -> None:
    fds = {path.name for path in Path("/proc/self/fd").iterdir()}
    monkeypatch.setattr(kernel, name, replacement)
    with pytest.raises(error, match=message), VxlanLab():
        pytest.fail("built")
    assert {path.name for path in Path("/proc/self/fd").iterdir()} == fds


_RUN = """
import os
from testbed.perf import iperf
from testbed.perf.vxlan import VxlanLab
with VxlanLab() as lab:
    print(*(os.fstat(fd).st_ino for fd in (lab.client, lab.server, *lab.hosts, lab.fabric)), flush=True)
    iperf.run(lab.client, lab.server, lab.server_address(), iperf.Load(seconds=60))
"""


def test_kill_9_in_the_middle_of_a_run_frees_everything() -> None:
    with subprocess.Popen([sys.executable, "-c", _RUN], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        inodes = {int(inode) for inode in process.stdout.readline().split()}
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 10
        while len(pids := children.read_text().split()) < 2:  # server and client
            assert time.monotonic() < deadline
        pidfds = [os.pidfd_open(int(pid)) for pid in pids]
        assert len(_holders(inodes)) >= 5
        process.kill()
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], 5)[0]
        os.close(pidfd)
    assert _holders(inodes) == []


def _path(lab: VxlanLab) -> BenchPath:
    return BenchPath(
        "wnv", lab.client, lab.server, lab.server_address(), time.process_time, lab.mtu, lab.wire
    )


def test_bench_of_the_baseline_against_itself() -> None:
    with VxlanLab(wire="aggregated") as lab:
        (turn,) = bench(_path(lab), ["vxlan"], Load(seconds=1), Terms(repeat=1))
    assert [each.path for each in turn] == ["wnv", "vxlan"]
    found = ratio([turn], "wnv", "vxlan")
    assert found is not None
    assert 0.05 < found < 20  # one turn of one second, beside whatever else the machine does
    for each in turn:
        values = each.values()
        assert values["throughput"] > 0.1
        assert values["retransmits"] >= 0
        assert values["switch_cpu"] >= 0
        assert 0.5 < values["machine_cpu"] < 60  # a TCP stream takes about a processor
        for state in ("idle", "load"):
            assert 0 < values[f"rtt_{state}_p50"] <= values[f"rtt_{state}_p90"] <= values[f"rtt_{state}_p99"]
        assert 0 <= values["probe_loss"] < 100


def test_bench_fails_with_a_run_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iperf, "_READY_WITHIN", 1.0)
    with VxlanLab() as lab:
        path = _path(lab)
        os.close(lab._open.pop(0))  # the fabric: its cables are gone with it
        with pytest.raises(LabError, match=r"^wnv: iperf3 client: unable to connect to server"):
            bench(path, (), Load(seconds=1), Terms(repeat=1))
