"""testbed.perf.iperf: runs between two namespaces joined by a veth pair."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from testbed.errors import BadInput, LabError, MachineLacks
from testbed.namespaces import in_netns, new_netns
from testbed.perf import iperf

pytestmark = pytest.mark.netns


@pytest.fixture
def guests() -> Iterator[tuple[int, int]]:
    """Namespaces of client (10.0.0.5, fd00::5) and server (.6, ::6); no process may be left in the end."""
    children = Path("/proc/thread-self/children").read_text()
    with contextlib.ExitStack() as stack:
        client, server = new_netns(), new_netns()
        stack.callback(os.close, client)
        stack.callback(os.close, server)
        with in_netns(client), IPRoute() as ip:
            ip.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": server})
        for number, netns in enumerate((client, server), 5):
            with in_netns(netns), IPRoute() as ip:
                (index,) = ip.link_lookup(ifname="eth0")
                ip.link("set", index=index, state="up")
                ip.addr("add", index=index, address=f"10.0.0.{number}", prefixlen=24)
                ip.addr("add", index=index, address=f"fd00::{number}", prefixlen=64, flags=2)
        yield client, server
    assert Path("/proc/thread-self/children").read_text() == children


def _routes(netns: int) -> list[tuple[Any, ...]]:
    """Destination and metrics of every route but the link-local ones, which come when DAD is done."""
    with in_netns(netns), IPRoute() as ip:
        return sorted(
            (route["family"], str(route.get("dst")), route["dst_len"], str(route.get("metrics")))
            for route in ip.get_routes()
            if not str(route.get("dst")).startswith("fe80")
        )


@pytest.mark.parametrize("address", ["10.0.0.6", "fd00::6"])
def test_run_with_a_chosen_congestion_control(guests: tuple[int, int], address: str) -> None:
    client, server = guests
    before = _routes(client)
    with iperf.congestion_control(client, address, "reno"):
        assert _routes(client) != before
        result = iperf.run(client, server, address, seconds=1)
    assert result.congestion_control == "reno"
    assert result.gigabits_per_second > 0.1
    assert 0.9 < result.seconds < 3
    assert _routes(client) == before


def test_congestion_control_of_the_next_connections_only(guests: tuple[int, int]) -> None:
    def algorithm() -> bytes:
        with in_netns(guests[0]), socket.socket() as sock:
            with contextlib.suppress(ConnectionRefusedError):
                sock.connect(("10.0.0.6", 9))
            with in_netns(guests[1]), socket.create_server(("10.0.0.6", 0)) as listener:
                address = listener.getsockname()
                with in_netns(guests[0]), socket.create_connection(address, timeout=5) as connected:
                    return connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")

    default = algorithm()
    for name in ("reno", "cubic"):
        with iperf.congestion_control(guests[0], "10.0.0.6", name):
            assert algorithm() == name.encode()
    assert algorithm() == default


def test_congestion_control_over_a_gateway(guests: tuple[int, int]) -> None:
    with in_netns(guests[0]), IPRoute() as ip:
        ip.route("add", dst="10.9.0.0/24", gateway="10.0.0.6")
        with iperf.congestion_control(guests[0], "10.9.0.1", "reno"):
            (route,) = ip.route("get", dst="10.9.0.1")
            assert route.get("gateway") == "10.0.0.6"


@pytest.mark.parametrize("streams", [8, iperf.MAX_STREAMS])
def test_the_options_count_and_the_report_of_many_streams_arrives(
    guests: tuple[int, int], streams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = []
    parse = iperf._parse
    monkeypatch.setattr(iperf, "_parse", lambda report: reports.append(report) or parse(report))
    result = iperf.run(*guests, "10.0.0.6", seconds=1, streams=streams, block_size=65536)
    assert result.gigabits_per_second > 0.1
    start = json.loads(reports[0])["start"]
    assert len(start["connected"]) == streams
    assert {key: start["test_start"][key] for key in ("protocol", "duration", "blksize")} == {
        "protocol": "TCP",
        "duration": 1,
        "blksize": 65536,
    }


@pytest.mark.parametrize(
    ("address", "options", "message"),
    [
        ("10.0.0.300", {}, "'10.0.0.300' is not an IP address"),
        ("10.0.0.6", {"seconds": 0}, "seconds is 0"),
        ("10.0.0.6", {"streams": 129}, "streams is 129: must be from 1 to 128"),
        ("10.0.0.6", {"block_size": 0}, "block_size is 0"),
    ],
)
def test_bad_input(guests: tuple[int, int], address: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        iperf.run(*guests, address, **options)


def test_iperf3s_own_message_of_the_client(guests: tuple[int, int]) -> None:
    with pytest.raises(LabError, match=r"iperf3 client: unable to connect to server.*unreachable"):
        iperf.run(*guests, "10.9.0.6", seconds=1)


def test_iperf3s_own_message_of_the_server(guests: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    with in_netns(guests[1]), socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        monkeypatch.setattr(iperf, "_free_port", lambda: taken.getsockname()[1])
        with pytest.raises(LabError, match=r"iperf3 server: .*(unable to start listener|in use)"):
            iperf.run(*guests, "10.0.0.6", seconds=1)


def test_a_client_that_hangs_is_stopped(guests: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iperf, "_send", lambda *_: time.sleep(60))
    monkeypatch.setattr(iperf, "_GRACE", -0.7)
    with pytest.raises(LabError, match=r"iperf3 client: no result within 0\.3 s"):
        iperf.run(*guests, "10.0.0.6", seconds=1)


def test_a_server_that_never_listens_is_stopped(
    guests: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iperf, "_serve", lambda _: time.sleep(60))
    monkeypatch.setattr(iperf, "_READY_WITHIN", 0.2)
    with pytest.raises(LabError, match=r"iperf3 server: did not listen within 0\.2 s"):
        iperf.run(*guests, "10.0.0.6", seconds=1)


def test_without_libiperf(guests: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    import iperf3

    def missing() -> None:
        raise OSError("Couldn't find shared library")

    monkeypatch.setattr(iperf3, "Server", missing)
    with pytest.raises(MachineLacks, match="install Debian's package libiperf0"):
        iperf.run(*guests, "10.0.0.6", seconds=1)


@pytest.mark.parametrize(
    ("destination", "algorithm", "error", "message"),
    [
        ("here", "cubic", BadInput, "'here' is not an IP address"),
        ("10.9.0.1", "cubic", LabError, "unreachable"),
        ("10.0.0.6", "vegan", LabError, "vegan"),
    ],
)
def test_congestion_control_errors(
    guests: tuple[int, int], destination: str, algorithm: str, error: type[Exception], message: str
) -> None:
    with (
        pytest.raises(error, match=message),
        iperf.congestion_control(guests[0], destination, algorithm),
    ):
        pytest.fail("entered")
