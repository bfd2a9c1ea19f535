"""Plans: cells, baselines and what is recorded; what a bench switches is as it was, however it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.cli import TWO_HOSTS, Cli
from support.labs import Lab, tear_down
from support.vmm_lab import opened
from support.waiting import until
from testbed.lab import nic
from testbed.lab.lab import Lab as Opened
from testbed.namespaces import in_netns
from testbed.perf import ovs
from testbed.results.metrics import METRICS
from testbed.results.model import Run
from testbed.results.store import reading

pytestmark = pytest.mark.e2e

PLAN = """
label: plan
baselines: [vxlan, bare]
seconds: 1
warm_up: 0
repeat: 1
matrix:
  - {nic: "modern,nvgre=off", wire: aggregated, guest_lso: off}
  - {team: Lacp/Dynamic}
  - {protocol: udp, rate: 20, direction: both, ip: 6}
"""
TCP = {"retransmits"}
UDP = {"loss", "jitter"}
RTT = {f"rtt_{state}_p{percent}" for state in ("idle", "load") for percent in (50, 90, 99)}
CPU = {f"{who}_cpu{per}" for who in ("switch", "machine") for per in ("", "_per_gigabit")}
COMMON = {"throughput", "probe_loss"} | RTT | CPU


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A 2host whose NICs have four queues."""
    cli = Cli(tmp_path_factory.mktemp("bench") / "state")
    name = cli.up(TWO_HOSTS, "--set", "processors=4")["name"]
    try:
        yield Lab(cli, name)
    finally:
        cli.run("down", name)
        assert tear_down(cli) == []


@pytest.fixture
def lab(running: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Lab, Opened]]:
    """It by its command line, and opened; all that a bench may switch is at the end what it was."""
    with opened(running, monkeypatch) as inside:
        before = settings(inside)
        yield running, inside
        assert settings(inside) == before


def settings(inside: Opened) -> dict[str, Any]:
    """All that a bench may switch, and the interfaces of VMs."""
    found: dict[str, Any] = {}
    for host in ("host1", "host2"):
        found[host] = [(each["offloads"], each["vmq"]) for each in nic.show(inside, host)]
    for node in ("fabric", "host1", "host2", "blue1", "blue2"):
        with in_netns(inside.netns(node)):
            for _, interface in socket.if_nameindex():
                if not interface.startswith(("lo", "mgmt")):
                    found[f"{node} {interface}"] = subprocess.check_output(("ethtool", "-k", interface))
    return found


def connections(inside: Opened) -> bytes:
    """TCP connections of the VM that sends."""
    with in_netns(inside.netns("blue1")):
        return subprocess.check_output(("ss", "-tnH"))


def recorded(path: Path) -> list[Run]:
    with reading(path) as results:
        runs = [results.load(head.id) for head in results.heads()]
    return [run for run in runs if run]


def test_a_plan_is_measured_and_recorded_and_a_refused_cell_named(
    lab: tuple[Lab, Opened], tmp_path: Path
) -> None:
    cli, name = lab[0].cli, lab[0].name
    plan, path = tmp_path / "plan.yaml", tmp_path / "results.db"
    plan.write_text(PLAN)
    done = cli.run("bench", name, "--plan", plan, "--results", path, "-f", "json")
    assert done.returncode == 3, done.stderr
    assert b"1 of 3 cells were not measured to their end" in done.stderr
    refused = b"host1 has one NIC, so its team is none, not Lacp/Dynamic"
    assert b"testbed: team=Lacp/Dynamic is not measured: " + refused in done.stderr  # before anything is
    assert b"  team=Lacp/Dynamic: " + refused in done.stderr
    first, second = recorded(path)
    assert (first.batch, first.label) == (second.batch, "plan")
    wanted = (("modern,nvgre=off", "aggregated", False, 4), ("modern", "frames", True, 6))
    for run, chosen, own in ((first, wanted[0], TCP), (second, wanted[1], UDP)):
        of = run.fingerprint.settings
        assert (of["nic"], of["wire"], of["guest_lso"], of["ip"]) == chosen
        for each in ("wnv", "vxlan", "bare"):
            names = {sample.metric for sample in run.samples if sample.path == each and sample.object == ""}
            assert names == COMMON | own, each
        assert {METRICS[metric.name] for metric in run.metrics} == {*run.metrics}
    assert "nvgre" not in str(first.fingerprint.settings["offloads"])
    assert "nvgre-lso" in str(second.fingerprint.settings["offloads"])
    queues = {sample.object: sample.value for sample in first.samples if sample.metric == "queue_packets"}
    assert set(queues) == {f"host{host}/nic1/queue{queue}" for host in (1, 2) for queue in range(4)}
    assert sum(queues.values()) > 100
    ways = {sample.object for sample in second.samples if sample.metric == "throughput"}
    assert ways == {"", "forward", "reverse"}
    assert second.fingerprint.tools["libiperf"][0] == "3"


