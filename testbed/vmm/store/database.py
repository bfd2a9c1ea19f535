"""Transactions on the store. Every change of it is one, and adds one revision to the change log.

One process and one thread use a store; a file lock keeps a second process out. SQLite runs with a
write-ahead log and ``synchronous=FULL``: what ``change()`` has returned from survives the process, and
the machine.
"""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from testbed.errors import LabError
from testbed.vmm.model import LoggedEvent
from testbed.vmm.store.schema import VERSIONS
from testbed.vmm.store.tables import Table
from testbed.wnv.policy import Change

T = TypeVar("T", bound=Struct)
REVISIONS_KEPT = 100_000  # how far back a host can resume, and events reach
_TRIM_EVERY = 256
_CACHE = 16 * 1024  # KiB of database pages in memory

Listener = Callable[[frozenset[str]], None]


def network_scope(rdid: str) -> str:
    """The scope of what concerns every host with a VM of the network."""
    return f"network:{rdid}"


def host_scope(host: str) -> str:
    """The scope of what concerns one host alone."""
    return f"host:{host}"


class Reader:
    """Queries. Names of tables and columns are constants of the code; values are always bound."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def get(self, table: Table[T], *key: Any) -> T | None:
        """The row with this key."""
        where = " AND ".join(f"{name} = ?" for name in table.key)
        query = f"SELECT data FROM {table.name} WHERE {where}"  # noqa: S608 - constants
        row = self.connection.execute(query, key).fetchone()
        return None if row is None else table.decode(row[0])

    def select(self, table: Table[T], **where: Any) -> list[T]:
        """The rows whose columns have these values, by key."""
        order = ", ".join(table.key)
        query = f"SELECT data FROM {table.name}{_where(where)} ORDER BY {order}"  # noqa: S608 - constants
        return [table.decode(data) for (data,) in self.connection.execute(query, [*where.values()])]

    def count(self, table: Table[Any], **where: Any) -> int:
        """How many rows have these values."""
        query = f"SELECT count(*) FROM {table.name}{_where(where)}"  # noqa: S608 - constants
        found: int = self.connection.execute(query, [*where.values()]).fetchone()[0]
        return found

    def exists(self, table: Table[Any], **where: Any) -> bool:
        """Whether any row has these values."""
        query = f"SELECT EXISTS (SELECT 1 FROM {table.name}{_where(where)})"  # noqa: S608 - constants
        return bool(self.connection.execute(query, [*where.values()]).fetchone()[0])


class Transaction(Reader):
    """Changes that will be seen together or not at all. time: that of all its events."""

    def __init__(self, connection: sqlite3.Connection, revision: int, *, bulk: bool) -> None:
        super().__init__(connection)
        self.revision = revision
        self.time = time.time()
        self.dirty = False
        self._bulk = bulk
        self._log: dict[str, list[Change] | None] = {}  # by scope; None: the host must begin anew
        self._events: list[LoggedEvent] = []

    @property
    def scopes(self) -> frozenset[str]:
        """Whom the changes concern."""
        return frozenset(self._log)

    def put(self, table: Table[T], item: T) -> None:
        """Insert a row, or write it anew."""
        self.connection.execute(table.upsert, table.values(item))
        self.dirty = True

    def delete(self, table: Table[T], item: T) -> None:
        """Remove a row."""
        where = " AND ".join(f"{name} = ?" for name in table.key)
        query = f"DELETE FROM {table.name} WHERE {where}"  # noqa: S608 - constants
        self.connection.execute(query, table.key_of(item))
        self.dirty = True

    def log(self, scope: str, change: Change) -> None:
        """Tell the hosts of a scope."""
        if not self._bulk and (changes := self._log.setdefault(scope, [])) is not None:
            changes.append(change)

    def reset(self, host: str) -> None:
        """Have a host begin anew from a snapshot: its set of networks is another, or it is gone."""
        self._log[host_scope(host)] = None

    def event(self, kind: str, name: str, host: str = "", **fields: Any) -> None:
        """Note an event of the object ``name``."""
        self.dirty = True
        if not self._bulk:
            self._events.append(LoggedEvent(self.revision, self.time, host, kind, name, fields))

    def finish(self) -> None:
        """Write the log of this revision."""
        encode = msgspec.json.encode
        rows = [
            (scope, self.revision, changes and encode(changes)[1:-1])  # without the list's brackets
            for scope, changes in self._log.items()
        ]
        self.connection.executemany("INSERT INTO changes VALUES (?, ?, ?)", rows)
        self.connection.executemany(
            "INSERT INTO events VALUES (?, ?, ?)",
            [(self.revision, number, encode(event)) for number, event in enumerate(self._events)],
        )
        self._set_meta("revision", self.revision)
        if self._bulk:
            self._set_meta("log-start", self.revision)

    def trim(self, last: int) -> None:
        """Forget the log up to a revision."""
        for table in ("changes", "events"):
            self.connection.execute(f"DELETE FROM {table} WHERE revision <= ?", [last])  # noqa: S608
        self._set_meta("log-start", last)

    def _set_meta(self, name: str, value: int) -> None:
        self.connection.execute("UPDATE meta SET value = ? WHERE name = ?", [value, name])


class Store(Reader):
    """The store in a file, made if it is not there. Raises LabError when it can't be used.

    id: tells this store from others whose revisions count for something else. log_start: the log has
    every change after this revision. listeners are called after each commit with the scopes it concerns.
    """

    def __init__(self, path: Path, *, revisions_kept: int = REVISIONS_KEPT) -> None:
        self._kept = revisions_kept
        self._lock = path.with_name(path.name + ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise LabError(f"{path}: another VMM uses this store: end it, or use another directory") from None
        try:
            super().__init__(_connect(path))
        except sqlite3.Error as error:
            self._lock.close()
            raise LabError(f"{path}: {error}: restore the file, or use another directory") from error
        except LabError:
            self._lock.close()
            raise
        self.id = str(self._meta("store"))
        self.revision = int(self._meta("revision"))
        self.log_start = int(self._meta("log-start"))
        self.listeners: list[Listener] = []

    def close(self) -> None:
        """Give the file back."""
        self.connection.close()
        self._lock.close()

    @contextmanager
    def change(self, *, bulk: bool = False) -> Iterator[Transaction]:
        """A transaction: committed at the end of the block, undone when the block raises.

        bulk: so much changes that the log begins anew; hosts get a snapshot.
        """
        self.connection.execute("BEGIN IMMEDIATE")
        transaction = Transaction(self.connection, self.revision + 1, bulk=bulk)
        log_start = transaction.revision if bulk else self.log_start
        try:
            yield transaction
            if not transaction.dirty:
                self.connection.execute("ROLLBACK")
                return
            transaction.finish()
            if transaction.revision % _TRIM_EVERY == 0 and transaction.revision - self._kept > log_start:
                log_start = transaction.revision - self._kept
                transaction.trim(log_start)
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
        self.revision, self.log_start = transaction.revision, log_start
        for listener in self.listeners:
            listener(transaction.scopes)

    def changes(self, scopes: Sequence[str], after: int, limit: int) -> list[tuple[int, bytes | None]]:
        """The log of some scopes: revision and changes (JSON objects with commas), None for a reset."""
        marks = ", ".join("?" * len(scopes))
        query = (
            f"SELECT revision, data FROM changes WHERE scope IN ({marks}) "  # noqa: S608 - marks only
            "AND revision > ? ORDER BY revision, scope LIMIT ?"
        )
        return self.connection.execute(query, [*scopes, after, limit]).fetchall()

    def events(self, after: int, limit: int) -> list[LoggedEvent]:
        """Events after a revision, oldest first; those of one revision are never torn apart."""
        query = "SELECT revision, data FROM events WHERE revision > ? ORDER BY revision, number"
        events: list[LoggedEvent] = []
        for revision, data in self.connection.execute(query, [after]):
            if len(events) >= limit and revision != events[-1].revision:
                break
            events.append(msgspec.json.decode(data, type=LoggedEvent))
        return events

    def _meta(self, name: str) -> Any:
        return self.connection.execute("SELECT value FROM meta WHERE name = ?", [name]).fetchone()[0]


def _where(where: dict[str, Any]) -> str:
    return " WHERE " + " AND ".join(f"{name} = ?" for name in where) if where else ""


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(VERSIONS):
            raise LabError(
                f"{path}: its schema has version {version}, this testbed knows {len(VERSIONS)}: "
                "use a newer testbed, or another directory"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{_CACHE}")
        for number, script in enumerate(VERSIONS[version:], version + 1):
            connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
    except BaseException:
        connection.close()
        raise
    return connection
