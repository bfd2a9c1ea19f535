"""The verbs on a running lab: up's answer, inspect, list, logs, exec, down."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import TWO_HOSTS, Cli
from support.labs import Lab

pytestmark = pytest.mark.e2e

NUMBER = (int, float)
# what the answer of `inspect` must hold at least: types of values, and the shape of each entry of a list
SHAPE: dict[str, Any] = {
    "name": str,
    "id": str,
    "engine": str,
    "ready": bool,
    "phases": {"total": NUMBER},
    "fabric": {"switches": [{"name": str, "ports": list}]},
    "hosts": [
        {
            "name": str,
            "provider_addresses": [str],
            "nics": [dict],
            "processes": [{"pid": int, "role": str, "pss_bytes": int}],
        }
    ],
    "vms": [{"name": str, "host": str, "network": str, "vsid": int, "mac": str, "addresses": [str]}],
}


def conforms(value: Any, shape: Any, where: str = "answer") -> None:
    """Asserts that ``value`` has the shape; lists must not be empty."""
    if isinstance(shape, dict):
        for key, inner in shape.items():
            assert key in value, f"{where}: no {key}"
            conforms(value[key], inner, f"{where}.{key}")
    elif isinstance(shape, list):
        assert value, f"{where} is empty"
        for position, entry in enumerate(value):
            conforms(entry, shape[0], f"{where}[{position}]")
    else:
        assert isinstance(value, shape), f"{where} is {value!r}"


def test_inspect_has_the_promised_shape(lab: Lab) -> None:
    found = lab.cli.inspect(lab.name)
    conforms(found, SHAPE)
    assert (found["name"], found["engine"], found["ready"]) == ("4host", lab.cli.engine, True)
    phases = {**found["phases"]}
    total = phases.pop("total")
    assert set(phases) == {"nodes", "wiring", "hosts", "vms", "ready"}
    assert all(seconds >= 0 for seconds in phases.values())
    assert sum(phases.values()) == pytest.approx(total, abs=0.1)
    assert [vm["name"] for vm in found["vms"]] == [
        f"{tenant}{n}" for n in (1, 2, 3, 4) for tenant in ("blue", "red")
    ]
    assert [(host["name"], len(host["provider_addresses"])) for host in found["hosts"]] == [
        (f"host{n}", 2) for n in (1, 2, 3, 4)
    ]  # one PA per VSID and host
    addresses = [address for host in found["hosts"] for address in host["provider_addresses"]]
    assert len(set(addresses)) == 8


def test_inspect_shows_the_cables(lab: Lab) -> None:
    switches = lab.cli.inspect(lab.name)["fabric"]["switches"]
    assert [switch["name"] for switch in switches] == ["tor1", "tor2"]
    for switch, nic in zip(switches, ("nic1", "nic2"), strict=True):
        ends = {(port["host"], port["nic"]) for port in switch["ports"] if "host" in port}
        assert ends == {(f"host{n}", nic) for n in (1, 2, 3, 4)}
        assert len(switch["ports"]) == 5  # and the trunk
        links = lab.cli.output(lab.name, "fabric", "ls", "/sys/class/net").split()
        assert {port["interface"] for port in switch["ports"]} < set(links)


def test_inspect_shows_the_processes(lab: Lab) -> None:
    for host in lab.cli.inspect(lab.name)["hosts"]:
        assert {process["role"] for process in host["processes"]} == {"control", "worker"}
        for process in host["processes"]:
            name = Path(f"/proc/{process['pid']}/comm").read_text()
            assert name.startswith("tb-" + process["role"])
        assert sum(process["pss_bytes"] for process in host["processes"]) <= 60 << 20


def test_inspect_shows_what_is_and_not_what_was_planned(lab: Lab) -> None:
    def addresses() -> list[str]:
        vms = lab.cli.inspect(lab.name)["vms"]
        found: list[str] = next(vm["addresses"] for vm in vms if vm["name"] == "blue1")
        return found

    assert addresses() == ["10.0.0.5", "fd00::5"]
    lab.cli.output(lab.name, "blue1", "ip", "address", "add", "10.0.0.99/24", "dev", "eth0")
    try:
        assert sorted(addresses()) == ["10.0.0.5", "10.0.0.99", "fd00::5"]
    finally:
        lab.cli.output(lab.name, "blue1", "ip", "address", "del", "10.0.0.99/24", "dev", "eth0")
    assert addresses() == ["10.0.0.5", "fd00::5"]


def test_list_knows_the_lab(lab: Lab) -> None:
    (row,) = lab.cli.json("list")
    assert (row["name"], row["engine"], row["state"], row["ready"]) == (
        "4host",
        lab.cli.engine,
        "running",
        True,
    )
    assert "4host" in lab.cli.ok("list")


def test_exit_code_of_exec_is_the_commands_own(lab: Lab) -> None:
    for code in (0, 1, 42):
        assert lab.cli.inside(lab.name, "blue1", "sh", "-c", f"exit {code}").returncode == code
    assert lab.cli.inside(lab.name, "blue1", "sh", "-c", "kill -KILL $$").returncode == 128 + signal.SIGKILL


def test_exec_of_what_is_not_there(lab: Lab) -> None:
    done = lab.cli.inside(lab.name, "host1", "no-such-program")
    assert (done.returncode, done.stdout) == (127, b"")
    assert done.stderr == b"testbed: no-such-program: not found in the node\n"
    assert lab.cli.inside(lab.name, "host1", "/etc/passwd").returncode == 126
    assert "has no node 'blue9'" in lab.cli.refused(2, "exec", lab.name, "blue9", "--", "true")
    assert "no lab called 'nothing'" in lab.cli.refused(2, "exec", "nothing", "blue1", "--", "true")


def test_exec_passes_bytes_as_they_are(lab: Lab) -> None:
    data = os.urandom(1 << 20)
    done = lab.cli.inside(lab.name, "blue1", "cat", stdin=data)
    assert done.stdout == data
    assert done.stderr == b""


def test_exec_keeps_the_two_outputs_apart(lab: Lab) -> None:
    done = lab.cli.inside(lab.name, "red1", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_exec_passes_options_on(lab: Lab) -> None:
    assert lab.cli.output(lab.name, "red1", "echo", "-n", "--help", "-f", "json") == "--help -f json"
    assert lab.cli.ok("exec", "-it", lab.name, "red1", "--", "echo", "--", "-x") == "-- -x\n"


def test_exec_works_in_every_kind_of_node_and_each_has_its_own_network(lab: Lab) -> None:
    seen = set()
    for node in ("host1", "blue1", "red1", "fabric"):
        seen.add(lab.cli.output(lab.name, node, "readlink", "/proc/self/ns/net"))
        assert lab.cli.output(lab.name, node, "hostname").strip() == node
    assert len(seen) == 4
    assert os.readlink("/proc/self/ns/net") not in {name.strip() for name in seen}


def test_a_signal_to_exec_reaches_the_command(lab: Lab) -> None:
    command = lab.cli.start("exec", lab.name, "blue1", "--", "sh", "-c", "echo ready; exec sleep 60")
    with lab.cli.ended(command):
        assert command.stdout
        assert command.stdout.readline() == b"ready\n"
        command.terminate()
        assert command.wait(10) == 128 + signal.SIGTERM


def test_logs_of_a_node_that_is_not_there(lab: Lab) -> None:
    assert "has no node 'blue9'" in lab.cli.refused(2, "logs", lab.name, "blue9")
    assert "--follow needs the name" in lab.cli.refused(2, "logs", lab.name, "--follow")


SPEAKING = """
name: speaking
networks: [{name: blue, subnets: [{vsid: 5001, prefixes: [10.0.0.0/24]}]}]
hosts: [{name: host1, nics: [{name: nic1}]}]
vms:
  - name: blue1
    host: host1
    vnics: [{vsid: 5001, addresses: [10.0.0.5]}]
    command: [sh, -c, 'echo said by blue1; exec sleep 3600']
