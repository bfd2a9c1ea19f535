"""Test runs that are killed: `gc` removes all that they leave, and nothing of those that go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli import TWO_HOSTS, Cli
from support.matrices import written
from support.waiting import until

pytestmark = pytest.mark.e2e
SECONDS = 60.0
NOTHING = "nothing to remove\n"


def labs(cli: Cli, pattern: str) -> list[Path]:
    """Folders of complete labs."""
    return [path.parent for path in cli.state.glob(f"{pattern}/plan.json")]


def gone(cli: Cli, pattern: str, *words: object, said: list[str] | None = None) -> bool:
    """Whether it is gone after a verb; processes of a dead run end one after the other."""
    told = cli.ok(*words)
    if said is not None:
        said.append(told)
    return not list(cli.state.glob(pattern))


def test_gc_removes_what_killed_runs_left_and_nothing_else(cli: Cli, tmp_path: Path) -> None:
    matrix = cli.start("matrix", written(tmp_path, "topology: [2host]\nengine: [namespaces]"), "-n", 1)
    test = cli.start("test", TWO_HOSTS, "--engine", "namespaces", "-n", 1)
    with cli.ended(matrix), cli.ended(test):
        until(lambda: len(labs(cli, "labs/*")) >= 1, "the test run has no lab", SECONDS)
        until(lambda: len(labs(cli, "matrix-*/*/labs/*")) >= 1, "the matrix has no lab", SECONDS)
        assert cli.ok("gc") == NOTHING
        test.kill()
        test.wait(SECONDS)
        said: list[str] = []
        until(lambda: gone(cli, "labs/*", "gc", said=said), "labs of the test run are left", SECONDS)
        assert "(its test run died)" in "".join(said), "it has not ended at once, but gone on"
        assert labs(cli, "matrix-*/*/labs/*"), "the matrix goes on"
        assert cli.ok("gc") == NOTHING
        matrix.kill()
        matrix.wait(SECONDS)
        none = "test", TWO_HOSTS, "--engine", "namespaces", "-n", 1, "--shard", "999/999"
        until(lambda: gone(cli, "matrix-*", *none), "the next run has left the matrix there", SECONDS)
