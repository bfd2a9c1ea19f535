"""Runs in a SQLite file. The tables are described in docs/results.md.

The journal is SQLite's default and not the write-ahead log: a results file is one file, that is copied
and uploaded by itself. Whoever writes does so in one short transaction, and waits for the others.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from testbed.errors import BadInput, LabError
from testbed.results.model import SCHEMA, Fingerprint, Metric, Run, Sample, check

DEFAULT_FILE = "results.db"
APPLICATION_ID = 0x74626572  # "tber"
LOCK_SECONDS = 10.0  # how long others' locks are waited for
_MAGIC = b"SQLite format 3\0"

TABLES = """
CREATE TABLE run (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    batch TEXT NOT NULL,
    kind TEXT NOT NULL,
    label TEXT NOT NULL,
    lab TEXT NOT NULL,
    started REAL NOT NULL,
    seconds REAL NOT NULL,
    "commit" TEXT NOT NULL,
    class TEXT NOT NULL,
    fingerprint TEXT NOT NULL CHECK (json_valid(fingerprint))
) STRICT;
CREATE INDEX run_started ON run (started);
CREATE TABLE metric (
    name TEXT PRIMARY KEY,
    unit TEXT NOT NULL,
    better TEXT NOT NULL CHECK (better IN ('higher', 'lower', 'neither')),
    title TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE sample (
    run INTEGER NOT NULL REFERENCES run (key) ON DELETE CASCADE,
    metric TEXT NOT NULL REFERENCES metric (name),
    path TEXT NOT NULL,
    object TEXT NOT NULL,
    repetition INTEGER NOT NULL,
    time REAL NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (run, metric, path, object, repetition, time)
) STRICT, WITHOUT ROWID;
"""


class Head(Struct, frozen=True):
    """A run without its samples, of which there are ``samples``."""

    id: str
    batch: str
    kind: str
    label: str
    lab: str
    started: float
    seconds: float
    class_id: str
    samples: int
    fingerprint: Fingerprint


class Results:
    """An open results file: :func:`reading` and :func:`writing` give it. All in one transaction."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection

    def heads(self) -> list[Head]:
        """All runs, oldest first. Raises BadInput for one whose fingerprint cannot be read."""
        rows = self.connection.execute(
            "SELECT id, batch, kind, label, lab, started, seconds, class,"
            " (SELECT count(*) FROM sample WHERE run = run.key), fingerprint FROM run ORDER BY started, id"
        )
        names = Head.__struct_fields__[:-1]
        return [
            Head(
                **dict(zip(names, values, strict=True)),
                fingerprint=self._fingerprint(values[0], text),
            )
            for *values, text in rows
        ]

    def load(self, run: str) -> Run | None:
        """The run with this id, None where there is none."""
        row = self.connection.execute(
            "SELECT key, id, batch, kind, label, lab, started, seconds, fingerprint FROM run WHERE id = ?",
            (run,),
        ).fetchone()
        if row is None:
            return None
        key, *values, text = row
        samples = self.connection.execute(
            "SELECT metric, value, path, repetition, object, time FROM sample WHERE run = ?", (key,)
        )
        metrics = self.connection.execute(
            "SELECT name, unit, better, title FROM metric"
            " WHERE name IN (SELECT metric FROM sample WHERE run = ?) ORDER BY name",
            (key,),
        )
        names = ("id", "batch", "kind", "label", "lab", "started", "seconds")
        return Run(
            **dict(zip(names, values, strict=True)),
            fingerprint=self._fingerprint(run, text),
            metrics=tuple(Metric(*row) for row in metrics),
            samples=tuple(Sample(*row) for row in samples),
        )

    def add(self, run: Run) -> bool:
        """Record a run, unless it is there already; whether it was not.

        Raises BadInput for a run that must not be recorded, for one that differs from that of the same
        id, and for a metric that means something else in this file.
        """
        check(run, str(self.path))
        if (before := self.load(run.id)) is not None:
            if _essence(before) != _essence(run):
                raise BadInput(f"{self.path}: run {run.id} is there already and differs: one was edited")
            return False
        mark = run.fingerprint
        inserted = self.connection.execute(
            'INSERT INTO run (id, batch, kind, label, lab, started, seconds, "commit", class, fingerprint)'
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(run.id, run.batch, run.kind, run.label, run.lab, run.started, run.seconds),
                *(mark.commit, mark.class_id(), msgspec.json.encode(mark).decode()),
            ),
        )
        for metric in run.metrics:
            self._describe(metric)
        self.connection.executemany(
            "INSERT INTO sample (run, metric, value, path, repetition, object, time)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(inserted.lastrowid, *msgspec.structs.astuple(each)) for each in run.samples],
        )
        return True

    def _describe(self, metric: Metric) -> None:
        self.connection.execute(
            "INSERT INTO metric (name, unit, better, title) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (metric.name, metric.unit, metric.better, metric.title),
        )
        row = self.connection.execute("SELECT unit, better FROM metric WHERE name = ?", (metric.name,))
        if (there := row.fetchone()) != (metric.unit, metric.better):
            raise BadInput(
                f"{self.path}: metric {metric.name} is in {there[0]} here ({there[1]} is better), in the run"
                f" that comes in {metric.unit} ({metric.better}): give one of them another name"
            )

    def _fingerprint(self, run: str, text: str) -> Fingerprint:
        try:
            return msgspec.json.decode(text, type=Fingerprint)
        except msgspec.DecodeError as error:
            raise BadInput(f"{self.path}: the fingerprint of run {run} cannot be read: {error}") from None


