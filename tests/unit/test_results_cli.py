"""`testbed results`: exit codes, output for programs, and the file that is meant."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import Cli
from support.results import mark, run
from testbed.results.store import writing


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    cli = Cli(tmp_path / "state")
    cli.env["TESTBED_RESULTS"] = str(tmp_path / "results.db")
    return cli


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "results.db"
    with writing(path) as results:
        results.add(run(seed=1, label="before"))
        results.add(run(seed=2, label="same"))
        results.add(run(seed=3, label="slow", ratio=0.8))
        results.add(run(seed=4, label="short", turns=3))
        results.add(run(seed=5, label="other", fingerprint=mark({"wire": "aggregated"})))
    return path


def test_compare_ends_with_the_verdict(cli: Cli, store: Path) -> None:
    assert "No regression" in cli.ok("results", "compare", "before", "same")
    done = cli.run("results", "compare", "before", "slow", "-f", "json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["regressions"] == 1
    assert [row["change"] for row in told["found"]["rows"] if row["verdict"] == "regression"] == [
        pytest.approx(-20, abs=2)
    ]
    assert cli.run("results", "compare", "before", "slow", "--threshold", 30).returncode == 0
    wide = cli.run("results", "compare", f"{store}#before", f"{store}#slow", "-f", "markdown")
    assert wide.returncode == 1
    assert "**regression**" in wide.stdout.decode()


def test_compare_without_anything_to_judge_is_not_green(cli: Cli, store: Path) -> None:
    assert "nothing could be judged" in cli.refused(2, "results", "compare", "before", "short")
    assert "nearest differs in wire" in cli.refused(2, "results", "compare", "before", "other")
    assert "runs in common" in cli.refused(2, "results", "compare", store, "before")


def test_list_and_show(cli: Cli, store: Path, tmp_path: Path) -> None:
    assert [head["label"] for head in cli.json("results", "list")] == [
        "before",
        "same",
        "slow",
        "short",
        "other",
    ]
    (shown,) = cli.json("results", "show", "before")
    assert (len(shown["samples"]), shown["fingerprint"]["cpu"]) == (40, "Some CPU")
    text = cli.ok("results", "show", "before")
    assert "Some CPU, 4 cores, Linux 6.1.0-18-amd64" in text
    assert "wire frames" in text
    assert "there is no such results file" in cli.refused(
        2, "results", "list", "--results", tmp_path / "none.db"
    )
    (tmp_path / "cut.db").write_bytes(store.read_bytes()[:9000])
    assert "cut off" in cli.refused(2, "results", "list", "--results", tmp_path / "cut.db")


def test_export_import_merge(cli: Cli, store: Path, tmp_path: Path) -> None:
    lines, table, big = (tmp_path / name for name in ("x.jsonl", "x.csv", "x.parquet"))
    for path in (lines, table, big):
        cli.ok("results", "export", "--to", path)
    assert big.read_bytes()[:4] == b"PAR1"
    with table.open() as file:
        assert len([*csv.DictReader(file)]) == 4 * 40 + 12
    assert cli.ok("results", "export", "before").encode() == lines.read_bytes().splitlines(True)[0]
    assert "its ending is none of" in cli.refused(2, "results", "export", "--to", tmp_path / "x.xml")
    assert "--to" in cli.refused(2, "results", "export", "--as", "parquet")
    into = tmp_path / "all.db"
    words = ("--results", into)
    assert cli.json("results", "import", lines, *words) == {"added": 5, "known": 0, "skipped": []}
    assert cli.json("results", "merge", store, *words) == {"added": 0, "known": 5, "skipped": []}
    (tmp_path / "bad.db").write_text("no database")
    assert "bad.db" in cli.refused(2, "results", "merge", tmp_path / "bad.db", store, *words)
    left_out = cli.refused(1, "results", "merge", tmp_path / "bad.db", store, "--skip-bad", *words)
    assert "left out" in left_out
    assert "bad.db" in left_out


def test_bench_refuses_a_bad_results_file_before_it_measures(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "results.db").write_text("no database")
    assert "no results file" in cli.refused(2, "bench", "no-lab", "--save")
    assert "add --save" in cli.refused(2, "bench", "no-lab", "--label", "x")


def test_the_command_line_starts_without_the_store(cli: Cli) -> None:
    code = "import sys, testbed.cli.main; print({'sqlite3', 'testbed.results'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], env=cli.env, capture_output=True, check=True, timeout=60
    )
    assert done.stdout.strip() == b"set()"
