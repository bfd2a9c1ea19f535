"""Emulated NICs in whole labs: what is on the cable, which queue a flow takes, what is dropped."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import TWO_HOSTS, Cli, drops
from support.labs import Lab
from support.vmm_lab import opened
from support.waiting import until
from testbed.lab.lab import Lab as Opened
from testbed.nic.offloads import TASKS
from testbed.testing import streams

pytestmark = pytest.mark.e2e

BLUE1, BLUE2 = "10.0.0.5", "10.0.0.6"
SIZE = 2_000_000  # bytes of a stream
MTU_FRAME = 1514


def nic(lab: Lab, host: str) -> dict[str, Any]:
    """host's one NIC."""
    (found,) = lab.cli.json("nic", lab.name, host)
    return dict(found)


def switch(lab: Lab, *settings: str) -> None:
    """Both hosts' NICs."""
    for host in ("host1", "host2"):
        lab.cli.ok("nic", lab.name, host, "set", *settings)


def transfer(inside: Opened, **more: Any) -> int:
    """A stream from blue1 to blue2; all of it has to arrive."""
    sent = streams.run(inside.netns("blue1"), inside.netns("blue2"), BLUE2, [20000], size=SIZE, **more)
    assert sent == SIZE
    return sent


def counted(lab: Lab, host: str, *names: str) -> list[int]:
    counters = nic(lab, host)["counters"]
    return [counters[name] for name in names]


