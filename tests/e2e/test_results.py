"""A bench that is saved twice can be compared; one that fails midway is not recorded at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import TWO_HOSTS, Cli
from support.labs import tear_down
from support.waiting import until
from testbed.results.store import reading

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cli, str, Path]]:
    """A 2host, and the results file of its command line."""
    folder = tmp_path_factory.mktemp("results")
    cli = Cli(folder / "state")
    cli.env["TESTBED_RESULTS"] = str(folder / "results.db")
    name = cli.up(TWO_HOSTS)["name"]
    try:
        yield cli, name, folder / "results.db"
    finally:
        cli.run("down", name)
        assert tear_down(cli) == []


def test_saved_twice_and_compared(lab: tuple[Cli, str, Path]) -> None:
    cli, name, path = lab
    measured = []
    for label in ("before", "after"):
        words = (
            "--seconds",
            1,
            "--repeat",
            2,
            "--baseline",
            "vxlan",
            "--no-latency",
            "--save",
            "--label",
            label,
        )
        measured.append(cli.json("bench", name, *words))
    assert {each["results"] for each in measured} == {str(path)}
    for result, label in zip(measured, ("before", "after"), strict=True):
        (run,) = cli.json("results", "show", f"label={label}")
        assert run["id"] == result["run"]
        found = [
            (sample["path"], sample["repetition"], sample["value"])
            for sample in run["samples"]
            if sample["metric"] == "throughput"
        ]
        speeds = {"wnv": iter((0, 1)), "vxlan": iter((0, 1))}
        wanted = [
            (each["path"], next(speeds[each["path"]]), each["gigabits_per_second"]) for each in result["runs"]
        ]
        assert sorted(found) == sorted(wanted)
        settings = run["fingerprint"]["settings"]
        assert (settings["engine"], settings["wire"], settings["nic"]) == ("namespaces", "frames", "modern")
        assert (settings["seconds"], settings["streams"], settings["congestion_control"]) == (1, 1, "cubic")
    done = cli.run("results", "compare", "label=before", "label=after")
    assert done.returncode == 2  # two turns are too few for a judgement, and that is no green
    assert "wnv / vxlan" in done.stdout.decode()
    assert "too few" in done.stdout.decode()


def test_a_start_is_recorded_once(lab: tuple[Cli, str, Path]) -> None:
    cli, name, path = lab
    for told in ("recorded", "was there already"):
        assert told in cli.ok("results", "record-start", name)
    with reading(path) as results:
        (head,) = [head for head in results.heads() if head.kind == "start"]
        run = results.load(head.id)
    assert run is not None
    values = {sample.object or "total": sample.value for sample in run.samples}
    assert values == cli.inspect(name)["phases"]


def test_a_file_of_no_use_is_refused_before_a_lab_is_built(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "half.db").write_bytes(b"SQLite format 3\0 and no more")
    assert "half.db" in cli.refused(2, "up", TWO_HOSTS, "--results", tmp_path / "half.db")
    assert cli.names() == []


def test_an_interrupted_bench_is_not_recorded(lab: tuple[Cli, str, Path], tmp_path: Path) -> None:
    cli, name, _ = lab
    path = tmp_path / "other.db"
    words = ("--seconds", 1, "--repeat", 50, "--results", path)
    process = cli.start("bench", name, *words)
    sockets = ("ss", "-tnH", "dst", "10.0.0.6")
    try:
        until(lambda: cli.output(name, "blue1", *sockets), "nothing is measured")
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 143
    assert [*tmp_path.iterdir()] == []
