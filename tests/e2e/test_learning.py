"""Addresses that VMs take by themselves: learned everywhere, by rule, and not at all where that is off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.capture import captured, port_of
from support.cli import FOUR_HOSTS, SOURCE, TWO_HOSTS, Cli
from support.engines import DOCKER_IS_LONG
from support.labs import Lab
from support.vmm_lab import opened, wait_equal
from support.waiting import until

pytestmark = pytest.mark.e2e

DHCP, CLUSTER = SOURCE / "topologies" / "dhcp.yaml", SOURCE / "topologies" / "cluster.yaml"


def answers(lab: Lab, source: str, address: str) -> bool:
    ping = ("ping", "-c", 3, "-i", "0.2", "-W", 1, address)
    return lab.cli.inside(lab.name, source, *ping).returncode == 0


def records(lab: Lab, address: str) -> set[tuple[str, str, str]]:
    """Host, type and VM of each record of an address."""
    found = lab.cli.json("policy", lab.name, "lookup-records")
    return {
        (each["host"], each["type"], each["vm_name"])
        for each in found
        if each["customer_address"] == address and each["virtual_subnet_id"] == 5001
    }


def told(lab: Lab, kind: str = "customer-address") -> list[tuple[str, str, str]]:
    """Reason, address and MAC of the VMM's events."""
    events = lab.cli.json("vmm", lab.name, "events", "--kind", kind)
    fields = [each["fields"] for each in events]
    return [(each.get("reason", ""), each["ca"], each["mac"]) for each in fields]