def test_the_cells_of_a_plan_are_listed_and_nothing_is_run(lab: tuple[Lab, Opened], tmp_path: Path) -> None:
    cli, name = lab[0].cli, lab[0].name
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN)
    found = cli.json("bench", name, "--plan", plan, "--list", "--results", tmp_path / "none.db")
    assert [bool(each["refused"]) for each in found["cells"]] == [False, True, False]
    assert [*tmp_path.iterdir()] == [plan]
    assert "not Lacp/Dynamic" in cli.ok("bench", name, "--plan", plan, "--list")
    assert "| cell | streams |" in cli.ok(
        "bench", name, "--streams", 1, "--streams", 2, "--list", "-f", "markdown"
    )


@pytest.mark.skipif(bool(ovs.missing()), reason=ovs.missing())
def test_open_vswitch_is_measured_beside_what_has_as_little(lab: tuple[Lab, Opened], tmp_path: Path) -> None:
    words = (
        "--nic",
        "basic",
        "--guest-lso",
        "off",
        "--baseline",
        "ovs",
        "--results",
        tmp_path / "results.db",
    )
    quick = ("--seconds", 1, "--repeat", 1, "--warm-up", 0, "--no-latency")
    found = lab[0].cli.json("bench", lab[0].name, *words, *quick)
    assert {run["path"]: run["gigabits_per_second"] > 0.01 for run in found["runs"]} == {
        "wnv": True,
        "ovs": True,
    }
    assert found["ratio"]["ovs"] > 0
    assert found["left_out"] == {}
    (run,) = recorded(tmp_path / "results.db")
    assert run.fingerprint.tools["openvswitch"] == ovs.version()
    assert {sample.path for sample in run.samples if sample.metric == "switch_cpu" and sample.value} >= {
        "ovs"
    }


SWITCHED = ("--nic", "basic", "--wire", "aggregated", "--guest-lso", "off", "--baseline", "bare")


def test_a_cell_that_fails_is_not_recorded_and_all_is_put_back(
    lab: tuple[Lab, Opened], tmp_path: Path
) -> None:
    cli, name = lab[0].cli, lab[0].name
    words = ("bench", name, *SWITCHED, "--congestion-control", "vegan", "--results", tmp_path / "results.db")
    assert "unable to set TCP_CONGESTION" in cli.refused(3, *words)
    assert [*tmp_path.iterdir()] == []
    assert "'nowhere'" in cli.refused(2, "bench", name, "--nic", "nowhere")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_switched_is_put_back_after_an_interrupt(
    lab: tuple[Lab, Opened], number: signal.Signals
) -> None:
    cli, name = lab[0].cli, lab[0].name
    before = settings(lab[1])
    process = cli.start("bench", name, *SWITCHED, "--seconds", 30)
    with cli.ended(process):
        until(lambda: connections(lab[1]), "nothing is measured")
        switched = settings(lab[1])
        assert "blue1 bench0" in switched
        assert switched["host1"] != before["host1"]
        assert switched["blue1 eth0"] != before["blue1 eth0"]
        assert switched["host1 nic1"] != before["host1 nic1"]
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 128 + number
