"""testbed.matrix.cells and .file: combinations as GitHub Actions makes them; refusals say where and what."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli import TOPOLOGIES
from support.matrices import loaded, refusal, written
from testbed.errors import BadInput
from testbed.matrix import cells, report


def axes(folder: Path, matrix: str) -> list[dict[str, object]]:
    return [cell.axes for cell in loaded(folder, matrix)]


def test_all_combinations_in_the_order_of_the_file(tmp_path: Path) -> None:
    names = [cell.name for cell in loaded(tmp_path, "topology: [2host, 4host]\nnic: [modern, r2]")]
    assert names == ["2host.nic-modern", "2host.nic-r2", "4host.nic-modern", "4host.nic-r2"]


def test_axes_become_what_testbed_test_takes(tmp_path: Path) -> None:
    text = (
        "topology: [4host]\nengine: [docker]\nhosts: [2]\nvmm: [false]\nnic: [~]\nsuites: [[mtu, isolation]]"
    )
    (cell,) = loaded(tmp_path, text)
    assert (cell.file, cell.engine, cell.suites) == (
        TOPOLOGIES / "4host.yaml",
        "docker",
        ("mtu", "isolation"),
    )
    assert cell.settings == (("hosts", "2"), ("vmm", "false"))
    assert cell.name == "4host.docker.hosts-2.vmm-false.mtu+isolation"
    assert len(cell.plan.hosts) == 2


def test_a_quoted_number_stays_text(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        "{% set kind = '' if word is string else 1 // 0 %}{{ kind }}"
        + (TOPOLOGIES / "2host.yaml").read_text()
    )
    (cell,) = loaded(tmp_path, 'topology: [t]\nword: ["8"]')
    assert cell.settings == (("word", '"8"'),)


def test_exclude_takes_what_has_all_its_values(tmp_path: Path) -> None:
    text = "topology: [2host, 4host]\nnic: [modern, r2]\nexclude: [{topology: 4host, nic: r2}]"
    assert [cell.name for cell in loaded(tmp_path, text)] == [
        "2host.nic-modern",
        "2host.nic-r2",
        "4host.nic-modern",
    ]
    assert len(loaded(tmp_path, text.replace("topology: 4host, ", ""))) == 2


def test_include_adds_to_what_it_does_not_contradict(tmp_path: Path) -> None:
    """The example of GitHub's documents, in our words: an addition may be overwritten, an axis not."""
    text = """topology: [2host, 4host]
nic: [modern, r2]
include:
  - {wire: frames}
  - {wire: aggregated, nic: modern}
  - {topology: 4host, learning: false}
  - {topology: team}
  - {topology: team, nic: r2}"""
    assert axes(tmp_path, text) == [
        {"topology": "2host", "nic": "modern", "wire": "aggregated"},
        {"topology": "2host", "nic": "r2", "wire": "frames"},
        {"topology": "4host", "nic": "modern", "wire": "aggregated", "learning": False},
        {"topology": "4host", "nic": "r2", "wire": "frames", "learning": False},
        {"topology": "team"},
        {"topology": "team", "nic": "r2"},
    ]


def test_include_alone_and_after_exclude(tmp_path: Path) -> None:
    assert axes(tmp_path, "include: [{topology: 2host}]") == [{"topology": "2host"}]
    text = "topology: [2host, 4host]\nexclude: [{topology: 4host}]\ninclude: [{topology: 4host}]"
    assert axes(tmp_path, text) == [{"topology": "2host"}, {"topology": "4host"}]


def test_shards_are_all_cells_once(tmp_path: Path) -> None:
    found = loaded(
        tmp_path, "topology: [2host]\nnic: [modern, r2, basic, r2-nvgre]\nwire: [frames, aggregated]"
    )
    parts = [cells.shard_of(found, f"{number}/3") for number in (1, 2, 3)]
    assert sorted(cell.name for part in parts for cell in part) == sorted(cell.name for cell in found)


