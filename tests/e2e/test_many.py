"""Several labs at once, large labs, slow timers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import FOUR_HOSTS, TWO_HOSTS, Cli
from support.engines import DOCKER_IS_LONG
from support.labs import Lab, tracebacks

pytestmark = pytest.mark.e2e


@DOCKER_IS_LONG
def test_two_labs_of_one_file_at_the_same_time(each_cli: Cli) -> None:
    words = ("up", FOUR_HOSTS, "--engine", each_cli.engine)
    one, other = each_cli.start(*words), each_cli.start(*words)
    with each_cli.ended(one), each_cli.ended(other):
        said = [process.communicate(timeout=90) for process in (one, other)]
        assert [one.returncode, other.returncode] == [0, 0], said
    assert each_cli.names() == ["4host", "4host-2"]
    checks = [each_cli.start("check", name, "-f", "json") for name in each_cli.names()]
    for process in checks:
        with each_cli.ended(process):
            answer = process.communicate(timeout=60)
            assert process.returncode == 0, answer
    assert "take another --name" in each_cli.refused(2, *words, "--name", "4host-2")
    assert each_cli.names() == ["4host", "4host-2"]
    for name in each_cli.names():
        assert tracebacks(each_cli, name) == []
    assert each_cli.ok("down", "4host") == "4host is down\n"
    assert each_cli.json("check", "4host-2")["ok"]
    each_cli.ok("down", "--all")


def test_a_name_of_ones_own(cli: Cli, running: Callable[..., Any]) -> None:
    with running(cli, TWO_HOSTS, "--name", "mine") as lab:
        assert lab.name == "mine"
        assert cli.names() == ["mine"]
    for name in ("../mine", "a/b", "A", "-a", "a\nb", "x" * 33, ""):
        said = cli.refused(2, "up", TWO_HOSTS, "--engine", "namespaces", f"--name={name}")
        assert "--name" in said
        assert cli.names() == []


def test_a_larger_lab(cli: Cli, running: Callable[..., Any]) -> None:
    with running(cli, FOUR_HOSTS, "--set", "hosts=8", "--set", "vms_per_host=4") as lab:
        found = cli.inspect(lab.name)
        assert (len(found["hosts"]), len(found["vms"])) == (8, 32)
        result = cli.json("check", lab.name)
        assert result["ok"], result["problems"][:5]
        assert result["pairs"] > 32 * 32


def test_the_timers_of_the_rfcs(cli: Cli, tmp_path: Path, running: Callable[..., Any]) -> None:
    file = tmp_path / "rfc.yaml"
    file.write_text(TWO_HOSTS.read_text() + "timers: rfc\n")
    with running(cli, file) as lab:
        found = cli.inspect(lab.name)
        assert found["ready"]
        assert found["phases"]["total"] > 1.0  # RFC 4862 waits a second after its only probe
        assert cli.json("check", lab.name)["ok"]


def test_two_labs_of_two_engines_share_names(cli: Cli, shared_lab: Lab) -> None:
    """State folders are separate worlds: a lab of another one is neither seen nor touched."""
    assert cli.json("list") == []
    assert "no lab called '4host'" in cli.refused(2, "down", "4host")
    assert cli.ok("gc") == "nothing to remove\n"
    assert shared_lab.cli.inspect("4host")["ready"]