@DOCKER_IS_LONG
def test_a_vm_that_changes_its_address_is_found_there_by_all(
    each_cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(each_cli, FOUR_HOSTS) as lab, opened(lab, monkeypatch) as inside:
        change = "ip addr add 10.0.0.50/24 dev eth0; ip addr del 10.0.0.5/24 dev eth0"
        each_cli.output(lab.name, "blue1", "sh", "-c", change)
        everywhere = {(f"host{number}", "Dynamic", "blue1") for number in range(1, 5)}
        until(lambda: records(lab, "10.0.0.50") == everywhere, "the new address is not known everywhere")
        until(lambda: not records(lab, "10.0.0.5"), "the old address is still known")
        assert answers(lab, "blue2", "10.0.0.50")
        assert answers(lab, "blue4", "10.0.0.50")  # of another subnet
        assert not answers(lab, "blue2", "10.0.0.5")
        mac = next(vm["mac"] for vm in each_cli.inspect(lab.name)["vms"] if vm["name"] == "blue1")
        assert [("Added", "10.0.0.50", mac), ("Deleted", "10.0.0.5", mac)] == told(lab)
        pool = next(each for each in each_cli.json("vmm", lab.name, "pools") if each["name"] == "5001-ipv4")
        states = {each["address"]: (each["state"], each["owner"]) for each in pool["addresses"]}
        assert states["10.0.0.50"] == ("learned", "blue1:eth0")
        assert "10.0.0.5" not in states
        each_cli.output(lab.name, "blue1", "ip", "addr", "add", "fd00::50/64", "dev", "eth0")
        until(lambda: len(records(lab, "fd00::50")) == 4, "the IPv6 address is not known everywhere")
        wait_equal(inside)


def test_without_learning_the_vm_is_lost(cli: Cli, running: Callable[..., Any]) -> None:
    with running(cli, TWO_HOSTS, "--set", "learning=false") as lab:
        change = "ip addr add 10.0.0.50/24 dev eth0; ip addr del 10.0.0.5/24 dev eth0"
        cli.output(lab.name, "blue1", "sh", "-c", change)
        assert not answers(lab, "blue2", "10.0.0.50")
        assert not records(lab, "10.0.0.50")
        assert records(lab, "10.0.0.5")


def test_what_is_not_learned(cli: Cli, running: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "silent.yaml"
    text = TWO_HOSTS.read_text()
    file.write_text(text.replace("  - name: blue2\n", "  - name: blue2\n    announce: false\n"))
    with running(cli, file) as lab:
        cli.output(lab.name, "blue2", "ip", "addr", "add", "10.0.0.60/24", "dev", "eth0")
        cli.output(lab.name, "blue1", "ip", "addr", "add", "192.0.2.9/24", "dev", "eth0")
        cli.output(lab.name, "blue1", "ip", "addr", "add", "10.0.0.6/32", "dev", "eth0")  # blue2's
        kinds = ("address-refused", "address-conflict")
        for kind, address in zip(kinds, ("192.0.2.9", "10.0.0.6"), strict=True):
            until(lambda kind=kind: bool(_host_events(lab, kind)), kind)  # type: ignore[misc]
            assert {each["fields"]["ca"] for each in _host_events(lab, kind)} == {address}
        assert {("", "10.0.0.6")} == {each[:2] for each in told(lab, "address-conflict")}
        assert records(lab, "10.0.0.6") == {("host1", "Static", "blue2"), ("host2", "Static", "blue2")}
        assert not records(lab, "192.0.2.9")
        assert not records(lab, "10.0.0.60")  # nobody was told
        announce = ("arping", "-c", 1, "-U", "-I", "eth0", "10.0.0.60")
        cli.inside(lab.name, "blue2", *announce)
        until(lambda: len(records(lab, "10.0.0.60")) == 2, "what is announced by hand is not learned")


def _host_events(lab: Lab, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lab.cli.json("events", lab.name, "--kind", kind)["events"]
    return found


def test_a_virtual_address_moves_between_two_vms(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(cli, CLUSTER) as lab, opened(lab, monkeypatch) as inside:

        def take(node: str, verb: str) -> None:
            cli.output(lab.name, node, "ip", "addr", verb, "10.0.0.200/24", "dev", "eth0")

        take("node1", "add")
        until(lambda: len(records(lab, "10.0.0.200")) == 3, "the address is not known")
        assert answers(lab, "client", "10.0.0.200")
        take("node2", "add")  # both have it: the older one keeps it
        until(lambda: bool(told(lab, "address-conflict")), "nobody notices")
        assert {name for _, _, name in records(lab, "10.0.0.200")} == {"node1"}
        take("node1", "del")
        take("node2", "del")
        take("node2", "add")
        until(lambda: {vm for _, _, vm in records(lab, "10.0.0.200")} == {"node2"}, "it has not moved")
        assert answers(lab, "client", "10.0.0.200")
        wait_equal(inside)
        _disk(lab)


def _disk(lab: Lab) -> None:
    """Both nodes have one disk, and a lock on it holds against the other."""
    disk = "/run/shared-disk/quorum"
    lab.cli.output(lab.name, "node1", "sh", "-c", f"printf vote >{disk}")
    assert lab.cli.output(lab.name, "node2", "head", "-c", "4", disk) == "vote"
    holder = lab.cli.start("exec", lab.name, "node1", "--", "flock", disk, "sh", "-c", "echo held; sleep 3")
    with lab.cli.ended(holder):
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        assert lab.cli.inside(lab.name, "node2", "flock", "-n", disk, "true").returncode == 1
        assert holder.wait(20) == 0
        assert lab.cli.inside(lab.name, "node2", "flock", "-n", disk, "true").returncode == 0
    assert lab.cli.inside(lab.name, "client", "test", "-e", disk).returncode == 1


@pytest.mark.parametrize("multicast", ["false", "true"])
def test_dhcp_across_hosts(
    cli: Cli,
    running: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    multicast: str,
) -> None:
    with running(cli, DHCP, "--set", f"multicast={multicast}", "--set", "clients=4") as lab:
        leases = {
            (vm["name"], address)
            for vm in cli.inspect(lab.name)["vms"]
            for address in vm["addresses"]
            if "server" not in vm["name"]
        }
        assert len(leases) == 2 * (4 + 2), leases
        four = {name: address for name, address in leases if "." in address}
        assert four["blue4"] not in {four[name] for name in ("blue1", "blue2", "blue3")}
        until(lambda: len(records(lab, four["blue4"])) == 4, "the lease is not known everywhere")
        assert answers(lab, "blue1", four["blue4"])
        assert answers(lab, "blue-server", four["blue2"])
        assert answers(lab, "red1", four["red2"])
        hows = {
            each["fields"]["how"]
            for each in cli.json("vmm", lab.name, "events", "--kind", "customer-address")
            if each["fields"]["ca"] in four.values()
        }
        assert hows == {"dhcp"}
        assert _copies_on_the_cable(lab, tmp_path, four["blue2"]) == (1 if multicast == "true" else 3)
        with opened(lab, monkeypatch) as inside:
            wait_equal(inside)


def _copies_on_the_cable(lab: Lab, folder: Path, last: str) -> int:
    """Copies of one DISCOVER of blue1 on its host's cable; VMs of blue are on four hosts."""
    file = folder / "cable.pcap"
    lab.cli.output(lab.name, "blue1", "sh", "-c", "kill $(pidof dhclient); ip -4 addr flush dev eth0")
    with captured(lab, port_of(lab, "host1", "nic1"), file, "ip proto 47", "blue-server", last):
        lab.cli.output(lab.name, "blue1", "sh", "-c", "rm -f /var/lib/dhcp/*; dhclient -4 -1 eth0")
    return file.read_bytes().count(b"\x63\x82\x53\x63\x35\x01\x01")  # cookie, message type DISCOVER


def test_exec_that_fails_ends_up(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "failing.yaml"
    text = TWO_HOSTS.read_text()
    file.write_text(text.replace("  - name: blue2\n", "  - name: blue2\n    exec: ['true', 'ls /nowhere']\n"))
    said = cli.refused(3, "up", file, "--engine", "namespaces")
    assert "blue2: exec:" in said
    assert "ls /nowhere: exit code 2" in said
    assert cli.names() == []
