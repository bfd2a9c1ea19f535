"""The conformance report on real labs: nothing fails, and each check finds the faults it is there for."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from support.cli import TWO_HOSTS, Cli
from support.engines import DOCKER_IS_LONG

pytestmark = pytest.mark.e2e

PLANTS = Path(__file__).parents[1] / "support" / "plants"
SECONDS = 120.0  # what a whole run may take


sys.path.insert(0, str(PLANTS))
try:
    from plants import FOUND_BY
finally:
    sys.path.remove(str(PLANTS))


def failures(told: str) -> list[tuple[int, str]]:
    return [
        (each["number"], each["evidence"])
        for each in json.loads(told)["statements"]
        if each["verdict"] == "fail"
    ]


@DOCKER_IS_LONG
def test_nothing_fails(engine: str, tmp_path: Path) -> None:
    cli = Cli(tmp_path, engine)
    began = time.monotonic()
    done = cli.run("conformance", "--engine", engine, "-f", "json", seconds=2 * SECONDS)
    took = time.monotonic() - began
    assert done.stdout, done.stderr.decode()
    assert failures(done.stdout.decode()) == []
    assert done.returncode == 0
    assert cli.names() == []
    print(f"a whole run took {took:.1f} s")
    assert took <= SECONDS


def test_a_small_topology_is_completed_by_others(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    words = ("--statement", 1, "--statement", 22, "--engine", "namespaces")
    told = cli.json("conformance", TWO_HOSTS, *words)["statements"]
    assert [each["verdict"] for each in told] == ["pass", "pass"]
    assert [each["evidence"].partition(":")[0] for each in told] == ["2host", "4host"]


def test_interrupted(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    process = cli.start("conformance", "--engine", "namespaces")
    with cli.ended(process):
        end = time.monotonic() + 30
        while not any((cli.state / "labs" / name / "plan.json").exists() for name in cli.names()):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.02)  # a poll with a deadline
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert cli.names() == []


@pytest.mark.parametrize(
    "fault",
    # one of five in all runs, the others with -m long
    [pytest.param(fault, marks=pytest.mark.long if at % 5 else ()) for at, fault in enumerate(FOUND_BY)],
)
def test_a_fault_is_found(fault: str, tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.env["PYTHONPATH"] = os.pathsep.join([str(PLANTS), cli.env["PYTHONPATH"]])
    cli.env["PLANT"] = fault
    number = FOUND_BY[fault]
    done = cli.run("conformance", "--engine", "namespaces", "--statement", number, "-f", "json")
    assert done.stdout, done.stderr.decode()
    assert [number for number, _ in failures(done.stdout.decode())] == [number]
    assert done.returncode == 1
