"""testbed.results.store and model: what is recorded is all there; what must not be recorded is refused."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.results import MARK, mark, run, same
from testbed.errors import BadInput, LabError, TestbedError
from testbed.results import exchange, store
from testbed.results.keep import keep
from testbed.results.metrics import METRICS
from testbed.results.model import SCHEMA, Metric, Run, Sample
from testbed.results.store import reading, require_intact, require_writable, writing

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "results.md").read_text()


def recorded(path: Path, *runs: Run) -> list[bool]:
    with writing(path) as results:
        return [results.add(each) for each in runs]


def ids(path: Path) -> list[str]:
    with reading(path) as results:
        return [head.id for head in results.heads()]


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    one, other = run(label="a", fingerprint=mark({"nic": None, "mtu": 1458.5})), run(seed=2)
    assert recorded(path, other, one) == [True, True]
    with reading(path) as results:
        found = results.load(one.id)
        assert found is not None
        assert same(found, one)
        assert {key: type(value) for key, value in found.fingerprint.settings.items()} == {
            key: type(value) for key, value in one.fingerprint.settings.items()
        }
        first, second = results.heads()
        assert results.load("nobody") is None
    assert (first.id, second.id) == (one.id, other.id)  # by age
    assert (first.label, first.samples, first.fingerprint) == ("a", 40, one.fingerprint)
    assert first.class_id == one.fingerprint.class_id() != second.class_id


def test_what_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    one = run()
    shuffled = msgspec.structs.replace(one, samples=one.samples[::-1], metrics=one.metrics[::-1])
    assert recorded(path, one) + recorded(path, shuffled) == [True, False]
    edited = msgspec.structs.replace(one, samples=one.samples[1:])
    with pytest.raises(BadInput, match=f"{one.id} is there already and differs"):
        recorded(path, run(seed=7), edited)
    assert ids(path) == [one.id]  # nor the one before it


def test_a_metric_has_one_meaning_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    recorded(path, run())
    other = msgspec.structs.replace(
        run(), metrics=(Metric("throughput", "Mbit/s", "higher"),), samples=(Sample("throughput", 4000.0),)
    )
    with pytest.raises(BadInput, match=r"throughput is in Gbit/s here .* comes in Mbit/s"):
        recorded(path, other)


NAN = float("nan")
UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "no kernel": ({"fingerprint": mark(kernel="")}, "lacks kernel"),
    "no cpu": ({"fingerprint": mark(cpu="")}, "lacks cpu"),
    "no python": ({"fingerprint": mark(python="")}, "lacks python"),
    "no topology": ({"fingerprint": mark(topology_hash="")}, "lacks topology_hash"),
    "no cores": ({"fingerprint": mark(cores=0)}, "lacks cores"),
    "no settings": ({"fingerprint": msgspec.structs.replace(MARK, settings={})}, "lacks cores or settings"),
    "no UUID": ({"id": "1"}, "id is not a UUID"),
    "no samples": ({"samples": ()}, "no samples"),
    "no description": ({"metrics": (METRICS["throughput"],)}, "gigabit is not described"),
    "not a number": ({"samples": (Sample("throughput", NAN, "wnv"),)}, "not a number"),
    "twice": ({"samples": (Sample("throughput", 1.0), Sample("throughput", 2.0))}, "two values"),
    "no time": ({"started": NAN}, "time is not a number"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_must_not_be_recorded(name: str, tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    changed, told = UNFIT[name]
    with pytest.raises(BadInput, match=told):
        recorded(path, run(), msgspec.structs.replace(run(), **changed))
    with pytest.raises(BadInput, match="is empty"):
        ids(path)


def test_settings_and_environment_make_the_class() -> None:
    same_class = mark(commit="f" * 40, version="9", python="3.11.9", memory=1, tools={}, modified=True)
    assert same_class.class_id() == MARK.class_id()
    unlike = [
        mark(kernel="6.2"),
        mark(cpu="Another"),
        mark(cores=2),
        mark(python="3.12.1"),
        mark(topology_hash="00"),
        mark(architecture="arm"),
        mark({"wire": "aggregated"}),
        mark({"streams": 2}),
        mark({"new": 1}),
        mark({"guest_lso": False}),
    ]
    assert len({each.class_id() for each in [MARK, *unlike]}) == len(unlike) + 1


# ---- files that are not what they should be ---------------------------------------------------


def used(path: Path) -> None:
    """All that is done with a results file must say the same of a bad one."""
    for use in (ids, lambda each: recorded(each, run()), require_writable):
        before = path.read_bytes()
        with pytest.raises(TestbedError) as told:
            use(path)
        assert str(path) in str(told.value)
        assert path.read_bytes() == before
    raise told.value


@pytest.mark.parametrize("keep_part", [0.5, 0.02, 0.97, 0.999])
def test_cut_off(keep_part: float, tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    recorded(path, *(run(seed=seed) for seed in range(20)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep_part)])
    with pytest.raises(BadInput, match="damaged or cut off"):
        used(path)


def test_damaged_in_the_middle_is_seen_before_it_is_merged(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    recorded(path, *(run(seed=seed) for seed in range(20)))
    whole = bytearray(path.read_bytes())
    whole[-4096:] = b"\xa5" * 4096
    path.write_bytes(whole)
    with pytest.raises(BadInput, match="damaged"), reading(path) as results:
        require_intact(results)


@pytest.mark.parametrize("data", [b"run,metric\n1,2\n", b"SQLite format 2\0" * 9, b"\0" * 4096])
def test_not_sqlite(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    path.write_bytes(data)
    with pytest.raises(BadInput, match="no results file"):
        used(path)


def test_somebody_elses_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (a)")
    connection.close()
    with pytest.raises(BadInput, match="none of results"):
        used(path)


def test_newer_schema(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    recorded(path, run())
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    connection.close()
    with pytest.raises(BadInput, match=f"version {SCHEMA + 1} of the schema.* take a newer testbed"):
        used(path)


def test_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.db"
    recorded(path, run())
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.2)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LabError, match=r"held its lock for 0\.2 s"):
        used(path)
    other.execute("ROLLBACK")
    other.close()
    assert recorded(path, run(seed=2)) == [True]


def test_what_cannot_be_recorded_is_kept_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.db"
    recorded(path, run())
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    late = run(seed=2)
    with pytest.raises(LabError, match=f"results import .*{late.id}.jsonl"):
        keep(path, late)
    other.close()
    beside = tmp_path / f"results.db.{late.id}.jsonl"
    assert exchange.take(path, [beside], exchange.read_lines).added == 1
    assert late.id in ids(path)


def test_no_folder_no_file(tmp_path: Path) -> None:
    missing = tmp_path / "no" / "results.db"
    for use in (lambda: recorded(missing, run()), lambda: require_writable(missing)):
        with pytest.raises(BadInput, match="there is no folder"):
            use()
    require_writable(tmp_path / "results.db")
    assert [*tmp_path.iterdir()] == []
    with pytest.raises(BadInput, match="there is no such results file"):
        ids(tmp_path / "results.db")


# ---- several processes ------------------------------------------------------------------------

WRITER = """
import os, sys
from pathlib import Path
from support.results import run
from testbed.results.store import writing
for seed in range(int(sys.argv[2])):
    with writing(Path(sys.argv[1])) as results:
        results.add(run(seed=seed))
        if sys.argv[3] == "die":
            os._exit(9)
