"""Tenants with the same addresses: each VM reaches its own network and never another's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.cli import TWO_HOSTS, Cli
from support.engines import DOCKER_IS_LONG
from support.labs import Lab

pytestmark = pytest.mark.e2e


def test_everyone_reaches_whom_it_should_and_nobody_else(lab: Lab) -> None:
    vms = {vm["name"]: vm for vm in lab.cli.inspect(lab.name)["vms"]}
    assert vms["blue1"]["addresses"] == vms["red1"]["addresses"]
    assert vms["blue1"]["host"] == vms["red1"]["host"]
    assert vms["blue1"]["vsid"] != vms["red1"]["vsid"]
    result = lab.cli.json("check", lab.name)
    # 8 VMs; 5 IPv4 and 5 IPv6 addresses in all, of which each VM asks all but its own two
    assert result == {"ok": True, "pairs": 8 * 8, "problems": [], "leaks": []}
    assert "as it should be" in lab.cli.ok("check", lab.name)


@pytest.mark.parametrize("address", ["10.0.0.6", "fd00::6", "10.0.1.8", "fd00:0:0:1::8"])
def test_ping_across_hosts_and_subnets(lab: Lab, address: str) -> None:
    lab.cli.output(lab.name, "blue1", "ping", "-c", 2, "-i", "0.1", "-W", 2, address)


def test_large_packets_arrive(lab: Lab) -> None:
    mtu = int(lab.cli.output(lab.name, "blue1", "cat", "/sys/class/net/eth0/mtu"))
    assert mtu == 1500 - 42
    for address, headers in (("10.0.0.6", 28), ("fd00::6", 48)):
        lab.cli.output(lab.name, "blue1", "ping", "-c", 1, "-W", 2, "-M", "do", "-s", mtu - headers, address)
        lab.cli.output(lab.name, "blue1", "ping", "-c", 1, "-W", 2, "-s", 5000, address)  # in fragments


def test_an_address_of_another_tenant_is_out_of_reach(lab: Lab) -> None:
    done = lab.cli.inside(lab.name, "blue1", "ping", "-c", 1, "-W", 1, "10.0.0.8")  # red4 alone has it
    assert done.returncode == 1


@DOCKER_IS_LONG
def test_check_fails_when_a_vm_is_out_of_reach(each_cli: Cli, running: Callable[..., Any]) -> None:
    with running(each_cli, TWO_HOSTS, may_drop=("port-refused",)) as lab:
        each_cli.output(lab.name, "blue2", "ip", "link", "set", "eth0", "down")
        done = each_cli.run("check", lab.name, "-f", "json")
        assert done.returncode == 1
        said = each_cli.run("check", lab.name)
        assert said.returncode == 1
        assert b"blue1 -> 10.0.0.6: nobody answered, not blue2" in said.stdout
        assert b"blue1 -> fd00::6: nobody answered, not blue2" in said.stdout
        assert b"NOT as it should be" in said.stdout
