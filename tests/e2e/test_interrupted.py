"""`up` interrupted or killed at any moment: rolled back, or cleared away by the next one and by gc."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support import machine
from support.cli import FOUR_HOSTS, TWO_HOSTS, Cli
from support.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

FILES = {"namespaces": FOUR_HOSTS, "docker": TWO_HOSTS}
# parts of the time that an undisturbed `up` takes
MOMENTS = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)


def seconds_of_up(cli: Cli, file: Path) -> float:
    """How long an undisturbed `up` takes now."""
    began = time.monotonic()
    name = cli.up(file)["name"]
    took = time.monotonic() - began
    cli.ok("down", name)
    return took


def disturbed(cli: Cli, file: Path, after: float, number: signal.Signals) -> tuple[int, str]:
    """An `up` whose process group gets a signal after so many seconds: its exit code, what it said."""
    process = cli.start("up", file, "--engine", cli.engine, start_new_session=True)
    with cli.ended(process):
        try:
            said = process.communicate(timeout=after)[1]
        except subprocess.TimeoutExpired:
            if number == signal.SIGKILL:
                process.kill()  # it alone: what it has started is not asked
            else:
                os.killpg(process.pid, number)  # as a terminal does
            said = process.communicate(timeout=60)[1]
    return process.returncode, said.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_is_rolled_back(each_cli: Cli, tmp_path: Path, number: signal.Signals) -> None:
    file = FILES[each_cli.engine]
    took = seconds_of_up(each_cli, file)
    before = machine.snapshot()
    ends = []
    for moment in MOMENTS[1::2]:
        ends.append(disturbed(each_cli, file, moment * took, number))
        if ends[-1][0] == 0:  # the lab was complete
            each_cli.ok("down", file.stem)
        assert each_cli.names() == []
        assert machine.leaks(before, tmp_path) == []
    codes = {code for code, _ in ends}
    assert codes <= {128 + number, -number, 0}, ends  # -number: before Python was up
    assert 128 + number in codes


def test_an_up_is_interrupted_while_a_vm_runs_its_first_command(cli: Cli, tmp_path: Path) -> None:
    """The command is reaped by its parent: as an orphan's it would stay in the VM's PID namespace."""
    file, mark = tmp_path / "busy.yaml", tmp_path / "runs"
    command = f"    exec: ['touch {mark}', 'sleep 100']\n"
    file.write_text(TWO_HOSTS.read_text().replace("  - name: blue2\n", "  - name: blue2\n" + command, 1))
    process = cli.start("up", file, "--engine", "namespaces", start_new_session=True)
    with cli.ended(process):
        until(mark.exists, "the first command", 60)
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 128 + signal.SIGINT
        assert time.monotonic() - began < 8.0
    assert cli.names() == []


@pytest.mark.long
def test_a_killed_up_is_cleared_away_by_the_next(each_cli: Cli, tmp_path: Path) -> None:
    file = FILES[each_cli.engine]
    took = seconds_of_up(each_cli, file)
    before = machine.snapshot()
    killed = 0
    for moment in MOMENTS:
        killed += disturbed(each_cli, file, moment * took, signal.SIGKILL)[0] == -signal.SIGKILL
        if each_cli.names() and each_cli.json("list")[0]["ready"]:
            each_cli.ok("down", "--all")  # it was quicker
        assert each_cli.up(file)["name"] == file.stem  # under its own name
        assert [row["name"] for row in each_cli.json("list")] == [file.stem]
        each_cli.ok("down", file.stem)
    assert killed >= 3
    each_cli.ok("gc")
    assert machine.leaks(before, tmp_path) == []


def test_gc_removes_what_a_killed_up_left(each_cli: Cli, tmp_path: Path) -> None:
    file = FILES[each_cli.engine]
    took = seconds_of_up(each_cli, file)
    before = machine.snapshot()
    for moment in MOMENTS[1::2]:
        disturbed(each_cli, file, moment * took, signal.SIGKILL)
        if all(row["ready"] for row in each_cli.json("list")):  # it was quicker
            each_cli.ok("down", "--all")
        each_cli.ok("gc")
        assert each_cli.names() == []
        each_cli.ok("gc")  # what the engine was still making when the first one looked
        assert machine.leaks(before, tmp_path) == []


def test_gc_removes_a_lab_whose_nodes_were_killed(each_cli: Cli) -> None:
    each_cli.up(TWO_HOSTS)
    assert each_cli.ok("gc") == "nothing to remove\n"
    if each_cli.engine == "docker":
        machine.remove_containers(each_cli.state)
    else:
        supervisor = json.loads((each_cli.state / "labs" / "2host" / "supervisor.json").read_bytes())
        os.kill(supervisor["pid"], signal.SIGKILL)
    (row,) = each_cli.json("list")
    assert row["ready"] is False
    if each_cli.engine == "namespaces":
        assert "run `testbed gc`" in each_cli.refused(3, "inspect", "2host")
    assert "lab 2host (nothing of it runs)" in each_cli.ok("gc")
    assert each_cli.names() == []