"""


def writer(path: Path, count: int, then: str = "end") -> subprocess.Popen[bytes]:
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"}
    return subprocess.Popen([sys.executable, "-c", WRITER, path, str(count), then], env=environment)


def test_several_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    processes = [writer(path, 10) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    with reading(path) as results:
        require_intact(results)
        found = results.heads()
    assert len({head.id for head in found}) == 40
    assert {head.samples for head in found} == {40}


def test_a_writer_that_dies_midway_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    first = run(seed=99)
    recorded(path, first)
    assert writer(path, 1, "die").wait(60) == 9
    assert ids(path) == [first.id]
    assert recorded(path, run(seed=3)) == [True]


# ---- the document -----------------------------------------------------------------------------


def test_the_document_has_the_tables_as_they_are() -> None:
    (told,) = re.findall(r"```sql\n(.*?)```", DOCUMENT, re.DOTALL)
    plain = re.sub(r" *--.*", "", told)
    assert plain.split() == store.TABLES.split()
    assert hex(store.APPLICATION_ID) in DOCUMENT
    assert f"version of the schema, now {SCHEMA}" in DOCUMENT


def test_the_document_lists_the_metrics() -> None:
    part = DOCUMENT.partition("\n### Metrics\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (\w+) \| (.*) \|$", part, re.MULTILINE)
    assert rows == [msgspec.structs.astuple(metric) for metric in METRICS.values()]


def test_the_document_lists_the_fingerprint() -> None:
    part = DOCUMENT.partition("\n### Fingerprint\n")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", part, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {*MARK.__struct_fields__}