fabric: {switches: [tor1]}
links: [{endpoints: ["host1:nic1", tor1]}]
"""


@pytest.mark.timeout(60)
def test_logs_and_follow(each_cli: Cli, tmp_path: Path, running: Callable[..., Any]) -> None:
    file = tmp_path / "speaking.yaml"
    file.write_text(SPEAKING)
    with running(each_cli, file) as lab:
        assert each_cli.ok("logs", lab.name, "blue1") == "said by blue1\n"
        assert "said by blue1" in each_cli.ok("logs", lab.name)
        following = each_cli.start("logs", lab.name, "blue1", "--follow")
        with each_cli.ended(following):
            assert following.stdout
            assert following.stdout.readline() == b"said by blue1\n"
            each_cli.output(lab.name, "blue1", "sh", "-c", "echo more >> /proc/1/fd/1")
            assert following.stdout.readline() == b"more\n"
            assert following.poll() is None


def test_up_ends_with_a_table_and_the_next_commands(each_cli: Cli) -> None:
    said = each_cli.ok("up", TWO_HOSTS, "--engine", each_cli.engine)
    table, _, rest = said.partition("2host is up in ")
    for word in ("blue1", "host2", "5001", "fd00::6"):
        assert word in table
    for command in ("testbed check 2host", "testbed exec -it 2host blue1 -- bash", "testbed bench 2host"):
        assert command in rest
    assert each_cli.ok("down", "2host") == "2host is down\n"
    assert each_cli.names() == []
    assert "no lab called '2host'" in each_cli.refused(2, "down", "2host")
    assert "no lab called '2host'" in each_cli.refused(2, "inspect", "2host")
    assert each_cli.json("list") == []


def test_down_wants_names_or_all(cli: Cli) -> None:
    assert "--all" in cli.refused(2, "down")
    assert cli.ok("down", "--all") == ""
    assert cli.ok("gc") == "nothing to remove\n"


def test_output_to_a_closed_pipe_is_no_traceback(lab: Lab) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    inspecting = lab.cli.start("inspect", lab.name, "-f", "json", stdout=writing)
    os.close(writing)
    _, said = inspecting.communicate(timeout=20)
    assert (inspecting.returncode, said) == (1, b"")


def test_the_workers_of_neighbours_have_processors_of_their_own(lab: Lab) -> None:
    everything = sorted(os.sched_getaffinity(0))
    found = [
        os.sched_getaffinity(process["pid"])
        for host in lab.cli.inspect("4host")["hosts"]
        for process in host["processes"]
        if process["role"] == "worker"
    ]
    assert found == [{everything[position % len(everything)]} for position in range(4)]
