"""Cables of running labs: each fault shows between two VMs, and ends when it is cleared."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import TWO_HOSTS, Cli
from support.engines import DOCKER_IS_LONG
from support.labs import Lab
from support.vmm_lab import opened
from support.waiting import until
from testbed.namespaces import in_netns
from testbed.testing import streams

pytestmark = pytest.mark.e2e
CABLE = "host1:nic1"
ALLOWED = ("bad-checksum", "malformed", "policy-mismatch", "no-port", "not-ip", "not-nvgre", "not-for-us")


def ping(lab: Lab, count: int = 100) -> tuple[int, int]:
    """Answers and duplicates of so many requests of blue1."""
    words = ("timeout", "-s", "INT", 6, "ping", "-q", "-c", count, "-i", "0.002", "-W", 1, "10.0.0.6")
    said = lab.cli.inside(lab.name, "blue1", *words).stdout.decode()
    received = re.search(r"(\d+) received", said)
    double = re.search(r"\+(\d+) duplicates", said)
    assert received, said
    return int(received[1]), int(double[1]) if double else 0


@DOCKER_IS_LONG
def test_faults_come_and_go(each_cli: Cli, running: Callable[..., Any]) -> None:
    with running(each_cli, TWO_HOSTS, may_drop=ALLOWED) as lab:

        def link(*words: str) -> dict[str, Any]:
            found: dict[str, Any] = each_cli.json("link", lab.name, CABLE, *words)
            return found

        assert ping(lab) == (100, 0)
        link("set", "loss=20%", "seed=3")
        answers, _ = ping(lab)
        assert 40 <= answers <= 85  # 64 of 100 on the average: both ways
        told = link()["ways"]
        lost = [told[way]["counters"]["lost"] for way in ("to-host", "from-host")]
        assert all(lost)
        assert 100 - answers <= sum(lost) + 1
        link("clear")
        assert ping(lab) == (100, 0)
        for way in ("to-host", "from-host"):
            link("set", "duplication=100%", "--way", way)
            answers, double = ping(lab)
            assert (answers, double >= 90) == (100, True)
            link("clear")
        link("set", "black-hole=on", "--way", "from-host")
        assert ping(lab, 20)[0] == 0
        assert link()["up"]  # its carrier stays
        link("clear")
        assert ping(lab) == (100, 0)
        link("set", "corruption=100%", "--way", "to-host")
        assert ping(lab, 50)[0] < 40  # of those whose headers are good, ping counts what it can't trust
        link("clear")
        until(lambda: ping(lab, 5)[0] == 5, "the good cable does not pass")
        assert link("down")["up"] is False
        assert ping(lab, 10)[0] == 0
        assert link("up")["up"] is True
        until(lambda: ping(lab, 5)[0] == 5, "the cable is up and does not pass")
        assert each_cli.json("events", lab.name, "host1", "--kind", "cable-change")["events"]


def test_a_rate_is_kept_on_both_ways(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = running(cli, TWO_HOSTS, may_drop=("tx-refused",))  # what does not fit before a slow cable
    with slow as lab, opened(lab, monkeypatch) as inside:
        cli.ok("link", lab.name, CABLE, "set", "rate=100mbit")
        ends = inside.netns("blue1"), inside.netns("blue2")
        for port, (client, server, address) in enumerate(
            ((*ends, "10.0.0.6"), (*ends[::-1], "10.0.0.5")), start=7130
        ):
            found = streams.run(client, server, address, [20000], port=port, seconds=2.0)
            assert 80e6 < found * 8 / 2.0 < 102e6
        assert cli.json("link", lab.name, CABLE)["ways"]["to-host"]["rate"] == 100_000_000
        cli.ok("link", lab.name, CABLE, "set", "rate=none")
        assert streams.run(*ends, "10.0.0.6", [20001], port=7132, seconds=1.0) * 8 > 300e6


def round_trips(lab: Lab, count: int = 40) -> list[float]:
    """Milliseconds."""
    words = ("ping", "-c", count, "-i", "0.01", "-W", 2, "10.0.0.6")
    said = lab.cli.inside(lab.name, "blue1", *words).stdout.decode()
    return [float(found) for found in re.findall(r"time=([\d.]+) ms", said)]


def arrivals(client: int, server: int, count: int, port: int) -> list[int]:
    """The order in which datagrams of one flow arrive."""
    with in_netns(server):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with in_netns(client):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind(("10.0.0.6", port))
        receiver.settimeout(10)
        for number in range(count):
            sender.sendto(number.to_bytes(2, "big"), ("10.0.0.6", port))
        return [int.from_bytes(receiver.recv(100), "big") for _ in range(count)]


@DOCKER_IS_LONG
def test_frames_are_held_back(
    each_cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(each_cli, TWO_HOSTS) as lab, opened(lab, monkeypatch) as inside:
        ends = inside.netns("blue1"), inside.netns("blue2")

        def link(*words: str) -> dict[str, Any]:
            found: dict[str, Any] = each_cli.json("link", lab.name, CABLE, *words)
            return found["ways"]

        assert round_trips(lab)
        link("set", "delay=20ms")
        found = round_trips(lab)
        assert len(found) == 40
        assert min(found) >= 40.0
        link("set", "delay=0ms", "--way", "from-host")
        assert 20.0 <= min(found := round_trips(lab)) < 40.0
        assert sorted(found)[len(found) // 2] - min(found) < 18.0
        link("set", "jitter=18ms", "--way", "to-host")
        assert max(found := round_trips(lab)) - min(found) > 8.0
        assert min(found) < 18.0
        assert arrivals(*ends, 100, 7200) == list(range(100))
        link("set", "delay=50ms", "reordering=10%", "--way", "from-host")
        came = arrivals(*ends, 200, 7201)
        assert sorted(came) == list(range(200))
        early = sum(number > position for position, number in enumerate(came))
        assert 5 <= early <= 60
        assert link()["from-host"]["counters"]["reordered"] >= early
        data = bytes(range(256)) * 8000
        assert streams.copy(*ends, "10.0.0.6", data, 7202) == data
        each_cli.ok("link", lab.name, CABLE, "clear")
        assert min(round_trips(lab)) < 10.0
        processes = each_cli.inspect(lab.name)["hosts"][0]["processes"]
        assert [each["role"] for each in processes] == ["control", "worker", "wire"]


def test_faults_of_the_topology_file_and_of_a_changed_one(
    cli: Cli, running: Callable[..., Any], tmp_path: Path
) -> None:
    """Applied to a lab that runs: nothing is made anew."""
    whole = TWO_HOSTS.read_text()
    cable = '  - {endpoints: ["host1:nic1", tor1], wire: {{ wire }}}'
    assert cable in whole
    slow, good = tmp_path / "slow.yaml", tmp_path / "good.yaml"
    words = "rate: 100mbit, delay: 10ms, to-host: {delay: 20ms, loss: 100%}"
    slow.write_text(whole.replace(cable, f'  - {{endpoints: ["host1:nic1", tor1], {words}}}'))
    good.write_text(whole)
    with running(cli, slow, may_drop=("pa-unreachable",)) as lab:
        told = cli.json("link", lab.name, CABLE)["ways"]
        assert [(told[way]["rate"], told[way]["delay"], told[way]["loss"]) for way in sorted(told)] == [
            (100_000_000, 0.01, 0.0),
            (100_000_000, 0.02, 1.0),
        ]
        assert ping(lab, 5)[0] == 0
        before = [each["processes"][:2] for each in cli.inspect(lab.name)["hosts"]]
        done = cli.json("apply", lab.name, good)["changes"]
        assert done["rewired"] == [CABLE]
        assert not any(any(done[kind].values()) for kind in ("hosts", "vms", "cables"))
        assert ping(lab, 20)[0] == 20
        after = [each["processes"][:2] for each in cli.inspect(lab.name)["hosts"]]
        assert [[each["pid"] for each in pair] for pair in after] == [
            [each["pid"] for each in pair] for pair in before
        ]
        cli.ok("apply", lab.name, slow)
        assert ping(lab, 5)[0] == 0


def test_what_can_not_be_set(cli: Cli, running: Callable[..., Any]) -> None:
    with running(cli, TWO_HOSTS) as lab:
        before = cli.json("link", lab.name, CABLE)
        for words, said in (
            (["set", "loss=200%"], "is no part of frames"),
            (["set", "rate=fast"], "is no rate"),
            (["set", "delay=5"], "is no time"),
            (["set", "jitter=5ms"], "a longer delay"),
            (["set", "colour=red"], "can't be set: use loss"),
            (["set", "seed=0"], "is no seed"),
            (["set", "loss"], "is no setting"),
            (["set"], "at least one setting"),
            (["show", "loss=1%"], "the others take none"),
        ):
            assert said in cli.refused(2, "link", lab.name, CABLE, *words)
        assert "no cable 'host1:nic9': one of host1:nic1" in cli.refused(2, "link", lab.name, "host1:nic9")
        assert cli.json("link", lab.name, CABLE) == before
