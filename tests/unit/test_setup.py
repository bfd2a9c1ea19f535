"""scripts/setup.sh and the list of Debian packages that it installs from."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.cli import SOURCE

LIST = SOURCE / "images" / "machine-packages.txt"
SCRIPT = '. "$1"; shift; PATH=$1; shift; missing_packages "$@"'


def missing(folder: Path, *words: str) -> set[str]:
    """What it would install for these words on a machine whose path has next to nothing."""
    for name in ("cat", "dirname"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(str(shutil.which(name)))
    command = ["bash", "-c", SCRIPT, "setup", str(SOURCE / "scripts" / "setup.sh"), str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return {*done.stdout.split()}


def test_only_words_that_it_gives() -> None:
    rows = [line.split() for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    assert {len(row) for row in rows} == {2, 3}
    assert {row[2] for row in rows if len(row) == 3} == {"venv", "docker", "dev"}


@pytest.mark.parametrize("words", [(), ("test",)])
def test_the_suite_of_the_repository_needs_more(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A browser is hundreds of megabytes: for `run-tests.sh`, which says dev, and for nobody else."""
    more = missing(tmp_path, "dev") - missing(tmp_path, *words)
    assert {"chromium", "chromium-driver"} <= more
    assert more.isdisjoint(missing(tmp_path, *words))
