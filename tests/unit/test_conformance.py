"""The list of statements is whole, documented, and told in the promised shapes."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from testbed.cli.main import cli
from testbed.conformance import labs, oracle, runner
from testbed.conformance.outcome import Failed, NotShown
from testbed.conformance.statements import DEFAULT, SOURCES, STATEMENTS, TOPOLOGY, Statement
from testbed.errors import MachineLacks
from testbed.topology import plan_from_file

ROOT = Path(__file__).parents[2]
PLANTS = ROOT / "tests" / "support" / "plants"
DOCUMENT = (ROOT / "docs" / "conformance.md").read_text()


def number(statement: Statement) -> str:
    return str(statement.number)


def rows(heading: str) -> list[list[str]]:
    """Cells of the table below a heading of the document."""
    part = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert part
    lines = [line for line in part[1].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


# ---- the list -----------------------------------------------------------------------------


def test_numbers_are_1_to_44() -> None:
    assert [statement.number for statement in STATEMENTS] == [*range(1, 45)]


@pytest.mark.parametrize("statement", STATEMENTS, ids=number)
def test_a_statement_is_shown_and_says_where_it_is_from(statement: Statement) -> None:
    assert statement.check
    for source in statement.source.split("; "):
        assert any(source == known or source.startswith(f"{known} ") for known in SOURCES), source


def test_no_source_is_there_for_nothing() -> None:
    cited = "; ".join(statement.source for statement in STATEMENTS)
    assert [source for source in SOURCES if source not in cited] == []


@pytest.mark.parametrize("statement", STATEMENTS, ids=number)
def test_its_check_exists(statement: Statement) -> None:
    module, _, function = statement.check.partition(".")
    check = getattr(importlib.import_module(f"testbed.conformance.{module}"), function)
    assert check.__doc__.startswith(f"{statement.number}: ")
    code = check.__code__
    assert code.co_flags & 0x04 or code.co_argcount == len(statement.labs)  # 0x04: *scenes


@pytest.mark.parametrize(
    "name", [*sorted({name for statement in STATEMENTS for name in statement.labs} - {TOPOLOGY}), DEFAULT]
)
def test_its_topology_is_valid(name: str) -> None:
    file = labs.shipped(name) if name == DEFAULT else labs.OWN / f"{name}.yaml"
    assert plan_from_file(file, {}).name == name


def test_a_fault_is_known_for_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLANTS))
    found_by: dict[str, int] = importlib.import_module("plants").FOUND_BY
    assert {*found_by.values()} == {statement.number for statement in STATEMENTS}


# ---- the document -------------------------------------------------------------------------


def test_every_statement_is_documented_and_no_other() -> None:
    wanted = [
        [
            str(each.number),
            each.text,
            each.source,
            ", ".join(each.labs),
        ]
        for each in STATEMENTS
    ]
    assert rows("Statements") == wanted


def test_every_choice_is_documented_and_no_other() -> None:
    assert rows("Chosen") == [[str(each.number), each.choice] for each in STATEMENTS if each.choice]


def test_every_source_is_documented_and_no_other() -> None:
    assert rows("Sources") == [[*each] for each in SOURCES.items()]


# ---- verdicts -----------------------------------------------------------------------------


class NoLabs:
    """Stands in for the labs: scenes are their names."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> NoLabs:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def scene(self, name: str) -> str:
        return name


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The verb, with checks that only tell on which labs they were to be shown, but for some."""

    def run(*words: str, **checks: Any) -> Result:
        def check(statement: Statement) -> Any:
            return checks.get(f"of_{statement.number}", lambda *scenes: f"shown on {' and '.join(scenes)}")

        monkeypatch.setattr(runner, "Labs", NoLabs)
        monkeypatch.setattr(runner, "_check", check)
        monkeypatch.setattr("os.geteuid", lambda: 0)
        return CliRunner().invoke(cli, ["conformance", "--engine", "namespaces", *words])

    return run


def failing(*_: object) -> str:
    raise Failed("a <tag> on the cable\x01")


def verdicts(result: Result) -> dict[int, str]:
    return {each["number"]: each["verdict"] for each in json.loads(result.output)["statements"]}


def test_all_hold(run: Run) -> None:
    result = run("-f", "json")
    assert result.exit_code == 0
    told = json.loads(result.output)
    assert [*told] == ["statements"]
    assert {tuple(each) for each in told["statements"]} == {
        ("number", "text", "source", "verdict", "evidence")
    }
    found = verdicts(result)
    assert {number for number, verdict in found.items() if verdict == "chosen"} == {9, 15, 27, 38, 42, 43}
    assert set(found.values()) == {"pass", "chosen"}
    evidence = {each["number"]: each["evidence"] for each in told["statements"]}
    assert evidence[10] == "shown on features and ipv6-jumbo"
    assert evidence[9].startswith("shown on topology. Chosen: Outer packets carry DF")


def test_one_that_fails(run: Run) -> None:
    result = run("-f", "json", of_6=failing)
    assert result.exit_code == 1
    assert {number for number, verdict in verdicts(result).items() if verdict == "fail"} == {6}


def test_a_check_that_breaks_is_a_failure_and_hides_no_other(run: Run) -> None:
    result = run("-f", "json", of_6=lambda scene: str(1 // 0))
    assert result.exit_code == 1
    assert verdicts(result)[6] == "fail"
    assert verdicts(result)[7] == "pass"
    assert "ZeroDivisionError" in result.output


def test_another_lab_where_the_topology_cannot_show_it(run: Run) -> None:
    def picky(scene: str) -> str:
        if scene == TOPOLOGY:
            raise NotShown("2host has no two networks")
        return f"shown on {scene}"

    told = json.loads(run("-f", "json", "--statement", "22", of_22=picky).output)["statements"]
    assert [each["evidence"] for each in told] == [f"shown on {DEFAULT}"]


def test_no_lab_can_show_it(run: Run) -> None:
    def impossible(scene: str) -> str:
        raise NotShown(f"{scene} has nobody")

    result = run("-f", "json", "--statement", "22", of_22=impossible)
    assert result.exit_code == 1
    assert "topology has nobody; 4host has nobody; features has nobody" in result.output


def test_chosen_statements_only(run: Run) -> None:
    assert [*verdicts(run("-f", "json", "--statement", "8", "--statement", "2"))] == [2, 8]


def test_an_unknown_statement(run: Run) -> None:
    result = run("--statement", "45")
    assert result.exception is not None
    assert str(result.exception) == "there is no statement 45: 1 to 44"


def test_no_tshark(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "which", lambda program: None)
    result = run("-f", "json")
    assert isinstance(result.exception, MachineLacks)
    assert "apt-get install tshark" in str(result.exception)


def test_junit(run: Run) -> None:
    result = run("-f", "junit", of_6=failing)
    assert result.exit_code == 1
    (suite,) = ET.fromstring(result.output.encode())
    assert suite.attrib == {
        "name": "testbed conformance",
        "tests": "44",
        "failures": "1",
        "skipped": "0",
        "errors": "0",
    }
    cases = [*suite]
    assert [case.attrib["name"].partition(".")[0] for case in cases] == [str(each) for each in range(1, 45)]
    (failure,) = cases[5]
    assert (failure.tag, failure.attrib["message"]) == ("failure", "a <tag> on the cable?")
    assert [case[0].tag for case in (cases[0], cases[36])] == ["system-out", "system-out"]


def test_table(run: Run) -> None:
    result = run(of_6=failing)
    assert result.exit_code == 1
    line = next(line for line in result.output.splitlines() if line.lstrip().startswith("6 "))
    assert line.split()[:2] == ["6", "fail"]
    assert "a <tag> on the cable" in result.output
