"""Cables of running labs: each fault shows between two VMs, and ends when it is cleared."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from support import streams
from support.cli import TWO_HOSTS, Cli
from support.labs import Lab
from support.vmm_lab import opened
from support.waiting import until

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


def test_what_can_not_be_set(cli: Cli, running: Callable[..., Any]) -> None:
    with running(cli, TWO_HOSTS) as lab:
        before = cli.json("link", lab.name, CABLE)
        for words, said in (
            (["set", "loss=200%"], "is no part of frames"),
            (["set", "rate=fast"], "is no rate"),
            (["set", "delay=5ms"], "can't be set: use loss"),
            (["set", "seed=0"], "can't be set"),
            (["set", "loss"], "is no setting"),
            (["set"], "at least one setting"),
            (["show", "loss=1%"], "the others take none"),
        ):
            assert said in cli.refused(2, "link", lab.name, CABLE, *words)
        assert "no cable 'host1:nic9': one of host1:nic1" in cli.refused(2, "link", lab.name, "host1:nic9")
        assert cli.json("link", lab.name, CABLE) == before
