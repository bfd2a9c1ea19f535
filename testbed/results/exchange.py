"""Runs on their way into and out of results files: JSON Lines, CSV and Parquet; merging."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
from msgspec import Struct

from testbed.errors import BadInput, MachineLacks
from testbed.results import store
from testbed.results.model import SCHEMA, Run, check

FORMATS = {"jsonl": "jsonl", "ndjson": "jsonl", "csv": "csv", "parquet": "parquet"}
"""Format by the ending of a file's name."""


class _Line(Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a JSON Lines file."""

    schema: int
    run: Run


class _Version(Struct, frozen=True):
    schema: int


class Taken(NamedTuple):
    """What has come of taking runs over. skipped: what was wrong with files that were left out."""

    added: int
    known: int
    skipped: list[str]


# ---- in ---------------------------------------------------------------------------------------


def parse_lines(data: bytes, where: str) -> list[Run]:
    """The runs of a JSON Lines file. Raises BadInput with the line for anything that is none."""
    runs = []
    for number, line in enumerate(data.splitlines(), start=1):
        if line.strip():
            runs.append(_parse(line, f"{where}:{number}"))
    if not runs:
        raise BadInput(f"{where}: there are no runs in it")
    return runs


def _parse(line: bytes, place: str) -> Run:
    try:
        version = msgspec.json.decode(line, type=_Version).schema
        if version != SCHEMA:
            raise BadInput(f"{place}: version {version} of the schema, this testbed knows {SCHEMA}")
        run = msgspec.json.decode(line, type=_Line).run
    except msgspec.DecodeError as error:
        raise BadInput(f"{place}: is no run, or cut off: {error}; nothing of the file is recorded") from None
    check(run, place)
    return run


def read_lines(path: Path) -> list[Run]:
    """The same from a file. Raises BadInput."""
    try:
        return parse_lines(path.read_bytes(), str(path))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None


def read_results(path: Path) -> list[Run]:
    """All runs of a results file, whole and sound. Raises BadInput, LabError."""
    with store.reading(path) as results:
        store.require_intact(results)
        runs = [run for head in results.heads() if (run := results.load(head.id)) is not None]
    for run in runs:
        check(run, str(path))
    return runs


def take(
    into: Path, files: Sequence[Path], read: Callable[[Path], list[Run]], *, skip_bad: bool = False
) -> Taken:
    """Add the runs of ``files`` to a results file; those that are there already are left as they are.

    One bad file and nothing is added, unless ``skip_bad``, with which it is left out as a whole. Raises
    BadInput, LabError.
    """
    sound: list[list[Run]] = []
    skipped = []
    for path in files:
        try:
            sound.append(read(path))
        except BadInput as error:
            if not skip_bad:
                raise
            skipped.append(str(error))
    if not sound:
        return Taken(0, 0, skipped)
    with store.writing(into) as results:
        new = [results.add(run) for runs in sound for run in runs]
    return Taken(sum(new), len(new) - sum(new), skipped)


# ---- out --------------------------------------------------------------------------------------


def lines(runs: Sequence[Run]) -> Iterator[bytes]:
    """JSON Lines: one run in each, with all that is known of it."""
    for run in runs:
        yield msgspec.json.encode(_Line(SCHEMA, run)) + b"\n"


def export(runs: Sequence[Run], form: str, to: BinaryIO) -> None:
    """Write runs as "jsonl" (a run a line), or as "csv" or "parquet" (a sample a row)."""
    if form == "jsonl":
        to.writelines(lines(runs))
    elif form == "csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, _columns(runs), lineterminator="\n")
        writer.writeheader()
        writer.writerows(_rows(runs))
        to.write(text.getvalue().encode())
    else:
        _parquet(runs, to)


def require(form: str) -> None:
    """Raise MachineLacks where a format cannot be written here."""
    if form == "parquet":
        try:
            importlib.import_module("pyarrow")
        except ImportError:
            raise MachineLacks(
                "Parquet needs pyarrow, which is not installed: pip install 'testbed[results]'"
            ) from None


def export_to(runs: Sequence[Run], form: str, path: Path) -> None:
    """The same into a file, which is replaced in one step. Raises BadInput, MachineLacks.

    What is there and no file, such as /dev/stdout or a pipe, is written into as it is: never replaced.
    """
    require(form)
    if path.exists() and not path.is_file():
        _write_into(path, runs, form)
        return
    path = path.resolve()  # a link stays a link
    scratch = path.with_name(path.name + ".new")
    try:
        with scratch.open("wb") as file:
            export(runs, form, file)
        scratch.replace(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        scratch.unlink(missing_ok=True)


def _write_into(path: Path, runs: Sequence[Run], form: str) -> None:
    try:
        with path.open("wb") as file:
            export(runs, form, file)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from None


def _columns(runs: Sequence[Run]) -> list[str]:
    """Names of all columns: the run's, the fingerprint's, a setting or tool each, the sample's."""
    columns: dict[str, None] = {}
    for run in runs:
        columns.update(dict.fromkeys(_of_run(run)))
    return [*columns, "metric", "unit", "better", "path", "object", "repetition", "time", "value"]


def _of_run(run: Run) -> dict[str, Any]:
    plain = msgspec.to_builtins(run.fingerprint)
    nested = {kind: plain.pop(f"{kind}s") for kind in ("setting", "tool")}
    head = ("id", "batch", "kind", "label", "lab", "started", "seconds")
    row = {name: getattr(run, name) for name in head} | {"class": run.fingerprint.class_id(), **plain}
    for kind, values in nested.items():
        row.update({f"{kind}_{name}": value for name, value in sorted(values.items())})
    return row


def _rows(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    for run in runs:
        head = _of_run(run)
        metrics = {metric.name: metric for metric in run.metrics}
        for sample in run.samples:
            metric = metrics[sample.metric]
            yield {**head, "unit": metric.unit, "better": metric.better, **msgspec.structs.asdict(sample)}


def _parquet(runs: Sequence[Run], to: BinaryIO) -> None:
    require("parquet")
    import pyarrow as pa
    from pyarrow import parquet

    rows = [*_rows(runs)]
    table = {name: _one_type([row.get(name) for row in rows]) for name in _columns(runs)}
    parquet.write_table(pa.table(table), to)


def _one_type(values: list[Any]) -> list[Any]:
    """A column has one type: a setting that is a number here and a word there is words."""
    if len({type(value) for value in values if value is not None}) <= 1:
        return values
    return [None if value is None else str(value) for value in values]
