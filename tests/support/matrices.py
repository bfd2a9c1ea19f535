"""Matrix files, and results as a run of them would give."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import BadInput
from testbed.matrix import cells
from testbed.matrix.cells import Cell


def written(folder: Path, matrix: str, head: str = "name: m\n") -> Path:
    """A matrix file. matrix: what stands below the key, without indentation."""
    file = folder / "m.yaml"
    body = "".join(f"  {line}\n" for line in matrix.splitlines())
    file.write_text(f"{head}matrix:\n{body}")
    return file


def loaded(folder: Path, matrix: str) -> list[Cell]:
    """Its cells."""
    return cells.load(written(folder, matrix))[1]


def refusal(folder: Path, matrix: str) -> str:
    """The one line with which it is refused."""
    with pytest.raises(BadInput) as found:
        loaded(folder, matrix)
    return str(found.value)
