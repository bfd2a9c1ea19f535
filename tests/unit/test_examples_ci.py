"""examples/ci: valid YAML, whose commands exist with these options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.cli import SOURCE
from testbed.cli.main import cli

FOLDER = SOURCE / "examples" / "ci"
FILES = sorted(FOLDER.glob("*.yml"))
_CALL = re.compile(r"testbed(?:\.sh)? ([a-z-]+(?: [^|>;)\n]*)?)")


def scripts(data: Any) -> Iterator[str]:
    """Every command in it."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key in ("run", "script", "after_script"):
                yield from [value] if isinstance(value, str) else value
            else:
                yield from scripts(value)
    elif isinstance(data, list):
        for each in data:
            yield from scripts(each)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_commands_exist(file: Path) -> None:
    calls = [call for script in scripts(yaml.safe_load(file.read_text())) for call in _CALL.findall(script)]
    assert any(call.startswith("matrix ") for call in calls)
    for call in calls:
        verb, *words = shlex.split(call.partition(" || ")[0])
        words = ["1/4" if "$CI_NODE" in word else word for word in words]
        context = cli.commands[verb].make_context(verb, words)  # click refuses what it does not know
        for word in words:
            if word.startswith("topologies/"):
                assert (SOURCE / word).is_file()
        assert context.params or not words


def test_a_name_from_outside_is_never_part_of_a_script() -> None:
    """An expression in `run` is put into the script as it is, whatever is in it."""
    data = yaml.safe_load((FOLDER / "github-actions.yml").read_text())
    assert [script for script in scripts(data) if "${{" in script] == []
    assert data["jobs"]["test"]["strategy"]["matrix"] == "${{ fromJSON(needs.cells.outputs.matrix) }}"
    assert data["jobs"]["cells"]["outputs"]["matrix"] == "${{ steps.list.outputs.matrix }}"


def test_both_systems_are_there() -> None:
    assert [file.name for file in FILES] == ["github-actions.yml", "gitlab-ci.yml"]
