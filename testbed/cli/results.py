"""results: measurements that were kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from testbed.cli.output import format_option, print_json, print_table, report_option
from testbed.errors import BadInput

if TYPE_CHECKING:
    from testbed.lab.bench import CellResult
    from testbed.lab.lab import Lab
    from testbed.results.compare import Comparison
    from testbed.results.exchange import Taken
    from testbed.results.model import Run

F = TypeVar("F", bound=Callable[..., Any])
_SHORT = 8  # characters of an id or commit in tables


def results_option(function: F) -> F:
    """``--results FILE``; :func:`results_file` has the default."""
    return click.option(
        "--results",
        "store",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Results file; default: $TESTBED_RESULTS, or results.db.",
    )(function)


def results_file(given: Path | None) -> Path:
    """The results file that is meant."""
    from testbed.results.store import DEFAULT_FILE

    return given or Path(os.environ.get("TESTBED_RESULTS") or DEFAULT_FILE)


def keeper(*, save: bool, label: str, store: Path | None) -> Callable[[Lab, CellResult], dict[str, str]]:
    """What records a cell of bench's, made before it is measured: a file of no use is refused at once.

    It returns {"results": file, "run": id}, or nothing where nothing is to be recorded. When the file
    cannot be written in the end, the run is put beside it, and the error says so.
    """
    if not save and store is None:
        if label:
            raise BadInput("--label is for a run that is recorded: add --save")
        return lambda _lab, _result: {}
    from testbed.lab import recorded
    from testbed.results.keep import keep
    from testbed.results.store import require_writable

    path = results_file(store)
    require_writable(path)

    def record(lab: Lab, result: CellResult) -> dict[str, str]:
        run = recorded.bench(lab, result, label)
        keep(path, run)
        return {"results": str(path), "run": run.id}

    return record


def start_keeper(store: Path | None) -> Callable[[Lab], dict[str, str]]:
    """The same for a lab's start. Without a file, nothing is recorded."""
    if store is None:
        return lambda _lab: {}
    from testbed.lab import recorded
    from testbed.results.keep import keep
    from testbed.results.store import require_writable

    require_writable(store)

    def record(lab: Lab) -> dict[str, str]:
        run = recorded.start(lab)
        keep(store, run)
        return {"results": str(store), "run": run.id}

    return record


@click.group()
def results() -> None:
    """Measurements that were kept: list, show, export, import, merge, compare."""


_skip = click.option("--skip-bad", is_flag=True, help="Leave bad files out instead of taking none at all.")
_files = click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))


@results.command("list")
@click.argument("selector", default="")
@results_option
@format_option
def list_(selector: str, store: Path | None, output: str) -> None:
    """List runs, oldest first: all of them, or those that SELECTOR means."""
    from testbed.results import select

    _, found = select.heads(selector, results_file(store))
    if output == "json":
        print_json(found)
        return
    print_table(
        ["run", "batch", "started", "kind", "lab", "label", "commit", "class", "samples"],
        [
            [
                each.id[:_SHORT],
                each.batch[:_SHORT],
                _clock(each.started),
                each.kind,
                each.lab,
                each.label,
                each.fingerprint.commit[:_SHORT] + "+" * each.fingerprint.modified,
                each.class_id,
                each.samples,
            ]
            for each in found
        ],
    )


@results.command()
@click.argument("selector")
@results_option
@format_option
def show(selector: str, store: Path | None, output: str) -> None:
    """Show runs with their environment and the medians of what was measured."""
    from testbed.results import select

    found = select.runs(selector, results_file(store))
    if output == "json":
        print_json(found)
        return
    for run in found:
        _show(run)


@results.command()
@click.argument("selector", default="")
@click.option("--to", "target", type=click.Path(path_type=Path), metavar="FILE", help="Default: print.")
@click.option(
    "--as", "form", type=click.Choice(["jsonl", "csv", "parquet"]), help="Default: by FILE's ending."
)
@results_option
def export(selector: str, target: Path | None, form: str | None, store: Path | None) -> None:
    """Write runs as JSON Lines (a run a line), or as CSV or Parquet (a sample a row)."""
    from testbed.results import exchange, select

    ending = target.suffix.lstrip(".") if target else "jsonl"
    form = form or exchange.FORMATS.get(ending)
    if form is None:
        raise BadInput(
            f"{target}: its ending is none of {', '.join(exchange.FORMATS)}: say what it is with --as"
        )
    if form == "parquet" and target is None:
        raise BadInput("Parquet is written into a file: name it with --to")
    exchange.require(form)
    found = select.runs(selector, results_file(store))
    if target:
        exchange.export_to(found, form, target)
    else:
        exchange.export(found, form, sys.stdout.buffer)