def _essence(run: Run) -> tuple[object, ...]:
    """What makes two runs the same: all of it, but for order, and titles of metrics."""
    units = sorted((metric.name, metric.unit, metric.better) for metric in run.metrics)
    samples = sorted((s.metric, s.path, s.object, s.repetition, s.time, s.value) for s in run.samples)
    used = {sample.metric for sample in run.samples}
    rest = msgspec.structs.replace(run, metrics=(), samples=())
    return rest, [unit for unit in units if unit[0] in used], samples


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Results]:
    """A results file that exists. Raises BadInput for one that cannot be read, LabError for a locked one."""
    if not path.exists():
        raise BadInput(f"{path}: there is no such results file: `testbed bench` makes one with --save")
    with _transaction(path, "BEGIN") as connection:
        if _version(path, connection) == 0:
            raise BadInput(f"{path}: is empty, no results file")
        yield Results(path, connection)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Results]:
    """A results file, made where there is none. What is added is recorded at the end, or none of it."""
    if not path.parent.is_dir():
        raise BadInput(f"{path}: there is no folder {path.parent}")
    with _transaction(path, "BEGIN IMMEDIATE") as connection:
        if _version(path, connection) == 0:
            for statement in TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
        yield Results(path, connection)


def require_writable(path: Path) -> None:
    """Raise what :func:`writing` would raise, and change nothing. For before something long is begun."""
    if path.exists():
        with _transaction(path, "BEGIN IMMEDIATE") as connection:
            if _version(path, connection):
                require_intact(Results(path, connection))
    elif not path.parent.is_dir():
        raise BadInput(f"{path}: there is no folder {path.parent}")
    elif not os.access(path.parent, os.W_OK):
        raise BadInput(f"{path}: nothing can be written into {path.parent.resolve()}")


def require_intact(results: Results) -> None:
    """Raise BadInput where the file is damaged anywhere. Reads all of it."""
    found = [row[0] for row in results.connection.execute("PRAGMA quick_check(1)")]
    if found != ["ok"]:
        told = " ".join(str(found[0]).split())
        raise BadInput(f"{results.path}: is damaged ({told}): take another copy of it")


@contextlib.contextmanager
def _transaction(path: Path, begin: str) -> Iterator[sqlite3.Connection]:
    try:
        _require_sqlite(path)
        with contextlib.closing(
            sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(begin)
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise _told(path, error) from error
    except OSError as error:
        raise BadInput(f"{path}: cannot be opened: {error.strerror}") from error


def _require_sqlite(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb") as file:
        if (head := file.read(len(_MAGIC))) not in (b"", _MAGIC):
            raise BadInput(f"{path}: is no results file: it begins with {head!r}, and is not SQLite's")


def _version(path: Path, connection: sqlite3.Connection) -> int:
    """The schema's version; 0 where nothing is there yet. Raises BadInput for a file we can't use."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if tables == 0 and owner == 0:
        return 0
    (size,) = connection.execute(
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    ).fetchone()
    if path.stat().st_size < size:  # SQLite takes a last page that is cut for one that ends in zeros
        raise BadInput(f"{path}: is damaged or cut off: {path.stat().st_size} bytes of {size}")
    if owner != APPLICATION_ID:
        raise BadInput(f"{path}: is a SQLite file, but none of results")
    if version != SCHEMA:
        raise BadInput(
            f"{path}: has version {version} of the schema, this testbed knows {SCHEMA}: take a newer testbed"
        )
    return int(version)


def _told(path: Path, error: sqlite3.Error) -> BadInput | LabError:
    """What a user is told of an error of SQLite's."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LabError(
            f"{path}: another process has held its lock for {LOCK_SECONDS:g} s: try again, or end that one"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return BadInput(f"{path}: is damaged or cut off ({error}): take another copy of it")
    return BadInput(f"{path}: {error}")
