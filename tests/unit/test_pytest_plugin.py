"""The pytest plugin leaves runs alone that do not ask for it; its reporter tells what a run came to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from support.cli import SOURCE

UNRELATED = (
    "import sys\ndef test_x():\n    assert [n for n in sys.modules if n.startswith('testbed')] == %r\n"
)
LOADED = ["testbed", "testbed.pytest_plugin"]
PLUGIN = ("-p", "testbed.pytest_plugin")
REPORT = (*PLUGIN, "-p", "testbed.pytest_plugin.report")


def run(folder: Path, *words: str, descriptor: int = -1) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers", *words]
    return subprocess.run(
        command,
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        pass_fds=[descriptor] if descriptor >= 0 else [],
    )


def events(folder: Path, text: str, *words: str) -> list[dict[str, Any]]:
    """What is told of a run of a test file."""
    (folder / "test_it.py").write_text(text)
    reading, writing = os.pipe()
    with os.fdopen(reading) as told:
        try:
            run(folder, *REPORT, "--testbed-report", str(writing), *words, descriptor=writing)
        finally:
            os.close(writing)
        return [json.loads(line) for line in told]


def test_pytest_finds_it_by_its_entry_point() -> None:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"testbed": "testbed.pytest_plugin"}


def test_an_unrelated_run_loads_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(UNRELATED % LOADED)
    done = run(tmp_path, *PLUGIN)
    assert done.returncode == 0, done.stdout


def test_the_marker_is_known_and_a_missing_topology_is_told(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n@pytest.mark.topology('none-such')\ndef test_x(lab): pass\ndef test_y(lab): pass\n"
    )
    done = run(tmp_path, *PLUGIN)
    assert "BadInput: no topology file 'none-such'" in done.stdout
    assert "BadInput: which topology?" in done.stdout
    assert done.returncode == 1


def test_outcomes_and_reasons_are_told(tmp_path: Path) -> None:
    text = (
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 0, 'why not'\n"
        "def test_c(): pytest.skip('for lack of it')\n"
    )
    first, *tests = events(tmp_path, text)
    assert first == {"event": "collected", "total": 3}
    assert [each["outcome"] for each in tests] == ["passed", "failed", "skipped"]
    assert "why not" in tests[1]["text"]
    assert tests[2]["text"] == "for lack of it"


@pytest.mark.parametrize(("second", "flake"), [("passes", True), ("fails", False)])
def test_a_second_run_only_labels(tmp_path: Path, second: str, flake: bool) -> None:
    text = "runs = []\ndef test_a():\n    runs.append(0)\n    assert len(runs) == 2, f'run {len(runs)}'\n"
    if second == "fails":
        text = text.replace("== 2", "== 3")
    _, test = events(tmp_path, text, "--testbed-retry")
    assert (test["outcome"], test["flake"]) == ("failed", flake)
    assert "run 1" in test["text"]


def test_shards_are_all_of_it(tmp_path: Path) -> None:
    text = "".join(f"def test_{number}(): pass\n" for number in range(5))
    found = [
        [each["id"] for each in events(tmp_path, text, "--testbed-shard", f"{shard}/2")[1:]]
        for shard in (1, 2)
    ]
    assert [len(part) for part in found] == [3, 2]
    assert len({*found[0], *found[1]}) == 5