@pytest.mark.parametrize(
    ("matrix", "place", "reasons"),
    [
        ("topology: 2host", "m.yaml:3: matrix.topology", ["must be a list"]),
        ("topology: []", "m.yaml:3: matrix.topology", ["at least one"]),
        ("nic: [r2]", "m.yaml:3: matrix.nic", ["no topology; add it"]),
        ("topology: [none]", "m.yaml:3: matrix.topology[0]", ["no topology 'none'"]),
        ("topology: [2host]\nengine: [vax]", "m.yaml:4: matrix.engine[0]", ["no such engine; one of: auto"]),
        ("topology: [2host]\nsuites: [none]", "m.yaml:4: matrix.suites[0]", ["'none'; one of: all, conn"]),
        ("topology: [2host]\nsuites: [[]]", "m.yaml:4: matrix.suites[0]", ["a list of names"]),
        (
            "topology: [2host]\nnic: [modern,\n  modren]",
            "m.yaml:5: matrix.nic[1]",
            ["2host.yaml does not take it", "modren", "under exclude"],
        ),
        (
            "topology: [2host, cluster]\nwnv: [below-switch]",
            "m.yaml:4: matrix.wnv[0]",
            ["cluster.yaml does not take it: the file uses no such variable; it knows: host, learning"],
        ),
        ("topology: [2host]\nnic: [[r2]]", "m.yaml:4: matrix.nic[0]", ["single value"]),
        ("topology: [2host]\nexclude: [{nic: r2}]", "m.yaml:4: matrix.exclude[0].nic", ["its axes are: top"]),
        ("topology: [2host]\nexclude: [{topology: x}]", "m.yaml:4: matrix.exclude[0].topology", ["no such"]),
        ("topology: [2host]\nexclude: [{topology: 2host}]", "m.yaml:2: matrix", ["everything is excluded"]),
        ("topology: [2host]\nexclude: [r2]", "m.yaml:4: matrix.exclude[0]", ["must be a mapping"]),
        ("topology: [2host, 2host]", "m.yaml:3: matrix.topology[1]", ["two cells are 2host"]),
        ("topology: [2host]\na-b: [1]", "m.yaml:4: matrix.a-b", ["an axis is"]),
        (f"topology: [2host]\na: {[*range(40)]}\nb: {[*range(40)]}", "m.yaml:2: matrix", ["at most 1000"]),
    ],
)  # fmt: skip
def test_refusals_say_where_and_what_to_do(
    tmp_path: Path, matrix: str, place: str, reasons: list[str]
) -> None:
    said = refusal(tmp_path, matrix)
    assert said.startswith(f"{tmp_path}/{place}: "), said
    assert [reason for reason in reasons if reason not in said] == [], said


def test_an_excluded_pair_that_no_combination_has(tmp_path: Path) -> None:
    text = "topology: [2host, 4host]\nexclude: [{topology: 4host}, {topology: 4host}]"
    assert "no combination has all these values; remove" in refusal(tmp_path, text)


def test_keys_of_the_file_are_checked(tmp_path: Path) -> None:
    for head, reason in (
        ("name: m\nsecond: 3\n", "did you mean seconds?"),
        ("name: m\nseconds: 3\n", "at least 10"),
        ("", "name: this key is missing"),
    ):
        with pytest.raises(BadInput, match=reason):
            cells.load(written(tmp_path, "topology: [2host]", head))


def test_the_matrix_that_ships() -> None:
    name, found = cells.load(TOPOLOGIES / "ci-matrix.yaml")
    assert name == "ci"
    assert 24 <= len(found) <= report.GITHUB_CELLS
    assert {cell.engine for cell in found} == {"namespaces", "docker"}
    modes = {cell.axes.get("mode") for cell in found}
    assert {"SwitchIndependent", "Static", "Lacp"} <= modes
    for axis, values in {"wire": 2, "wnv": 2, "nic": 3}.items():
        assert len({cell.axes.get(axis) for cell in found} - {None}) >= values
