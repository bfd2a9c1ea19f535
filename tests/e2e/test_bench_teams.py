"""A bench that switches teams: each is measured and recorded; the lab has its own again, however it ends."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import TOPOLOGIES, Cli
from support.labs import BOOT, Lab
from support.vmm_lab import opened
from support.waiting import until
from testbed.lab import link, nic, team
from testbed.lab.lab import Lab as Opened
from testbed.results.store import reading

pytestmark = pytest.mark.e2e
TEAM = TOPOLOGIES / "team.yaml"
OWN, LACP = "SwitchIndependent/Dynamic", "Lacp/TransportPorts"
RATE = ("--set", "rate=100mbit")
DROPS = (*BOOT, "tx-refused", "rx-overrun", "pa-unreachable")  # hosts are started anew; at full speed
PLAN = f"""
seconds: 1
warm_up: 0
repeat: 1
latency: false
matrix: {{team: [{LACP}, none], streams: 8}}
expect:
  - {{of: {{team: {LACP}}}, against: {{team: none}}, at_least: 0.001, at_most: 1000}}
  - {{of: {{team: none}}, against: {{team: {LACP}}}, at_least: 1000}}
"""


def test_teams_are_switched_and_put_back(
    cli: Cli, tmp_path: Path, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(cli, TEAM, *RATE, may_drop=DROPS) as lab:
        cli.ok("nic", lab.name, "host1", "--nic", "nic2", "set", "nvgre=off")
        cli.ok("link", lab.name, "host2:nic1", "set", "loss=0.01%")
        before = state(lab, monkeypatch)
        listed_and_refused(lab)
        measured_recorded_and_judged(lab, tmp_path)
        assert state(lab, monkeypatch) == before
        process = switching(lab)
        with cli.ended(process):
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGTERM
        assert state(lab, monkeypatch) == before
        killed_and_put_back_by_apply(lab)


def state(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The lab's record, and what can be changed by hand."""
    with opened(lab, monkeypatch) as inside:
        return [inside.plan, *(of_host(inside, host) for host in ("host1", "host2"))]


def of_host(inside: Opened, host: str) -> list[Any]:
    told = team.show(inside, host)
    ways = [link.show(inside, f"{host}:{name}")["ways"].values() for name in ("nic1", "nic2")]
    return [
        (told["mode"], told["algorithm"], [each["state"] for each in told["members"]]),
        [(each["name"], each["offloads"], each["rss"]) for each in nic.show(inside, host)],
        [(way["rate"], way["loss"]) for cable in ways for way in cable],
    ]


def listed_and_refused(lab: Lab) -> None:
    words = ("bench", lab.name, "--team", LACP, "--team", OWN, "--streams", 1, "--streams", 2)
    found = lab.cli.json(*words, "--list")["cells"]
    assert [(each["cell"]["team"], each["cell"].get("streams", 1)) for each in found] == [
        (OWN, 1),  # as the lab is
        (OWN, 2),
        (LACP, 1),
        (LACP, 2),
    ]
    assert {each["refused"] for each in found} == {""}
    refused = lab.cli.refused(2, "bench", lab.name, "--team", "Lacp")
    assert "team 'Lacp': write none, or MODE/ALGORITHM" in refused


def measured_recorded_and_judged(lab: Lab, folder: Path) -> None:
    plan, path = folder / "plan.yaml", folder / "results.db"
    plan.write_text(PLAN)
    done = lab.cli.run("bench", lab.name, "--plan", plan, "--results", path, "-f", "json")
    assert done.returncode == 1, done.stderr
    assert b"testbed: 1 of 2 expectations are not met" in done.stderr
    told = json.loads(done.stdout)
    first, second = told["expected"]
    assert (first["met"], second["met"]) == (True, False)
    assert first["ratio"] * second["ratio"] == pytest.approx(1, rel=0.05)
    with reading(path) as results:
        runs = [run for head in results.heads() if (run := results.load(head.id))]
    members = {
        str(run.fingerprint.settings["team"]): {
            sample.object for sample in run.samples if sample.metric == "member_throughput" and sample.value
        }
        for run in runs
    }
    assert members == {LACP: {"host1/nic1", "host1/nic2"}, "none": set()}
    assert len({run.fingerprint.topology_hash for run in runs}) == 2


def switching(lab: Lab) -> subprocess.Popen[bytes]:
    """A bench that is just about to give the hosts another team: it is on record, and little else is done."""
    words = ("--team", LACP, "--seconds", 60, "--warm-up", 0, "--no-latency")
    process = lab.cli.start("bench", lab.name, *words)
    record = lab.cli.state / "labs" / lab.name / "plan.json"

    def begins() -> bool:
        return b"TransportPorts" in record.read_bytes() or process.poll() is not None

    until(begins, "no team is switched", 30.0)
    assert process.poll() is None, process.communicate()
    return process


def killed_and_put_back_by_apply(lab: Lab) -> None:
    process = switching(lab)
    with lab.cli.ended(process):
        process.kill()
        process.communicate(timeout=10)
    assert [host["name"] for host in lab.cli.inspect(lab.name)["hosts"]] == ["host1", "host2"]
    changes = lab.cli.json("apply", lab.name, TEAM, *RATE)["changes"]
    assert changes["hosts"]["changed"] == ["host1", "host2"]
    assert lab.cli.json("check", lab.name)["ok"]
