"""matrix: suites on many labs at once: topologies, engines and settings as one file says."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.cli.labs import file_argument
from testbed.cli.output import formats, print_json, print_table, progress
from testbed.cli.test import shard_of_option
from testbed.errors import BadInput, MachineLacks

if TYPE_CHECKING:
    from testbed.matrix.budget import Budget
    from testbed.matrix.cells import Cell
    from testbed.matrix.run import CellResult


@click.command()
@file_argument
@click.option("-n", "--jobs", default="auto", show_default=True, metavar="N", help="Cells at once.")
@click.option("--memory", type=click.IntRange(1), metavar="MIB", help="For all cells that run at once.")
@click.option("--cell", "wanted", multiple=True, metavar="NAME", help="Only these; a glob; may be repeated.")
@click.option("--shard", default="1/1", metavar="I/N", help="The I-th of N parts of the cells.")
@click.option("--list", "listing", is_flag=True, help="Only list the cells.")
@click.option(
    "--output", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Keep results and logs here."
)
@formats(["json", "github"], "For people, for programs, for a strategy matrix.")
def matrix(
    file: Path,
    wanted: tuple[str, ...],
    shard: str,
    listing: bool,
    folder: Path | None,
    output: str,
    **asked: Any,
) -> None:
    """Run suites on all combinations of topologies, engines and settings that FILE says.

    Exits 1 if a test failed or a cell was not done in time; 3 or 4 if all that went wrong is that a lab could
    not be built or that the machine lacks something.
    """
    from testbed.matrix import cells as all_cells

    if output == "github" and not listing:
        raise BadInput("--format github says which cells there are: use it with --list")
    name, cells = all_cells.load(file)
    for pattern in wanted:
        if not any(fnmatchcase(cell.name, pattern) for cell in cells):
            raise BadInput(f"--cell {pattern}: {file} has no such cell; see `testbed matrix {file} --list`")
    chosen = [
        cell for cell in cells if not wanted or any(fnmatchcase(cell.name, pattern) for pattern in wanted)
    ]
    chosen = all_cells.shard_of(chosen, shard_of_option(shard))
    if listing:
        _list(chosen, output)
        return
    budget = _prepared(chosen, asked["jobs"], asked["memory"])
    _run(name, chosen, budget, folder, output)


def _list(cells: Sequence[Cell], output: str) -> None:
    from testbed.matrix import report

    if output == "github":
        if len(cells) > report.GITHUB_CELLS:
            limit = report.GITHUB_CELLS
            raise BadInput(f"a strategy matrix has at most {limit} jobs, this one {len(cells)}: use --shard")
        click.echo(report.github(cells))
        return
    rows = [report.described(cell) for cell in cells]
    if output == "json":
        print_json(rows)
        return
    print_table(
        ["cell", "topology", "engine", "suites", "settings"],
        [
            [row["cell"], row["topology"], row["engine"], row["suites"] or "all", _pairs(row["settings"])]
            for row in rows
        ],
    )


def _pairs(settings: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in settings.items()]


def _prepared(cells: Sequence[Cell], jobs: str, memory: int | None) -> Budget:
    """All that can be wrong is found before anything is made. Raises BadInput, MachineLacks."""
    from testbed.engines.select import choose
    from testbed.matrix import budget
    from testbed.testing import run

    if jobs != "auto" and (not jobs.isdigit() or not 1 <= int(jobs) <= 64):
        raise BadInput(f"-n {jobs}: use auto, or 1 to 64")
    count = len(os.sched_getaffinity(0)) if jobs == "auto" else int(jobs)
    run.require()
    made = budget.Budget(count, memory or budget.available())
    made.check(list(cells))
    if os.geteuid() != 0:
        raise MachineLacks("network namespaces and NICs can be made by root only: use sudo")
    with progress() as report:
        for name in dict.fromkeys(cell.engine for cell in cells):
            try:
                choose(name, report)
            except MachineLacks as error:
                raise MachineLacks(f"{error}; leave its cells out with --cell '*.namespaces.*'") from None
    return made


def _run(name: str, cells: Sequence[Cell], budget: Budget, folder: Path | None, output: str) -> None:
    from testbed.lab import garbage, store
    from testbed.matrix import report
    from testbed.matrix import run as runner

    garbage.collect(unfinished_only=True)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    results: list[CellResult] = []
    began = time.monotonic()

    def tell(result: CellResult) -> None:
        results.append(result)
        click.echo(f"{len(results)}/{len(cells)} {_line(result)}", err=True)

    try:
        with store.scratch("matrix") as base:
            runner.run(cells, budget, base, (folder or base) / report.CELLS, tell)
    finally:
        done = {result.cell.name for result in results}
        missing = [cell for cell in cells if cell.name not in done]
        seconds = time.monotonic() - began
        if folder:
            report.write(folder, name, results, missing, seconds)
    if output == "json":
        print_json(report.plain(name, results, missing, seconds))
    else:
        _show(results, seconds)
    if code := runner.exit_code(results):
        raise SystemExit(code)


def _line(result: CellResult) -> str:
    return f"{result.outcome}: {result.cell.name}, {result.seconds:.1f} s"


def _show(results: Sequence[CellResult], seconds: float) -> None:
    from testbed.matrix.report import TESTS

    for each in results:
        if each.text:
            click.echo(f"{each.cell.name}: {each.outcome}: {each.text}\n")
        for test in each.told.get("tests", []):
            if test["outcome"] in ("failed", "flake"):
                name = f"{test['suite']}::{test['name']}"
                click.echo(f"{each.cell.name}: {name}: {test['outcome']}\n{test['text']}\n")
    print_table(
        ["cell", "outcome", *TESTS, "seconds"],
        [
            [each.cell.name, each.outcome, *(each.count(kind) for kind in TESTS), round(each.seconds, 1)]
            for each in results
        ],
    )
    bad = sum(each.outcome not in ("passed", "skipped") for each in results)
    click.echo(f"{len(results)} cells, {bad} not green, {seconds:.1f} s")


COMMANDS = (matrix,)
