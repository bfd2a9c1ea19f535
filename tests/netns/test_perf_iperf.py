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
from testbed.perf.iperf import Direction, Load

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


@pytest.mark.parametrize("address", ["10.0.0.6", "fd00::6"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "both"])
def test_tcp_in_every_direction_with_a_chosen_congestion_control(
    guests: tuple[int, int], address: str, direction: Direction
) -> None:
    result = iperf.run(*guests, address, Load(seconds=1, direction=direction, congestion_control="reno"))
    assert result.congestion_control == "reno"
    assert result.gigabits_per_second > 0.1
    assert 0.9 < result.seconds < 3
    assert (result.loss, result.jitter) == (None, None)
    wanted = ["forward", "reverse"] if direction == "both" else []
    assert sorted(result.directions) == wanted
    assert not wanted or sum(result.directions.values()) == pytest.approx(result.gigabits_per_second)


def _bytes_sent(netns: int) -> int:
    with in_netns(netns), IPRoute() as ip:
        (link,) = ip.link("get", index=ip.link_lookup(ifname="eth0")[0])
        return int(link.get_nested("stats64")["tx_bytes"])


@pytest.mark.parametrize(("direction", "sends"), [("forward", (1, 0)), ("reverse", (0, 1)), ("both", (1, 1))])
def test_udp_at_a_rate_is_sent_by_whom_the_direction_says(
    guests: tuple[int, int], direction: Direction, sends: tuple[int, int]
) -> None:
    before = [_bytes_sent(netns) for netns in guests]
    load = Load(seconds=1, streams=2, direction=direction, protocol="udp", message_size=1000, rate=4)
    result = iperf.run(*guests, "10.0.0.6", load)
    sent = [_bytes_sent(netns) - old for netns, old in zip(guests, before, strict=True)]
    assert [size > 500_000 for size in sent] == [bool(each) for each in sends]  # 2 x 4 Mbit are 1 MB
    assert result.gigabits_per_second == pytest.approx(0.008 * sum(sends), rel=0.25)
    assert result.loss is not None
    assert 0 <= result.loss < 20
    assert result.jitter is not None
    assert (result.retransmits, result.congestion_control) == (0, "")


def test_meanwhile_is_called_while_it_is_sent(guests: tuple[int, int]) -> None:
    called: list[int] = []
    iperf.run(*guests, "10.0.0.6", Load(seconds=1), lambda: called.append(1))
    assert len(called) == 3


@pytest.mark.parametrize("streams", [8, iperf.MAX_STREAMS])
def test_the_options_count_and_the_report_of_many_streams_arrives(
    guests: tuple[int, int], streams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = []
    parse = iperf._parse
    monkeypatch.setattr(iperf, "_parse", lambda report, load: reports.append(report) or parse(report, load))
    result = iperf.run(*guests, "10.0.0.6", Load(seconds=1, streams=streams, message_size=65536))
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
        ("10.0.0.6", {"rate": -1}, "rate is -1"),
        ("10.0.0.6", {"protocol": "udp"}, "message_size is 131072: must be from 16 to 65507 with udp"),
        ("10.0.0.6", {"streams": 129}, "streams is 129: must be from 1 to 128"),
        ("10.0.0.6", {"message_size": 0}, "message_size is 0"),
    ],
)
def test_bad_input(guests: tuple[int, int], address: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        iperf.run(*guests, address, Load(**options))


def test_iperf3s_own_message_of_the_client(guests: tuple[int, int]) -> None:
    with pytest.raises(LabError, match=r"iperf3 client: unable to connect to server.*unreachable"):
        iperf.run(*guests, "10.9.0.6", Load(seconds=1))


def test_iperf3s_own_message_of_the_server(guests: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    with in_netns(guests[1]), socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        monkeypatch.setattr(iperf, "_free_port", lambda: taken.getsockname()[1])
        with pytest.raises(LabError, match=r"iperf3 server: .*(unable to start listener|in use)"):
            iperf.run(*guests, "10.0.0.6", Load(seconds=1))


def test_a_client_that_hangs_is_stopped(guests: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iperf, "_send", lambda *_: time.sleep(60))
    monkeypatch.setattr(iperf, "_GRACE", -0.7)
    with pytest.raises(LabError, match=r"iperf3 client: no result within 0\.3 s"):
        iperf.run(*guests, "10.0.0.6", Load(seconds=1))


def test_a_server_that_never_listens_is_stopped(
    guests: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iperf, "_serve", lambda _: time.sleep(60))
    monkeypatch.setattr(iperf, "_READY_WITHIN", 0.2)
    with pytest.raises(LabError, match=r"iperf3 server: did not listen within 0\.2 s"):
        iperf.run(*guests, "10.0.0.6", Load(seconds=1))


def test_without_libiperf(guests: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    import iperf3

    def missing() -> None:
        raise OSError("Couldn't find shared library")

    monkeypatch.setattr(iperf3, "Server", missing)
    with pytest.raises(MachineLacks, match="install Debian's package libiperf0"):
        iperf.run(*guests, "10.0.0.6", Load(seconds=1))


def test_a_congestion_control_that_the_kernel_lacks(guests: tuple[int, int]) -> None:
    with pytest.raises(LabError, match=r"iperf3 client: unable to set TCP_CONGESTION"):
        iperf.run(*guests, "10.0.0.6", Load(seconds=1, congestion_control="vegan"))
