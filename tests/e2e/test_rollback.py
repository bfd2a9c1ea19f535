"""An `up` that fails says why and leaves nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import machine, topologies
from support.cli import TWO_HOSTS, Cli
from support.topologies import blue

pytestmark = pytest.mark.e2e


def failing(folder: Path, more: str) -> Path:
    """A lab whose second VM cannot live."""
    bad = blue("blue2", "host2", 6)[:-1] + f", {more}}}"
    return topologies.write(
        folder, "failing", {"host1": "tor1", "host2": "tor1"}, [blue("blue1", "host1", 5), bad]
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("[/no/such/program]", ("/no/such/program",)),
        ("[sh, -c, 'echo last words; exit 3']", ("last words",)),
    ],
)
def test_a_vm_whose_command_ends_at_once(
    each_cli: Cli, tmp_path: Path, command: str, words: tuple[str, ...]
) -> None:
    before = machine.snapshot()
    said = each_cli.refused(3, "up", failing(tmp_path, f"command: {command}"), "--engine", each_cli.engine)
    assert machine.leaks(before, tmp_path) == []
    assert each_cli.names() == []
    assert "blue2 does not run" in said
    for word in words:
        assert word in said


def test_an_image_that_is_nowhere(each_cli: Cli, tmp_path: Path) -> None:
    file = failing(tmp_path, "image: localhost:1/no/such")
    code = 3 if each_cli.engine == "docker" else 2
    said = each_cli.refused(code, "up", file, "--engine", each_cli.engine)
    assert each_cli.names() == []
    if each_cli.engine == "docker":
        assert "image localhost:1/no/such is not on this machine and cannot be pulled" in said
        assert machine.containers(tmp_path) == []
    else:
        assert "blue2 has an `image:`, which needs --engine docker" in said


def test_engines_that_are_not_there(cli: Cli) -> None:
    assert "unknown engine 'xen'" in cli.refused(2, "up", TWO_HOSTS, "--engine", "xen")
    cli.env["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
    said = cli.refused(4, "up", TWO_HOSTS, "--engine", "docker")
    assert "/nonexistent/docker.sock does not exist" in said
    assert "--engine namespaces" in said
    assert cli.names() == []


def test_auto_takes_namespaces_without_docker(cli: Cli) -> None:
    cli.env["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
    cli.ok("up", TWO_HOSTS)
    assert cli.inspect("2host")["engine"] == "namespaces"
    cli.ok("down", "2host")


def test_a_state_folder_that_cannot_be_made(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cli.env["TESTBED_STATE_DIR"] = os.fspath(tmp_path / "file" / "state")
    assert "can't be made" in cli.refused(4, "up", TWO_HOSTS, "--engine", "namespaces")
