"""`testbed test` as users run it: green on a good lab, red for each planted fault, nothing left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from support.cli import FOUR_HOSTS, SOURCE, TWO_HOSTS, Cli
from support.documents import example
from support.waiting import until
from testbed import plants

pytestmark = pytest.mark.e2e
SECONDS = 540.0


def outcomes(told: dict[str, Any], outcome: str) -> list[str]:
    return [f"{each['suite']}::{each['name']}" for each in told["tests"] if each["outcome"] == outcome]


def all_pass_on_4host(cli: Cli, file: Path) -> None:
    """Nothing fails and nothing skips, with all suites."""
    words = ("test", FOUR_HOSTS, "--engine", cli.engine, "--junit", file)
    told = cli.json(*words, seconds=SECONDS)
    assert (outcomes(told, "failed"), outcomes(told, "flake"), outcomes(told, "skipped")) == ([], [], [])
    assert told["ok"]
    assert told["engine"] == cli.engine
    names = [each["name"] for each in cli.json("test", "--list")]
    assert sorted(each["suite"] for each in told["suites"]) == sorted(names)
    assert len(ET.parse(file).findall(".//testcase")) == len(told["tests"])


def reds(cli: Cli, fault: str, *words: str) -> set[str]:
    """The suites that a planted fault turns red."""
    done = cli.run(
        "test", FOUR_HOSTS, "--engine", cli.engine, "--plant", fault, "-f", "json", *words, seconds=SECONDS
    )
    assert done.returncode == 1, done.stderr.decode()
    assert cli.names() == []
    return {each["suite"] for each in json.loads(done.stdout)["suites"] if each["failed"]}


@pytest.mark.timeout(SECONDS + 60)
def test_nothing_fails_and_nothing_skips_on_4host(cli: Cli, tmp_path: Path) -> None:
    all_pass_on_4host(cli, tmp_path / "junit.xml")


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 60)
def test_nothing_fails_and_nothing_skips_on_4host_with_every_engine(each_cli: Cli, tmp_path: Path) -> None:
    all_pass_on_4host(each_cli, tmp_path / "junit.xml")


@pytest.mark.parametrize("fault", ["vsid-of-the-domain", "any-routing-domain", "headers-forgotten"])
def test_a_plant_turns_its_suite_red(cli: Cli, fault: str) -> None:
    suite = plants.load(fault).SUITE
    assert reds(cli, fault, "--suite", suite) == {suite}


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("fault", plants.names())
def test_a_plant_turns_its_suite_red_and_no_other(cli: Cli, fault: str) -> None:
    assert reds(cli, fault) == {plants.load(fault).SUITE}


def test_a_running_lab_is_read_and_lives_on(cli: Cli) -> None:
    name = cli.up(TWO_HOSTS)["name"]
    told = cli.json("test", name, "--suite", "connectivity", seconds=SECONDS)
    assert outcomes(told, "failed") == []
    assert "connectivity::test_on_one_host" in outcomes(told, "skipped")
    assert cli.names() == [name]
    assert cli.json("check", name)["ok"]
    said = cli.refused(2, "test", name, "-n", 2)
    assert "one by one" in said
    cli.ok("down", name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(cli: Cli, number: signal.Signals) -> None:
    process = cli.start("test", FOUR_HOSTS, "--engine", cli.engine, "-n", 2)
    with cli.ended(process):
        until(lambda: len(ready(cli)) == 2, "no two labs are up", SECONDS)
        process.send_signal(number)
        assert process.wait(SECONDS) == 128 + number
    assert cli.names() == []


def ready(cli: Cli) -> list[Path]:
    return list((cli.state / "labs").glob("*/plan.json"))


def test_what_is_wrong_is_told(cli: Cli, tmp_path: Path) -> None:
    for words, reason in (
        ((), "name a topology file"),
        (("none-such",), "no such file, no running lab"),
        ((FOUR_HOSTS, "--suite", "none"), "no suite 'none': one of connectivity"),
        ((FOUR_HOSTS, "--plant", "none"), "no plant 'none': one of"),
        ((FOUR_HOSTS, "--shard", "3/2"), "write it as I/N"),
        ((FOUR_HOSTS, "-n", "many"), "use auto"),
        ((FOUR_HOSTS, "--set", "hosts"), "NAME=VALUE"),
        ((FOUR_HOSTS, "--pause-on-fail"), "needs a terminal"),
    ):
        assert reason in cli.refused(2, "test", *words)
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: x\n")
    assert str(bad) in cli.refused(2, "test", bad)


def test_a_lab_that_cannot_be_built_is_no_failed_test(cli: Cli, tmp_path: Path) -> None:
    """What its VM is to run when it has booted fails."""
    file = tmp_path / "failing.yaml"
    file.write_text(TWO_HOSTS.read_text().replace("    vnics:", "    exec: ['false']\n    vnics:", 1))
    said = cli.refused(3, "test", file, "--engine", cli.engine, "--suite", "mtu", seconds=SECONDS)
    assert said.startswith("testbed: ")
    assert cli.names() == []


def test_the_test_file_of_the_documents_runs_anywhere(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "test_blue.py").write_text(example())
    command = [sys.executable, "-P", "-m", "pytest", "-p", "testbed.pytest_plugin", "-p", "no:cacheprovider"]
    env = {**cli.env, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(SOURCE)}
    words = [*command, f"--testbed-engine={cli.engine}"]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    assert cli.names() == []
