"""Suites and plants are registered, described and proven; none of them sleeps and hopes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from support.documents import table
from testbed import plants, suites
from testbed.errors import BadInput
from testbed.suites import SUITES
from testbed.testing.results import Results

FOLDER = Path(suites.__file__).parent
MODULES = sorted(file for file in FOLDER.glob("*.py") if file.stem != "__init__")


def test_every_module_is_a_suite_and_every_suite_a_module() -> None:
    assert sorted(each.file for each in SUITES) == MODULES
    assert suites.named("mtu") in SUITES
    assert suites.named("none") is None


def test_suites_are_described() -> None:
    assert table("Suites") == [[each.name, each.shows, each.needs] for each in SUITES]


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.stem)
def test_no_suite_sleeps(file: Path) -> None:
    names = {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}
    assert "sleep" not in names


def test_every_suite_has_a_plant_and_every_plant_is_described() -> None:
    found = {name: plants.load(name) for name in plants.names()}
    assert {each.SUITE for each in found.values()} == {each.name for each in SUITES}
    said = [[name, _first_sentence(each.__doc__), each.SUITE] for name, each in found.items()]
    assert table("Plants") == said


def _first_sentence(text: str) -> str:
    return text[0].lower() + text[1:].rstrip(".")


def test_a_plant_is_taken_where_it_was_ordered(tmp_path: Path) -> None:
    plants.take(tmp_path)  # nothing was
    plants.order(tmp_path, "none-such")
    with pytest.raises(BadInput, match="no plant 'none-such': one of any-routing-domain"):
        plants.take(tmp_path)


def event(outcome: str, when: str = "call", **more: object) -> dict[str, object]:
    identity = {"event": "test", "id": "dad_nud.py::test_x[ipv4]", "seconds": 0.25}
    return {**identity, "outcome": outcome, "when": when, "text": f"text of {when}", **more}


def test_results_are_told_by_suite() -> None:
    results = Results()
    results.add(event("passed"))
    assert results.ok
    row = {"suite": "dad-nud", "passed": 1, "failed": 0, "flake": 0, "skipped": 0, "seconds": 0.25}
    assert results.by_suite() == [row]
    results.add(event("failed", "teardown"))
    assert not results.ok
    (test,) = results.tests
    assert (test.id, test.outcome, test.text) == ("dad-nud::test_x[ipv4]", "failed", "text of teardown")


def test_a_flake_is_no_success() -> None:
    results = Results()
    results.add(event("failed", flake=True))
    assert not results.ok
    assert [each.outcome for each in results.tests] == ["flake"]


def test_a_skip_is_no_failure() -> None:
    results = Results()
    results.add(event("skipped", "setup"))
    assert results.ok
    assert results.plain()["tests"][0]["text"] == "text of setup"
