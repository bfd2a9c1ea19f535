"""What a VM's adapter does for it: in the topology file, on a running lab, and wherever the VM is."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support import offload_truth as truth
from support import topologies
from support.cli import Cli
from support.offload_truth import Tap
from support.vmm_lab import opened
from testbed.lab.lab import Lab as Opened
from testbed.testing import streams

pytestmark = pytest.mark.e2e

BLUE2 = "10.0.0.6"
DATA = random.Random(1).randbytes(2_000_000)
MTU = 1458
MAY_DROP = ("no-port", "pa-not-local", "no-provider-address")  # what comes to the old host meanwhile
TASKS = ["lso", "tx-checksum", "rx-checksum", "rsc"]
PORTS = iter(range(7000, 8000))


class Got(NamedTuple):
    """Of a stream, what there was among the packets that the receiver's stack got."""

    supers: bool
    open_checksums: bool
    vouched_for: bool


def stream(inside: Opened, sender: str) -> Got:
    """A real one to blue2, every byte of which has to arrive, and in packets that its adapter takes."""
    tap = Tap(inside.netns("blue2"), "eth0")
    try:
        ends = inside.netns(sender), inside.netns("blue2")
        assert streams.copy(*ends, BLUE2, DATA, next(PORTS)) == DATA
        packets = [each for each in tap.received() if truth.is_tcp(each.frame)]
    finally:
        tap.close()
    assert sum(len(truth.data_of(each.frame)) for each in packets) >= len(DATA)
    for each in packets:
        assert each.is_super or len(each.frame) <= MTU + 14
    return Got(
        any(each.is_super for each in packets),
        any(each.has_open_checksum for each in packets),
        any(each.vnet[0] & 2 for each in packets),
    )


def counters(inside: Opened, name: str) -> dict[str, int]:
    """A port's, wherever it is."""
    records = [each for host in inside.plan.hosts for each in inside.ask(host.name, "counters")["counters"]]
    (found,) = (each["fields"] for each in records if each["kind"] == "port" and each["object"] == name)
    assert isinstance(found, dict)
    return found


def sent_supers(inside: Opened, name: str) -> bool:
    """Whether a VM hands over super-packets."""
    before = counters(inside, f"{name}:eth0")
    stream(inside, name)
    after = counters(inside, f"{name}:eth0")
    size, number = (after[f"from_vm_{what}"] - before[f"from_vm_{what}"] for what in ("bytes", "packets"))
    return size / number > MTU + 14


def receives(cli: Cli, inside: Opened, name: str) -> None:
    """Each of the receive side's settings, from a VM of the same host and through the tunnel."""

    def become(*settings: str) -> dict[str, Any]:
        done: dict[str, Any] = cli.json("vnic", name, "blue2:eth0", "set", *settings)
        return done

    def seen() -> list[Got]:
        return [stream(inside, sender) for sender in ("blue1", "blue3")]

    def grown(what: str) -> int:
        return counters(inside, "blue2:eth0")[f"to_vm_software_{what}"]

    assert all(got.supers and got.open_checksums for got in seen())
    assert (grown("segments"), grown("checksums")) == (0, 0)
    assert become("rsc=off")["offloads"] == {"supported": TASKS, "enabled": TASKS[:3]}
    assert [(got.supers, got.open_checksums) for got in seen()] == [(False, True)] * 2
    segments = grown("segments")
    assert segments >= 2 * len(DATA) // MTU
    assert grown("checksums") == 0
    become("rsc=on", "rx-checksum=off")  # which ends super-packets too
    assert seen() == [Got(False, False, False)] * 2
    assert grown("checksums") >= 2 * len(DATA) // MTU
    become("rx-checksum=on")
    assert all(got.supers for got in seen())


def test_the_receive_side_of_an_adapter(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vms = [topologies.blue(f"blue{n}", host, n + 4) for n, host in ((1, "host1"), (2, "host2"), (3, "host2"))]
    file = topologies.write(tmp_path, "vnic", {"host1": "tor1", "host2": "tor1"}, vms)
    with running(cli, file, may_drop=MAY_DROP) as lab, opened(lab, monkeypatch) as inside:
        receives(cli, inside, lab.name)
        cli.json("vnic", lab.name, "blue2:eth0", "set", "rsc=off")
        cli.json("migrate", lab.name, "blue2", "--to", "host1")
        shown = cli.json("vnic", lab.name, "blue2:eth0")
        assert (shown["host"], shown["offloads"]["enabled"]) == ("host1", TASKS[:3])
        assert not stream(inside, "blue1").supers
        assert "blue2:eth0" in cli.refused(2, "vnic", lab.name, "blue9:eth0")
        assert "rss" in cli.refused(2, "vnic", lab.name, "blue2:eth0", "set", "rss=off", "lso=off")
        assert cli.json("vnic", lab.name, "blue2:eth0")["offloads"]["enabled"] == TASKS[:3]


def test_what_the_topology_file_says_and_the_transmit_side(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vms = [
        topologies.blue("blue1", "host1", 5).replace("]}]}", "], offloads: {lso: off}}]}"),
        topologies.blue("blue2", "host2", 6).replace("]}]}", "], supports: {rsc: off}}]}"),
    ]
    file = topologies.write(tmp_path, "vnic", {"host1": "tor1", "host2": "tor1"}, vms)
    with running(cli, file) as lab, opened(lab, monkeypatch) as inside:
        assert not stream(inside, "blue1").supers
        refused = cli.refused(2, "vnic", lab.name, "blue2:eth0", "set", "rsc=on")
        assert "does not support rsc" in refused
        assert not sent_supers(inside, "blue1")
        for settings, sends in (
            (["lso=on"], True),
            (["tx-checksum=off"], False),
            (["tx-checksum=on"], True),
            (["lso=off"], False),
        ):
            cli.json("vnic", lab.name, "blue1:eth0", "set", *settings)
            assert sent_supers(inside, "blue1") is sends
    vms[1] = vms[1].replace("off}}]}", "off}, offloads: {rsc: on}}]}")
    file = topologies.write(tmp_path, "vnic", {"host1": "tor1", "host2": "tor1"}, vms)
    assert "vms[1].vnics[0].offloads: the adapter does not support rsc" in cli.refused(2, "validate", file)