@pytest.mark.parametrize("profile", ["basic", "r2", "r2-nvgre", "modern"])
def test_each_profile_carries_the_same(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    with running(cli, TWO_HOSTS, "--set", f"nic={profile}") as lab, opened(lab, monkeypatch) as inside:
        assert cli.json("check", lab.name)["ok"]
        transfer(inside)
        lso, software = counted(lab, "host1", "tx_lso_segments", "tx_software_segments")
        joined, of = counted(lab, "host2", "rx_rsc_packets", "rx_rsc_segments")
        if profile in ("basic", "r2"):
            assert (lso, software > SIZE / 3000) == (0, True)
        else:
            assert (lso > SIZE / 1500, software) == (True, 0)
        if profile == "modern":
            assert of > 0.9 * SIZE / 1500
            assert joined < of / 4
        else:
            assert joined == 0


@pytest.mark.long  # test_offload_truth has the same combinations, by capture
def test_tasks_are_switched_on_a_running_lab_and_nothing_is_lost(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every combination of the tasks that change packets; what arrives is what was sent."""
    with running(cli, TWO_HOSTS) as lab, opened(lab, monkeypatch) as inside:
        for tasks in itertools.product(("on", "off"), repeat=4):
            switch(
                lab,
                *map("=".join, zip(("nvgre", "nvgre-lso", "tx-checksum", "nvgre-rsc"), tasks, strict=True)),
            )
            before = counted(lab, "host1", "tx_lso_packets") + counted(lab, "host2", "rx_rsc_packets")
            transfer(inside)
            after = counted(lab, "host1", "tx_lso_packets") + counted(lab, "host2", "rx_rsc_packets")
            lso, rsc = (now > then for now, then in zip(after, before, strict=True))
            assert lso == (tasks[:2] == ("on", "on")), tasks
            # frames that are sent one by one may come too far apart to be joined
            assert rsc == (tasks[0] == tasks[3] == "on") or not lso, tasks
        assert not [key for key in drops(cli, lab.name) if "bad-checksum" in key]


def test_the_queue_of_a_flow_is_the_hashs(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--set", "processors=4", "--set", "nic=r2-nvgre")
    with running(cli, TWO_HOSTS, *options) as lab, opened(lab, monkeypatch) as inside:
        switch(lab, "vmq=off", "rss=on")
        for table in ([0, 1, 2, 3], [3, 3, 1, 0, 2, 2, 0, 1]):
            cli.ok("nic", lab.name, "host2", "set", f"table={','.join(map(str, table))}")
            for queue in range(4):
                (source,) = streams.ports_for([queue], BLUE1, BLUE2, 7100 + queue, table)
                names = [f"rx_queue_{number}_packets" for number in range(4)]
                before = counted(lab, "host2", *names)
                streams.run(
                    inside.netns("blue1"),
                    inside.netns("blue2"),
                    BLUE2,
                    [source],
                    port=7100 + queue,
                    size=SIZE,
                )
                grown = [now - then for now, then in zip(counted(lab, "host2", *names), before, strict=True)]
                assert grown[queue] > SIZE / 1500
                assert sum(grown) - grown[queue] < 20, grown
        switch(lab, "nvgre=off")  # all of a pair of hosts in one queue
        before = counted(lab, "host2", *names)
        sources = streams.ports_for([0, 1, 2, 3], BLUE1, BLUE2, 7110, [0, 1, 2, 3])
        streams.run(inside.netns("blue1"), inside.netns("blue2"), BLUE2, sources, port=7110, size=SIZE // 4)
        grown = [now - then for now, then in zip(counted(lab, "host2", *names), before, strict=True)]
        assert max(grown) > 0.95 * sum(grown), grown


def test_vmq_gives_each_vm_a_queue(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--set", "processors=4", "--set", "nic=r2-nvgre")
    with running(cli, TWO_HOSTS, *options) as lab, opened(lab, monkeypatch) as inside:
        queue = next(iter(nic(lab, "host2")["vmq"].values()))
        assert queue == 1
        for tasks, expected in (("nvgre=on", queue), ("nvgre=off", 0)):
            switch(lab, tasks)
            before = counted(lab, "host2", "rx_queue_0_packets", "rx_queue_1_packets")
            transfer(inside)
            after = counted(lab, "host2", "rx_queue_0_packets", "rx_queue_1_packets")
            assert after[expected] - before[expected] > SIZE / 1500
            assert after[1 - expected] - before[1 - expected] < 20


def test_what_can_not_be_set(cli: Cli, running: Callable[..., Any], tmp_path: Path) -> None:
    with running(cli, TWO_HOSTS, "--set", "nic=r2") as lab:
        before = nic(lab, "host1")
        for settings, words in (
            (["nvgre=on"], "does not support nvgre"),
            (["rss=on"], "rss and vmq can't both be on"),
            (["teleport=on"], "unknown offload 'teleport'"),
            (["lso=perhaps"], "expected on or off"),
            (["lso"], "write it like lso=off"),
            (["table=0,1"], "queue 1: the NIC has 0 to 0"),
            (["table=0,0,0"], "1, 2, 4, ... or 128 entries, this one 3"),
            (["key=00"], "write 80 hex digits"),
            (["hash-types=udp"], "unknown hash type 'udp'"),
            (["lso=off", "nvgre=on"], "does not support nvgre"),
        ):
            assert words in cli.refused(2, "nic", lab.name, "host1", "set", *settings)
        assert "no host 'host9'" in cli.refused(2, "nic", lab.name, "host9")
        assert "no NIC 'nic9'" in cli.refused(2, "nic", lab.name, "host1", "set", "lso=off", "--nic", "nic9")
        assert "`set` at least one" in cli.refused(2, "nic", lab.name, "host1", "set")
        after = nic(lab, "host1")
        assert {**after, "counters": None} == {**before, "counters": None}
    own = tmp_path / "own.yaml"
    own.write_text("supports: [lso, vmq]\n")
    with running(cli, TWO_HOSTS, "--set", f"nic={own}") as lab:
        assert nic(lab, "host1")["offloads"] == {"supported": ["lso", "vmq"], "enabled": ["lso", "vmq"]}
    for text, words in (
        ("supports: [lso, teleport]\n", "teleport"),
        ("supports: [lso]\nenabled: [rsc]\n", "enables rsc, which it does not support"),
        ("supports: [rss, vmq]\nenabled: [rss, vmq]\n", "rss and vmq can't both be on"),
        ("- lso\n", "own.yaml"),
    ):
        own.write_text(text)
        assert words in cli.refused(2, "validate", TWO_HOSTS, "--set", f"nic={own}")
    assert "unknown NIC profile 'r3'" in cli.refused(2, "validate", TWO_HOSTS, "--set", "nic=r3")
    assert set(TASKS) >= {"lso", "nvgre"}


@pytest.mark.parametrize("verifies", ["on", "off"])
def test_a_corrupt_frame_is_dropped_or_handed_up(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, verifies: str
) -> None:
    """Whoever is to verify, no VM takes damaged data."""
    data = random.Random(1).randbytes(8_000_000)
    allowed = ("bad-checksum", "malformed", "policy-mismatch", "no-port", "not-ip", "not-nvgre", "not-for-us")
    with running(cli, TWO_HOSTS, may_drop=allowed) as lab, opened(lab, monkeypatch) as inside:
        cli.ok("nic", lab.name, "host2", "set", f"rx-checksum={verifies}")
        cli.ok("link", lab.name, "host2:nic1", "set", "corruption=1%", "--way", "to-host")
        ends = inside.netns("blue1"), inside.netns("blue2")
        assert streams.copy(*ends, BLUE2, data, 7140) == data
        told = cli.output(lab.name, "blue2", "cat", "/proc/net/snmp").splitlines()
        names, values = (line.split() for line in told if line.startswith("Tcp:"))
        by_guest = int(values[names.index("InCsumErrors")])
        by_nic = sum(n for key, n in drops(cli, lab.name).items() if "bad-checksum" in key)
        assert (by_nic > 10, by_guest > 10) == (verifies == "on", verifies == "off")
        cli.ok("link", lab.name, "host2:nic1", "clear")


def test_a_budget_is_kept(cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One processor of ten per cent takes as many frames as the model says, whatever the machine."""
    options = ("--set", "budget=10", "--set", "nic=r2")
    with running(cli, TWO_HOSTS, *options) as lab, opened(lab, monkeypatch) as inside:
        found = streams.run(
            inside.netns("blue1"), inside.netns("blue2"), BLUE2, [20000], port=7120, seconds=2.0
        )
        per_frame = 2e-6 + 3e-9 * 1500
        model = 2.0 * 0.1 / per_frame * 1406  # bytes
        assert 0.6 * model < found < 1.1 * model
        until(lambda: cli.json("check", lab.name)["ok"], "the lab does not work with a budget")
