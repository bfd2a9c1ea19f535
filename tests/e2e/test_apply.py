"""apply changes a running lab and leaves the traffic of what stays alone."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import topologies
from support.cli import TWO_HOSTS, Cli
from support.labs import BOOT
from support.topologies import blue

pytestmark = pytest.mark.e2e


def files(folder: Path) -> tuple[Path, Path]:
    """Two hosts and three VMs; then a third host on a second switch, a VM on it, and one VM less."""
    hosts = {"host1": "tor1", "host2": "tor1"}
    staying = [blue("blue1", "host1", 5), blue("blue2", "host2", 6)]
    before = topologies.write(folder, "growing", hosts, [*staying, blue("blue3", "host2", 7)])
    after = topologies.write(
        folder, "growing", {**hosts, "host3": "tor2"}, [*staying, blue("blue4", "host3", 8)], ("tor1, tor2",)
    )
    return before, after


def test_apply_while_a_ping_runs(each_cli: Cli, tmp_path: Path, running: Callable[..., Any]) -> None:
    before, after = files(tmp_path)
    with running(each_cli, before, may_drop=tuple(BOOT)) as lab:
        first = each_cli.inspect(lab.name)
        dry = each_cli.json("apply", lab.name, after, "--dry-run")
        assert dry["applied"] is False
        assert changed_only(each_cli.inspect(lab.name)) == changed_only(first)
        ping = each_cli.start(
            "exec",
            lab.name,
            "blue1",
            "--",
            "ping",
            "-i",
            "0.05",
            "-w",
            "60",
            "10.0.0.6",
            start_new_session=True,
        )
        with each_cli.ended(ping):
            assert ping.stdout
            assert b"PING" in ping.stdout.readline()
            done = each_cli.json("apply", lab.name, after)
            assert done == {**dry, "applied": True}
            assert each_cli.json("check", lab.name)["ok"]
            os.killpg(ping.pid, signal.SIGINT)
            said = ping.communicate(timeout=10)[0].decode()
        sent, received = re.search(r"(\d+) packets transmitted, (\d+) received", said).groups()  # type: ignore[union-attr]
        assert int(sent) > 20
        assert int(sent) - int(received) <= 1, said[-300:]
        second = each_cli.inspect(lab.name)
        assert [vm["name"] for vm in second["vms"]] == ["blue1", "blue2", "blue4"]
        assert [host["name"] for host in second["hosts"]] == ["host1", "host2", "host3"]
        for was, now in zip(first["hosts"], second["hosts"], strict=False):
            assert pids(was) == pids(now)  # what stays was not started anew
            assert was["provider_addresses"] == now["provider_addresses"]
        refused = each_cli.refused(2, "exec", lab.name, "blue3", "--", "true")
        assert "has no node 'blue3'" in refused
        assert each_cli.ok("apply", lab.name, after) == "nothing to change\n"
        back = each_cli.json("apply", lab.name, before)
        assert (back["changes"]["vms"]["added"], back["changes"]["vms"]["removed"]) == (["blue3"], ["blue4"])
        assert each_cli.json("check", lab.name)["ok"]
        assert [host["name"] for host in each_cli.inspect(lab.name)["hosts"]] == ["host1", "host2"]


def changed_only(found: dict[str, Any]) -> dict[str, Any]:
    """What ``inspect`` shows without what changes by itself: memory, and how far host and VMM are."""
    for node in (*found["hosts"], found["vmm"]):
        for process in node["processes"]:
            process.pop("pss_bytes", None)
    found["vmm"].pop("revision")
    for host in found["hosts"]:
        host["vmm"].pop("revision")
    return found


def pids(host: dict[str, Any]) -> set[int]:
    """Process ids of a host."""
    return {process["pid"] for process in host["processes"]}


def test_apply_of_a_bad_file_changes_nothing(cli: Cli, tmp_path: Path, running: Callable[..., Any]) -> None:
    before, after = files(tmp_path)
    with running(cli, before) as lab:
        first = changed_only(cli.inspect(lab.name))
        after.write_text(after.read_text().replace("host: host3", "host: host9"))
        assert "host9" in cli.refused(2, "apply", lab.name, after)
        assert changed_only(cli.inspect(lab.name)) == first
        assert "no lab called 'other'" in cli.refused(2, "apply", "other", before)


def test_what_is_switched_while_it_runs(cli: Cli, tmp_path: Path, running: Callable[..., Any]) -> None:
    """A NIC's profile, and then its cable: the host and its VMs stay."""
    whole = TWO_HOSTS.read_text()
    moved = tmp_path / "moved.yaml"
    cable, switches = '["host1:nic1", tor1]', "switches: [tor1]"
    assert cable in whole
    assert switches in whole
    trunk = "\n  - endpoints: [tor1, tor2]\n"
    moved.write_text(
        whole.replace(cable, '["host1:nic1", tor2]').replace(switches, "switches: [tor1, tor2]") + trunk
    )
    with running(cli, TWO_HOSTS, may_drop=(*BOOT, "pa-unreachable")) as lab:
        before = [pids(host) for host in cli.inspect(lab.name)["hosts"]]
        done = cli.json("apply", lab.name, TWO_HOSTS, "--set", "nic=r2")["changes"]
        assert done["nics"] == ["host1:nic1", "host2:nic1"]
        assert not any(any(done[kind].values()) for kind in ("hosts", "vms", "cables"))
        for host in ("host1", "host2"):
            (nic,) = cli.json("nic", lab.name, host)
            assert "nvgre" not in nic["offloads"]["enabled"]
        assert cli.json("check", lab.name)["ok"]
        done = cli.json("apply", lab.name, moved)["changes"]
        assert done["nics"] == ["host1:nic1", "host2:nic1"]
        assert done["cables"]["changed"] == ["host1:nic1"]
        assert cli.json("check", lab.name)["ok"]
        assert [pids(host) for host in cli.inspect(lab.name)["hosts"]] == before
        assert cli.json("link", lab.name, "host1:nic1")["switch"] == "tor2"
