"""What came of a matrix, for CI systems (JUnit XML), programs (JSON) and people (Markdown)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec

from testbed.matrix.cells import Cell
from testbed.matrix.run import CellResult

CELLS = "cells"  # the folder with one of each cell
TESTS = ("passed", "failed", "flake", "skipped")
GITHUB_CELLS = 256  # that a strategy matrix may have
_CONTROL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 section 2.2
_NUMBERS = ("tests", "failures", "errors", "skipped")
_MARKS = {"passed": "✅", "failed": "❌", "skipped": "⏭️", "error": "💥", "timeout": "⏱️"}


def described(cell: Cell) -> dict[str, Any]:
    """{"cell", "topology", "engine", "suites", "settings", "axes", "seconds"}; no suites: all."""
    return {
        "cell": cell.name,
        "topology": cell.file.name,
        "engine": cell.engine,
        "suites": list(cell.suites),
        "settings": dict(cell.settings),
        "axes": cell.axes,
        "seconds": cell.seconds,
    }


def github(cells: Sequence[Cell]) -> str:
    """The value of ``strategy.matrix`` of a GitHub Actions job, a line: {"include": [{"cell", axes...}]}."""
    rows = [{**_scalars(cell.axes), "cell": cell.name} for cell in cells]
    return msgspec.json.encode({"include": rows}).decode()


def _scalars(axes: dict[str, Any]) -> dict[str, Any]:
    return {key: "+".join(value) if isinstance(value, list) else value for key, value in axes.items()}


def plain(
    name: str, results: Sequence[CellResult], missing: Sequence[Cell], seconds: float
) -> dict[str, Any]:
    """{"matrix", "ok", "seconds", "one_by_one", "not_run", "cells": [...]}; one_by_one: sum of the cells'."""
    return {
        "matrix": name,
        "ok": not missing and all(each.outcome in ("passed", "skipped") for each in results),
        "seconds": round(seconds, 2),
        "one_by_one": round(sum(each.seconds for each in results), 2),
        "not_run": [cell.name for cell in missing],
        "cells": [
            {
                **described(each.cell),
                "outcome": each.outcome,
                "took": each.seconds,
                "exit": each.exit,
                "text": each.text,
                "suites_told": each.told.get("suites", []),
                "tests": each.told.get("tests", []),
            }
            for each in results
        ],
    }


def write(
    folder: Path, name: str, results: Sequence[CellResult], missing: Sequence[Cell], seconds: float
) -> None:
    """``results.json``, ``junit.xml`` and ``summary.md`` in a folder, each whole or as it was."""
    data = msgspec.json.format(msgspec.json.encode(plain(name, results, missing, seconds)), indent=2)
    _put(folder / "results.json", data)
    _put(folder / "junit.xml", junit(name, results, missing, folder / CELLS))
    _put(folder / "summary.md", markdown(name, results, missing, seconds).encode())


def _put(path: Path, data: bytes) -> None:
    scratch = path.with_name(f"{path.name}.new")
    scratch.write_bytes(data)
    scratch.replace(path)


def junit(name: str, results: Sequence[CellResult], missing: Sequence[Cell], folder: Path) -> bytes:
    """A testsuite for each cell; a cell that could not be run is a testcase with an error in it."""
    root = ET.Element("testsuites", name=name)
    for each in results:
        suite = _suite_of(folder / each.cell.name / "junit.xml") if each.told else None
        if suite is None:
            kind = "failure" if each.outcome == "failed" else "error"
            suite = _lone(kind, each.outcome, each.text, each.seconds)
        root.append(_named(suite, each.cell.name))
    for cell in missing:
        root.append(_named(_lone("skipped", "not run", "the run was interrupted", 0.0), cell.name))
    for key in _NUMBERS:
        root.set(key, str(sum(int(suite.get(key, 0)) for suite in root)))
    ET.indent(root)
    encoded: bytes = ET.tostring(root, "utf-8", xml_declaration=True)
    return encoded


def _suite_of(file: Path) -> ET.Element | None:
    with contextlib.suppress(OSError, ET.ParseError):
        return ET.parse(file).find("testsuite")  # noqa: S314 - our own pytest wrote it
    return None


def _named(suite: ET.Element, name: str) -> ET.Element:
    suite.set("name", name)
    for case in suite.iter("testcase"):
        case.set("classname", ".".join(filter(None, [name, case.get("classname")])))
    return suite


def _lone(kind: str, message: str, text: str, seconds: float) -> ET.Element:
    numbers = {"tests": "1", "failures": "0", "errors": "0", "skipped": "0"}
    numbers[{"failure": "failures", "error": "errors"}.get(kind, kind)] = "1"
    suite = ET.Element("testsuite", {**numbers, "time": f"{seconds:.3f}"})
    case = ET.SubElement(suite, "testcase", name="cell", classname="", time=f"{seconds:.3f}")
    ET.SubElement(case, kind, message=message).text = _CONTROL.sub("\ufffd", text)
    return suite


def markdown(name: str, results: Sequence[CellResult], missing: Sequence[Cell], seconds: float) -> str:
    """A table of cells, then what went wrong; as GitHub's step summary and GitLab's comments show it."""
    bad = [each for each in results if each.outcome not in ("passed", "skipped")]
    one_by_one = sum(each.seconds for each in results)
    lines = [f"# Matrix {name}", ""]
    lines.append(
        f"{len(results)} cells, {len(bad)} not green, {seconds:.0f} s; cells took {one_by_one:.0f} s."
    )
    if missing:
        lines += ["", f"Interrupted: {len(missing)} cells were not run to their end."]
    lines += [
        "",
        "| cell | | passed | failed | flakes | skipped | seconds |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for each in results:
        counts = " | ".join(str(each.count(kind)) for kind in TESTS)
        lines.append(
            f"| `{each.cell.name}` | {_MARKS[each.outcome]} {each.outcome} | {counts} | {each.seconds:.1f} |"
        )
    for each in bad:
        lines += ["", f"## {each.cell.name}", *_details(each)]
    return "\n".join(lines) + "\n"


def _details(result: CellResult) -> list[str]:
    lines = ["", *_fenced(result.text)] if result.text else []
    for test in result.told.get("tests", []):
        if test["outcome"] in ("failed", "flake"):
            title = f"{test['suite']}::{test['name']}: {test['outcome']}"
            lines += ["", f"**{title}**", "", *_fenced(test["text"])]
            if test.get("bundle"):
                lines += ["", f"`testbed repro {Path(test['bundle']).name} --rerun`"]
    return lines


def _fenced(text: str) -> list[str]:
    """A code block whose fence no line of the text can close."""
    longest = max((len(found) for found in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", text.rstrip("\n"), fence]
