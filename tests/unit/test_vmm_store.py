"""The store: whole transactions, nothing acknowledged lost at kill -9, versions, one process."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.vmm import Process, contents, start
from testbed.errors import LabError
from testbed.vmm.model import Network
from testbed.vmm.store.database import Store, network_scope
from testbed.vmm.store.schema import VERSIONS
from testbed.vmm.store.tables import NETWORKS
from testbed.wnv.policy import Change


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "vmm.sqlite")
    yield made
    made.close()


def network(number: int) -> Network:
    return Network(f"{{{number:08}-0000-0000-0000-000000000000}}", f"net{number}")


def add(store: Store, number: int) -> None:
    with store.change() as tx:
        tx.put(NETWORKS, network(number))
        tx.event("network", network(number).name)
        tx.log(network_scope(network(number).rdid), Change("customer-routes", None, {"n": number}))


def test_a_change_is_one_revision_with_its_log_and_events(store: Store) -> None:
    add(store, 1)
    add(store, 2)
    assert store.revision == 2
    assert [each.revision for each in store.events(0, 10)] == [1, 2]
    assert [row[0] for row in store.changes([network_scope(network(2).rdid)], 0, 10)] == [2]
    assert store.changes([network_scope(network(2).rdid)], 2, 10) == []


def test_what_raises_leaves_nothing(store: Store) -> None:
    add(store, 1)
    before = contents(store)
    told: list[Any] = []
    store.listeners.append(told.append)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012, SIM117 - the transaction is the point
        with store.change() as tx:
            tx.put(NETWORKS, network(2))
            tx.event("network", "net2")
            1 / 0  # noqa: B018
    assert contents(store) == before
    assert store.revision == 1
    assert told == []


def test_a_commit_that_fails_leaves_nothing(store: Store) -> None:
    add(store, 1)
    before = contents(store)
    with pytest.raises(sqlite3.IntegrityError):  # noqa: PT012, SIM117
        with store.change() as tx:
            tx.put(NETWORKS, network(2))
            tx.connection.execute("PRAGMA defer_foreign_keys = ON")  # the commit finds it
            tx.connection.execute("INSERT INTO subnets VALUES (5001, 'nowhere', x'')")
    assert contents(store) == before
    add(store, 2)
    assert store.revision == 2


def test_nothing_done_is_no_revision(store: Store) -> None:
    with store.change():
        pass
    assert store.revision == 0
    assert contents(store)["events"] == []


def test_listeners_hear_what_was_touched_once_it_is_there(store: Store) -> None:
    heard = []
    store.listeners.append(lambda scopes: heard.append((scopes, store.count(NETWORKS), store.revision)))
    add(store, 1)
    assert heard == [({network_scope(network(1).rdid)}, 1, 1)]


def test_the_log_is_trimmed_and_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "short.sqlite", revisions_kept=100)
    for number in range(512):
        add(store, number)
    assert store.log_start == 412
    oldest = store.connection.execute("SELECT min(revision) FROM changes").fetchone()[0]
    assert oldest == 413
    assert store.events(0, 1)[0].revision == 413
    store.close()
    again = Store(tmp_path / "short.sqlite")
    assert (again.revision, again.log_start) == (512, 412)
    again.close()


def test_events_of_one_revision_come_together(store: Store) -> None:
    for _ in range(3):
        with store.change() as tx:
            for number in range(4):
                tx.event("many", str(number))
    assert [each.revision for each in store.events(0, 5)] == [1] * 4 + [2] * 4
    assert store.events(3, 5) == []


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "vmm.sqlite")
    add(store, 1)
    before, name = contents(store), store.id
    store.close()
    again = Store(tmp_path / "vmm.sqlite")
    assert contents(again) == before
    assert (again.id, again.revision) == (name, 1)
    again.close()


def test_two_processes_can_not_have_it(store: Store, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="another VMM uses this store"):
        Store(tmp_path / "vmm.sqlite")


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vmm.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(LabError, match="restore the file"):
        Store(tmp_path / "vmm.sqlite")


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "vmm.sqlite"
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(VERSIONS) + 1}")
    connection.close()
    with pytest.raises(LabError, match="use a newer testbed"):
        Store(path)


def test_an_older_schema_is_brought_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vmm.sqlite"
    old = Store(path)
    add(old, 1)
    old.close()
    added = "ALTER TABLE networks ADD COLUMN color TEXT;"
    monkeypatch.setattr("testbed.vmm.store.database.VERSIONS", (*VERSIONS, added))
    new = Store(path)
    assert new.connection.execute("SELECT color, name FROM networks").fetchall() == [(None, "net1")]
    assert new.connection.execute("PRAGMA user_version").fetchone() == (len(VERSIONS) + 1,)
    new.close()


def test_an_upgrade_that_fails_leaves_the_old_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vmm.sqlite"
    Store(path).close()
    broken = "ALTER TABLE networks ADD COLUMN color TEXT; SELECT nonsense FROM nowhere;"
    monkeypatch.setattr("testbed.vmm.store.database.VERSIONS", (*VERSIONS, broken))
    with pytest.raises(LabError, match="nowhere"):
        Store(path)
    monkeypatch.undo()
    Store(path).close()


def test_sqlite_is_told_to_be_durable(store: Store) -> None:
    pragma = lambda name: store.connection.execute(f"PRAGMA {name}").fetchone()[0]  # noqa: E731
    assert (pragma("journal_mode"), pragma("synchronous"), pragma("foreign_keys")) == ("wal", 2, 1)


# ---- kill -9 ---------------------------------------------------------------------------------


def hammer(vmm: Process, numbers: Iterator[int], acknowledged: list[tuple[int, str]]) -> None:
    """Allocate addresses until the process dies; note what it has acknowledged."""
    try:
        for number in numbers:
            status, body = vmm.call("POST", "/v1/pools/pa/allocate", {"owner": f"n{number}"})
            assert status == 201, body
            acknowledged.append((number, body["address"]))
    except OSError:
        return
    except Exception as error:  # http.client's, when the process died in the middle of an answer
        if type(error).__module__ != "http.client":
            raise


def kill_while_busy(
    vmm: Process, numbers: Iterator[int], acknowledged: list[tuple[int, str]], moment: float
) -> None:
    """Let the process work, then kill it at any moment."""
    worker = threading.Thread(target=hammer, args=(vmm, numbers, acknowledged))
    worker.start()
    enough, limit = len(acknowledged) + 3, time.monotonic() + 30
    while len(acknowledged) < enough and time.monotonic() < limit:
        time.sleep(0.001)
    time.sleep(moment)
    vmm.process.kill()
    worker.join(30)
    assert not worker.is_alive()


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    numbers = iter(range(10**9))
    acknowledged: list[tuple[int, str]] = []
    chance = random.Random(4)
    kills = 6
    for round_number in range(kills + 1):
        vmm = start(tmp_path / "vmm")
        try:
            if round_number == 0:
                assert vmm.call("POST", "/v1/pools", {"name": "pa", "prefix": "10.0.0.0/16"})[0] == 201
            status, body = vmm.call("GET", "/v1/pools/pa")
            assert status == 200
            stored = [(each["owner"], each["address"]) for each in body["addresses"]]
            assert {(f"n{number}", address) for number, address in acknowledged} <= set(stored)
            # At most the one order in flight at each kill was done without an answer
            assert len(stored) <= len(acknowledged) + round_number
            # One revision for the pool, one for each address: no transaction is there in part
            assert vmm.call("GET", "/v1/status")[1]["revision"] == 1 + len(stored)
            if round_number < kills:
                kill_while_busy(vmm, numbers, acknowledged, chance.random() * 0.02)
        finally:
            vmm.process.kill()
            vmm.process.wait(30)
            assert vmm.process.stdout is not None
            vmm.process.stdout.close()
    assert len(acknowledged) >= 3 * kills
