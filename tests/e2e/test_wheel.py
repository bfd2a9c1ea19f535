"""The built wheel alone, in an empty virtual environment, is a working testbed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import SOURCE, Cli
from support.documents import example

pytestmark = pytest.mark.e2e


class Installed(Cli):
    """The command of a virtual environment; nothing of the checkout is on its path."""

    def __init__(self, state: Path, environment: Path) -> None:
        super().__init__(state)
        self.environment = environment
        del self.env["PYTHONPATH"]

    def argv(self, *words: object) -> list[str]:
        """The command line."""
        return [str(self.environment / "bin" / "testbed"), *map(str, words)]


def _call(*words: object) -> None:
    subprocess.run([*map(str, words)], check=True, capture_output=True, timeout=250)


def test_the_wheel_alone_brings_a_lab_up(tmp_path: Path) -> None:
    _call(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, SOURCE)
    (wheel,) = tmp_path.glob("testbed-*.whl")
    environment = tmp_path / "venv"
    _call(sys.executable, "-m", "venv", environment)
    _call(environment / "bin" / "pip", "install", "-q", f"{wheel}[test]")
    (topology,) = environment.glob("lib/*/site-packages/testbed/_data/topologies/2host.yaml")
    command = Installed(tmp_path / "state", environment)
    command.ok("up", topology, "--engine", "namespaces")
    try:
        assert command.json("check", "2host")["ok"]
    finally:
        command.ok("down", "2host")
    _run_the_documents_test(command, tmp_path)


def _run_the_documents_test(command: Installed, folder: Path) -> None:
    """pytest finds the plugin by itself, and leaves it out when told so."""
    file = folder / "test_blue.py"
    file.write_text(example())
    pytest_words = [command.environment / "bin" / "pytest", "-p", "no:cacheprovider", "--rootdir", folder]
    for more, said in (
        (["--testbed-engine", "namespaces"], "1 passed"),
        (["-p", "no:testbed"], "fixture 'vm' not found"),
    ):
        done = subprocess.run(
            [*map(str, pytest_words), *more, str(file)],
            env=command.env,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert said in done.stdout, done.stdout
    assert command.names() == []
