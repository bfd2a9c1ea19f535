"""Live migration: the VM keeps what it has, and all hosts know where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.cli import FOUR_HOSTS, TWO_HOSTS, Cli
from support.vmm_lab import opened, wait_equal

pytestmark = pytest.mark.e2e

MAY_DROP = ("no-port", "pa-not-local", "no-provider-address")  # what comes to the old host meanwhile


def test_a_vm_moves_with_its_connections(
    each_cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = each_cli
    with running(cli, FOUR_HOSTS, may_drop=MAY_DROP) as lab, opened(lab, monkeypatch) as inside:
        before = next(vm for vm in cli.inspect(lab.name)["vms"] if vm["name"] == "blue1")
        link = cli.output(lab.name, "blue1", "ip", "-d", "link", "show", "eth0")
        server = cli.start("exec", lab.name, "blue1", "--", "iperf3", "-s", "-1", "--forceflush")
        with cli.ended(server):
            assert server.stdout
            while b"listening" not in server.stdout.readline():
                pass
            client = cli.start("exec", lab.name, "blue2", "--", "iperf3", "-c", "10.0.0.5", "-t", 4, "-i", 1)
            with cli.ended(client):
                assert client.stdout
                while b" 0.00-1." not in (line := client.stdout.readline()):  # 1.01 if the machine is busy
                    assert line, client.communicate()
                done = cli.json("migrate", lab.name, "blue1", "--to", "host4")
                assert client.wait(30) == 0  # the stream lives on
        assert (done["source"], done["target"]) == ("host1", "host4")
        assert 0 < done["without_switch"] <= done["blackout"] < 1000
        after = next(vm for vm in cli.inspect(lab.name)["vms"] if vm["name"] == "blue1")
        assert after == {**before, "host": "host4"}
        assert cli.output(lab.name, "blue1", "ip", "-d", "link", "show", "eth0") == link
        events = cli.json("vmm", lab.name, "events", "--kind", "customer-address")
        assert {each["fields"]["reason"] for each in events} == {"Moved"}
        wait_equal(inside)
        assert cli.json("check", lab.name)["ok"]
        assert cli.json("migrate", lab.name, "blue1", "--to", "host1")["blackout"] > 0
        assert cli.json("check", lab.name)["ok"]
        again = cli.json("migrate", lab.name, "blue1", "--to", "host1")
        assert (again["source"], again["blackout"]) == ("host1", 0)
        assert "no host 'host9'" in cli.refused(2, "migrate", lab.name, "blue1", "--to", "host9")
        assert "no VM 'x'" in cli.refused(2, "migrate", lab.name, "x", "--to", "host1")


def test_a_migration_that_fails_leaves_the_vm_where_it_was(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from testbed.errors import LabError
    from testbed.lab import migrate

    def fails(*_: Any, **__: Any) -> None:
        raise LabError("no room")

    with running(cli, FOUR_HOSTS, may_drop=MAY_DROP) as lab, opened(lab, monkeypatch) as inside:
        real = migrate._attach

        def attach(lab: Any, host: str, *more: Any) -> None:
            (fails if host == "host4" else real)(lab, host, *more)

        monkeypatch.setattr(migrate, "_attach", attach)
        with pytest.raises(LabError, match="blue1 stays on host1: no room"):
            migrate.migrate(inside, "blue1", "host4")
        assert cli.json("check", lab.name)["ok"]
        view = inside.vmm().get("/vms/blue1")
        assert (view["host"], view["prepared"]) == ("host1", None)
        wait_equal(inside)


def test_without_a_vmm_it_says_so(cli: Cli, running: Callable[..., Any]) -> None:
    with running(cli, TWO_HOSTS, "--set", "vmm=false") as lab:
        assert "vmm: true" in cli.refused(2, "migrate", lab.name, "blue1", "--to", "host2")