@results.command("import")
@_files
@_skip
@results_option
@format_option
def import_(files: tuple[Path, ...], skip_bad: bool, store: Path | None, output: str) -> None:
    """Add runs of JSON Lines files, as `export` writes them. Those that are there already stay."""
    from testbed.results import exchange

    path = results_file(store)
    _taken(exchange.take(path, files, exchange.read_lines, skip_bad=skip_bad), path, output)


@results.command()
@_files
@_skip
@results_option
@format_option
def merge(files: tuple[Path, ...], skip_bad: bool, store: Path | None, output: str) -> None:
    """Add the runs of other results files, such as those of parallel CI jobs. Doing it twice is no harm."""
    from testbed.results import exchange

    path = results_file(store)
    _taken(exchange.take(path, files, exchange.read_results, skip_bad=skip_bad), path, output)


@results.command("record-start")
@click.argument("name")
@click.option("--label", default="", help="A word to find it by.")
@results_option
def record_start(name: str, label: str, store: Path | None) -> None:
    """Record how long a running lab took to start. Once for each lab, however often it is said."""
    from testbed.lab import recorded
    from testbed.lab.lab import Lab
    from testbed.results.store import writing

    path = results_file(store)
    with Lab.open(name) as lab:
        run = recorded.start(lab, label)
    with writing(path) as into:
        new = into.add(run)
    click.echo(f"{path}: run {run.id} {'recorded' if new else 'was there already'}")


@results.command()
@click.argument("base")
@click.argument("new")
@click.option(
    "--threshold",
    default=5,
    show_default=True,
    type=click.FloatRange(0, 100),
    help="Percent of loss from which on it is a regression.",
)
@click.option(
    "--confidence",
    default=95,
    show_default=True,
    type=click.FloatRange(50, 99.9),
    help="Percent of the bootstrap interval.",
)
@results_option
@report_option("a pull request")
def compare(
    base: str, new: str, threshold: float, confidence: float, store: Path | None, output: str
) -> None:
    """Compare runs, like with like: a file, FILE#SELECTOR, or a selector in the results file.

    Exits 1 on a regression: worse by more than the threshold and outside of the noise.
    """
    from testbed.results import select
    from testbed.results.compare import FEWEST
    from testbed.results.compare import compare as compare_runs

    path = results_file(store)
    sides = select.runs(base, path), select.runs(new, path)
    found = compare_runs(*sides, (base, new), threshold=threshold, confidence=confidence)
    _print_comparison(found, output)
    if found.regressions:
        raise SystemExit(1)
    if not found.judged:
        raise BadInput(f"nothing could be judged: either side needs {FEWEST} values of one metric, above 0")


def _print_comparison(found: Comparison, output: str) -> None:
    from testbed.results import compare as text

    if output == "json":
        print_json({"regressions": len(found.regressions), "found": found})
    elif output == "markdown":
        click.echo(text.markdown(found))
    else:
        print_table(text.COLUMNS, [text.cells(row) for row in found.rows])
        for line in found.left_out:
            click.echo(f"not compared: {line}")
        click.echo(text.summary(found))


def _taken(taken: Taken, path: Path, output: str) -> None:
    """Say what was taken over; exits 1 where a file was left out."""
    if output == "json":
        print_json(taken._asdict())
    else:
        click.echo(f"{path}: {taken.added} runs added, {taken.known} were there already")
    for line in taken.skipped:
        click.echo(f"testbed: left out: {line}", err=True)
    if taken.skipped:
        raise SystemExit(1)


def _show(run: Run) -> None:
    from statistics import median

    mark = run.fingerprint
    label = f", label {run.label}" if run.label else ""
    click.echo(f"{run.id}: {run.kind} of {run.lab}, {_clock(run.started)}, {run.seconds:.1f} s{label}")
    click.echo(
        f"  {mark.cpu}, {mark.cores} cores, Linux {mark.kernel} {mark.architecture}, Python {mark.python}"
    )
    click.echo(f"  testbed {mark.version} {mark.commit or 'of no checkout'}{', modified' * mark.modified}")
    click.echo(f"  topology {mark.topology} {mark.topology_hash}, class {mark.class_id()}")
    click.echo("  " + ", ".join(f"{name} {value}" for name, value in mark.settings.items()))
    values: dict[tuple[str, str, str], list[float]] = {}
    for each in run.samples:
        values.setdefault((each.metric, each.path, each.object), []).append(each.value)
    units = {metric.name: metric.unit for metric in run.metrics}
    print_table(
        ["metric", "path", "object", "values", "median", "lowest", "highest", "unit"],
        [
            [*key, len(of), *(f"{value:.5g}" for value in (median(of), min(of), max(of))), units[key[0]]]
            for key, of in values.items()
        ],
    )


def _clock(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


COMMANDS = (results,)
