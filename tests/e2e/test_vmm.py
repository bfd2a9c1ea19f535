"""The VMM of a lab: one owner of the policy, hosts that follow it, whatever breaks in between."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import TWO_HOSTS, Cli
from support.engines import DOCKER_IS_LONG
from support.labs import Lab
from support.vmm_lab import kill, opened, owners_table, table, vmm_process, wait_equal
from testbed.errors import BadInput
from testbed.lab.lab import Lab as Opened

pytestmark = pytest.mark.e2e

NEW = {
    "customer_address": "10.0.0.77",
    "virtual_subnet_id": 5001,
    "mac_address": "02:00:00:00:00:77",
    "provider_address": "192.168.0.2",
}
BLUE2 = ("--customer-address", "10.0.0.6", "--virtual-subnet-id", 5001)
SECONDS = 20.0
ASK = """
import http.client, sys
address, token, path = sys.argv[1:]
connection = http.client.HTTPConnection(address, 8500, timeout=2)
try:
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    print(connection.getresponse().status)
except OSError as error:
    print(type(error).__name__)
"""


def answers(lab: Lab, source: str = "blue1", address: str = "10.0.0.6") -> bool:
    """Whether a VM gets an answer from an address."""
    ping = ("ping", "-c", 3, "-i", "0.2", "-W", 1, address)
    return lab.cli.inside(lab.name, source, *ping).returncode == 0


def unsynchronized(lab: Lab) -> list[tuple[str, str]]:
    found = lab.cli.json("policy", lab.name, "lookup-records")
    return [(each["host"], each["customer_address"]) for each in found if each["unsynchronized"]]


def test_the_vmm_owns_the_policy(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a VM uses would be learned again.
    with running(cli, TWO_HOSTS, "--set", "learning=false") as lab, opened(lab, monkeypatch) as inside:
        wait_equal(inside)
        assert answers(lab)
        done = cli.json("policy", lab.name, "lookup-records", "remove", *BLUE2)["changes"]
        assert [(each["host"], each["new"]) for each in done] == [("vmm", None)]
        assert not answers(lab)  # on all hosts when the verb returns
        assert "10.0.0.6" in cli.refused(2, "policy", lab.name, "lookup-records", "remove", *BLUE2)
        said = cli.refused(2, "policy", lab.name, "lookup-records", "remove", "--host", "host1", *BLUE2)
        assert "--local" in said
        back = [
            word
            for name in ("customer_address", "virtual_subnet_id", "mac_address", "provider_address")
            for word in ("--" + name.replace("_", "-"), done[0]["old"][name])
        ]
        cli.ok("policy", lab.name, "lookup-records", "add", *back)
        assert answers(lab)
        wait_equal(inside)


def test_a_local_change_is_unsynchronized_and_undone_by_a_resync(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(cli, TWO_HOSTS) as lab, opened(lab, monkeypatch) as inside:
        local = ("policy", lab.name, "lookup-records", "set", "--local", *BLUE2, "--context", "by hand")
        assert "--host" in cli.refused(2, *local)
        cli.ok(*local, "--host", "host1")
        assert unsynchronized(lab) == [("host1", "10.0.0.6")]
        assert cli.ok("vmm", lab.name, "resync") == "host1, host2: in step with the VMM\n"
        assert unsynchronized(lab) == []
        cli.ok(*local, "--host", "host1")
        assert cli.ok("apply", lab.name, TWO_HOSTS) == "~ policy host1\n"
        wait_equal(inside)
        assert unsynchronized(lab) == []


def test_a_killed_vmm_comes_back_and_traffic_never_stops(
    each_cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(each_cli, TWO_HOSTS) as lab, opened(lab, monkeypatch) as inside:
        inside.vmm().post("/lookup-records", NEW)
        revision = inside.vmm().get("/status")["revision"]
        kill(vmm_process(lab))
        assert answers(lab)
        end = time.monotonic() + SECONDS
        while (told := _status(inside)) is None:
            assert time.monotonic() < end, "the VMM does not come back"
            time.sleep(0.05)
        assert told["revision"] >= revision
        inside.vmm().delete("/lookup-records", customer_address="10.0.0.77", virtual_subnet_id=5001)
        wait_equal(inside)
        assert all(inside.ask(host.name, "status")["vmm"]["connected"] for host in inside.plan.hosts)


def _status(lab: Opened) -> Any:
    from testbed.errors import LabError

    try:
        return lab.vmm().get("/status")
    except LabError:
        return None


def test_a_host_that_was_cut_off_catches_up(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(cli, TWO_HOSTS) as lab, opened(lab, monkeypatch) as inside:
        assert inside.plan.vmm
        link = next(each.interface for each in inside.plan.vmm.links if each.node == "host1")
        cli.ok("exec", lab.name, "fabric", "--", "ip", "link", "set", link, "down")
        for number in range(100, 120):
            inside.vmm().post("/lookup-records", {**NEW, "customer_address": f"10.0.0.{number}"})
        inside.vmm().delete("/lookup-records", customer_address="10.0.0.110", virtual_subnet_id=5001)
        assert table(inside, "host1") != owners_table(inside, "host1")
        assert answers(lab)
        cli.ok("exec", lab.name, "fabric", "--", "ip", "link", "set", link, "up")
        wait_equal(inside)


def test_tokens_and_the_management_network(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(cli, TWO_HOSTS, may_drop=("not-ip",)) as lab, opened(lab, monkeypatch) as inside:
        address = inside.plan.vmm.address if inside.plan.vmm else ""
        folder = inside.folder("vmm")
        token = (folder / "host-tokens" / "host1").read_text().strip()

        def status(node: str, path: str, given: str = token) -> str:
            ask = (sys.executable, "-c", ASK, address, given, path)
            return cli.output(lab.name, node, *ask).strip()

        assert status("host1", "/v1/hosts/host1/policy") == "200"
        assert status("host1", "/v1/hosts/host2/policy") == "403"
        assert status("host1", "/v1/lookup-records") == "403"
        assert status("host1", "/v1/hosts/host1/policy", "host1.wrong") == "401"
        assert status("blue1", "/v1/status") not in ("200", "401")  # no VM reaches it at all
        secret = {path: path.stat().st_mode & 0o077 for path in _files(folder)}
        assert not any(secret.values()), secret


def _files(folder: Path) -> list[Path]:
    return [folder / "admin-token", *(folder / "host-tokens").iterdir(), folder / "vmm.sqlite"]


@DOCKER_IS_LONG
def test_vms_come_and_go(each_cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    cli = each_cli
    with running(cli, TWO_HOSTS, may_drop=("no-provider-address", "no-port", "port-refused")) as lab:
        add = ("vm", lab.name, "add", "new1", "--host", "host2", "--virtual-subnet-id", 5001)
        made = cli.json(*add)["adapters"][0]
        assert made["addresses"] == ["10.0.0.2/24", "fd00::2/64"]
        assert answers(lab, address="10.0.0.2")
        assert answers(lab, address="fd00::2")
        assert "has a node 'new1' already" in cli.refused(2, *add)
        changed = cli.json("vm", lab.name, "set-address", "new1", "10.0.0.99")["adapters"][0]
        assert changed["addresses"] == ["10.0.0.99/24", "fd00::2/64"]
        assert answers(lab, address="10.0.0.99")
        assert not answers(lab, address="10.0.0.2")
        row = next(each for each in cli.json("vmm", lab.name, "vms") if each["vm"] == "new1")
        assert row["addresses"] == ["10.0.0.99", "fd00::2"]
        before = row
        assert "nonsense" in cli.refused(2, "vm", lab.name, "set-address", "new1", "nonsense")
        assert "192.0.2.1" in cli.refused(2, "vm", lab.name, "set-address", "new1", "192.0.2.1")
        changed = cli.json("vm", lab.name, "set-address", "new1", "fd00:0::2", "10.0.0.99")["adapters"][0]
        assert sorted(changed["addresses"]) == ["10.0.0.99/24", "fd00::2/64"]
        row = next(each for each in cli.json("vmm", lab.name, "vms") if each["vm"] == "new1")
        assert sorted(row["addresses"]) == sorted(before["addresses"])
        cli.ok("vm", lab.name, "remove", "new1")
        assert [each["vm"] for each in cli.json("vmm", lab.name, "vms")] == ["blue1", "blue2"]
        pool = next(each for each in cli.json("vmm", lab.name, "pools") if each["name"] == "5001-ipv4")
        assert [each["address"] for each in pool["addresses"]] == ["10.0.0.1", "10.0.0.5", "10.0.0.6"]
        refusals = {
            "no VSID 7": (*add[:-1], 7),
            "no host 'host9'": ("vm", lab.name, "add", "x", "--host", "host9", "--virtual-subnet-id", 5001),
            "outside the subnet": (*add, "192.0.2.1"),
            "no VM 'new1'": ("vm", lab.name, "remove", "new1"),
            "say --host": ("vm", lab.name, "add", "x"),
        }
        for reason, words in refusals.items():
            assert reason in cli.refused(2, *words), words
        assert [vm["name"] for vm in cli.inspect(lab.name)["vms"]] == ["blue1", "blue2"]


def test_a_lab_without_a_vmm_says_so(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(cli, TWO_HOSTS, "--set", "vmm=false") as lab, opened(lab, monkeypatch) as inside:
        assert cli.inspect(lab.name)["vmm"] is None
        assert "vmm: true" in cli.refused(2, "vmm", lab.name, "hosts")
        with pytest.raises(BadInput):
            inside.vmm()
        assert "a VMM can't be added" in cli.refused(2, "apply", lab.name, TWO_HOSTS)
