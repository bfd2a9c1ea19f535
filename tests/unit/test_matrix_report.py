"""testbed.matrix.report, .budget and .run: what is told of cells, how many run at once, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from support.matrices import loaded
from testbed.errors import MachineLacks
from testbed.matrix import budget, report
from testbed.matrix.budget import Budget
from testbed.matrix.cells import Cell
from testbed.matrix.run import CellResult, exit_code


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    return loaded(tmp_path, "topology: [2host, 4host]\nsuites: [mtu, [connectivity, mtu]]")


def told(outcome: str, text: str = "") -> dict[str, Any]:
    test = {"suite": "mtu", "name": "test_x", "outcome": outcome, "seconds": 1.0, "text": text}
    return {"tests": [test], "suites": []}


def results(cells: list[Cell]) -> list[CellResult]:
    return [
        CellResult(cells[0], "passed", 2.0, 0, told=told("passed")),
        CellResult(cells[1], "failed", 3.0, 1, told=told("failed", "```\n1 != 2\x00")),
        CellResult(cells[2], "timeout", 5.0, 130, "it was not\x00 done"),
    ]


def test_junit_has_a_suite_for_each_cell_and_none_is_overlooked(cells: list[Cell], tmp_path: Path) -> None:
    for cell in cells[:2]:
        (tmp_path / "cells" / cell.name).mkdir(parents=True)
        text = '<testsuites><testsuite name="testbed" tests="2" failures="1" errors="0" skipped="0">'
        text += '<testcase classname="mtu" name="a"/></testsuite></testsuites>'
        (tmp_path / "cells" / cell.name / "junit.xml").write_text(text)
    report.write(tmp_path, "m", results(cells), cells[3:], 6.0)
    root = ET.parse(tmp_path / "junit.xml").getroot()
    assert [suite.get("name") for suite in root] == [cell.name for cell in cells]
    assert {key: root.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6",
        "failures": "2",
        "errors": "1",
        "skipped": "1",
    }
    assert root[0][0].get("classname") == f"{cells[0].name}.mtu"
    assert root[2][0][0].text == "it was not\ufffd done"


def test_json_and_markdown_tell_all(cells: list[Cell], tmp_path: Path) -> None:
    report.write(tmp_path, "m", results(cells), cells[3:], 6.0)
    data = json.loads((tmp_path / "results.json").read_text())
    assert (data["ok"], data["seconds"], data["one_by_one"]) == (False, 6.0, 10.0)
    assert data["not_run"] == [cells[3].name]
    assert [each["outcome"] for each in data["cells"]] == ["passed", "failed", "timeout"]
    text = (tmp_path / "summary.md").read_text()
    assert "| `2host.mtu` | ✅ passed | 1 | 0 | 0 | 0 | 2.0 |" in text
    assert "````text\n```\n1 != 2" in text  # a fence that the text can't close
    assert "it was not\x00 done" in text
    assert "1 cells were not run" in text
    assert not list(tmp_path.glob("*.new"))


def test_github_gets_names_and_scalars(cells: list[Cell]) -> None:
    text = report.github(cells)
    assert "\n" not in text
    assert json.loads(text)["include"][1] == {
        "topology": "2host",
        "suites": "connectivity+mtu",
        "cell": "2host.connectivity+mtu",
    }


def test_a_failed_check_counts_more_than_what_could_not_be_run(cells: list[Cell]) -> None:
    error = CellResult(cells[0], "error", 1.0, 4, "no root")
    other = CellResult(cells[0], "error", 1.0, -9, "killed")
    good, bad, late = results(cells)
    assert [exit_code(each) for each in ([], [good], [good, bad], [good, late])] == [0, 0, 1, 1]
    assert [exit_code(each) for each in ([error], [other, error], [error, bad])] == [4, 3, 1]


def test_the_largest_that_fits_is_next(cells: list[Cell]) -> None:
    wide = Budget(2, 100_000)
    assert wide.next(cells, []) == cells[3]
    assert wide.next(cells, cells[:1]) == cells[3]
    assert wide.next(cells, cells[:2]) is None
    tight = Budget(4, budget.memory(cells[3]) + budget.memory(cells[0]))
    assert tight.next(cells[:3], [cells[3]]) == cells[1]
    assert tight.next(cells[2:], [cells[3]]) is None
    with pytest.raises(MachineLacks, match="raise --memory"):
        Budget(1, 50).check(cells)
