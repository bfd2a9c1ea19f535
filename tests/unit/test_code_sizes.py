"""The code stays readable: sizes of functions and files, a docstring for everything public."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted((ROOT / "testbed").rglob("*.py"))
EVERYTHING = [*CODE, *sorted((ROOT / "tests").rglob("*.py"))]

LONGEST_FUNCTION = 70
LONG_FILE = 450
LONGEST_FILE = 700
# Files that are allowed more than LONG_FILE lines, each with its reason.
LONG_FILES: dict[str, str] = {
    "testbed/vmm/model.py": "all that the VMM's API takes and gives, in one place and without logic",
}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def definitions(
    tree: ast.AST, outer: str = "", public: bool = True
) -> Iterator[tuple[str, Definition, bool]]:
    """Every function and class with its dotted name, and whether it is public (inside a function: no)."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, Definition):
            yield from definitions(node, outer, public)
            continue
        open_here = public and not node.name.startswith("_")
        yield outer + node.name, node, open_here
        yield from definitions(node, f"{outer}{node.name}.", open_here and isinstance(node, ast.ClassDef))


@pytest.mark.parametrize("path", EVERYTHING, ids=name)
def test_functions_are_short(path: Path) -> None:
    long = {
        function: lines
        for function, node, _ in definitions(ast.parse(path.read_text()))
        if not isinstance(node, ast.ClassDef)
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    }
    assert long == {}


@pytest.mark.parametrize("path", EVERYTHING, ids=name)
def test_files_are_short(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= (LONGEST_FILE if name(path) in LONG_FILES else LONG_FILE)


def test_exceptions_are_still_needed() -> None:
    assert [each for each in LONG_FILES if len((ROOT / each).read_text().splitlines()) <= LONG_FILE] == []


@pytest.mark.parametrize("path", CODE, ids=name)
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    missing = [each for each, node, public in definitions(tree) if public and not ast.get_docstring(node)]
    if not ast.get_docstring(tree):
        missing.append("the module")
    assert missing == []
