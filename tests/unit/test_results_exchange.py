"""testbed.results.exchange: out and in again; merging is safe to repeat; a bad file takes nothing with it."""

from __future__ import annotations

import csv
import io
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from support.results import mark, run, same
from testbed.errors import BadInput, MachineLacks
from testbed.results import exchange
from testbed.results.exchange import export, export_to, read_lines, read_results, take
from testbed.results.model import SCHEMA, Run
from testbed.results.store import reading, require_writable, writing


def write_results(path: Path, *runs: Run) -> Path:
    with writing(path) as results:
        for each in runs:
            results.add(each)
    return path


def write_lines(path: Path, *runs: Run) -> Path:
    export_to(runs, "jsonl", path)
    return path


def count(path: Path) -> int:
    with reading(path) as results:
        return len(results.heads())


WRITERS = [(write_results, read_results), (write_lines, read_lines)]
Writer = Callable[..., Path]
Reader = Callable[[Path], list[Run]]


@pytest.mark.parametrize(("write", "read"), WRITERS)
def test_merging_twice_adds_nothing(write: Writer, read: Reader, tmp_path: Path) -> None:
    shared = run(seed=1)
    one = write(tmp_path / "one", shared, run(seed=2))
    other = write(tmp_path / "other", shared, run(seed=3))
    into = tmp_path / "all.db"
    assert take(into, [one, other], read) == (3, 1, [])
    bytes_before = into.read_bytes()
    assert take(into, [other, one], read) == (0, 4, [])
    assert count(into) == 3
    assert into.read_bytes() == bytes_before


@pytest.mark.parametrize(("write", "read"), WRITERS)
def test_a_bad_file_among_good_ones(write: Writer, read: Reader, tmp_path: Path) -> None:
    good = write(tmp_path / "good", run(seed=1))
    bad = write(tmp_path / "bad", *(run(seed=seed) for seed in range(2, 9)))
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    into = tmp_path / "all.db"
    with pytest.raises(BadInput, match=str(bad)):
        take(into, [good, bad], read)
    assert not into.exists()
    taken = take(into, [bad, good], read, skip_bad=True)
    assert (taken.added, taken.known, len(taken.skipped)) == (1, 0, 1)
    assert str(bad) in taken.skipped[0]
    assert count(into) == 1
    assert take(tmp_path / "none.db", [bad], read, skip_bad=True).added == 0
    assert not (tmp_path / "none.db").exists()


def test_damaged_in_the_middle(tmp_path: Path) -> None:
    good, bad = (write_results(tmp_path / name, *(run(seed=seed) for seed in range(20))) for name in "ab")
    whole = bytearray(bad.read_bytes())
    whole[-4096:] = b"\xa5" * 4096
    bad.write_bytes(whole)
    with pytest.raises(BadInput, match=r"b: is damaged .*take another copy"):
        take(tmp_path / "all.db", [good, bad], read_results)
    assert not (tmp_path / "all.db").exists()
    with pytest.raises(BadInput, match=r"b: is damaged"):  # before hours are measured for it
        require_writable(bad)


def test_what_is_no_file_is_written_into_and_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        export_to([run()], "jsonl", pipe)
        assert os.read(reader, 1 << 20).startswith(b'{"schema":1,')
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [*tmp_path.iterdir()] == [pipe]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    export_to([run()], "jsonl", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes().startswith(b'{"schema":1,')


def test_lines_come_back_as_they_were(tmp_path: Path) -> None:
    runs = [run(seed=1, label="ä | b"), run(seed=2, fingerprint=mark({"nic": None}))]
    found = read_lines(write_lines(tmp_path / "x.jsonl", *runs))
    assert found == runs
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


def line(**changed: object) -> bytes:
    plain = msgspec.to_builtins({"schema": SCHEMA, "run": run()})
    plain["run"] |= changed
    return msgspec.json.encode(plain)


BAD_LINES = {
    "newer": (line().replace(b'{"schema":1', b'{"schema":2'), f"version 2 of the schema.* knows {SCHEMA}"),
    "no run": (b'{"a": 1}', "is no run"),
    "not JSON": (b"run;metric;value", "is no run"),
    "a key too many": (line(surprise=1), "surprise"),
    "no fingerprint": (line(fingerprint=None), "fingerprint"),
    "a gap": (line(fingerprint=msgspec.to_builtins(mark(kernel=""))), "lacks kernel"),
    "empty": (b"\n\n", "no runs in it"),
    "infinite": (line().replace(b'"seconds":66.5', b'"seconds":1e999'), "is no run|not a number"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_lines(name: str, tmp_path: Path) -> None:
    data, told = BAD_LINES[name]
    path = tmp_path / "x.jsonl"
    path.write_bytes(data if name == "empty" else line() + b"\n" + data)
    with pytest.raises(BadInput, match=told) as error:
        take(tmp_path / "all.db", [path], read_lines)
    assert str(path) + (":2" if name != "empty" else "") in str(error.value)
    assert not (tmp_path / "all.db").exists()


def test_csv_has_a_row_for_each_sample() -> None:
    runs = [run(seed=1), run(seed=2, fingerprint=mark({"nic": "r2"}))]
    out = io.BytesIO()
    export(runs, "csv", out)
    rows = [*csv.DictReader(io.StringIO(out.getvalue().decode()))]
    assert len(rows) == 80
    assert {row["id"] for row in rows} == {each.id for each in runs}
    assert [row["setting_nic"] for row in rows] == [""] * 40 + ["r2"] * 40
    assert {row["cpu"] for row in rows} == {"Some CPU"}
    for row, sample in zip(rows, runs[0].samples, strict=False):
        assert (row["metric"], row["path"], int(row["repetition"])) == (
            sample.metric,
            sample.path,
            sample.repetition,
        )
        assert float(row["value"]) == sample.value
        assert row["unit"] == {"throughput": "Gbit/s", "switch_cpu_per_gigabit": "s/Gbit"}[sample.metric]


def test_parquet_has_the_rows_of_csv_with_types(tmp_path: Path) -> None:
    from pyarrow import parquet

    runs = [run(seed=1, fingerprint=mark({"mixed": 1})), run(seed=2, fingerprint=mark({"mixed": "two"}))]
    export_to(runs, "parquet", tmp_path / "x.parquet")
    rows = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert [row["value"] for row in rows] == [sample.value for each in runs for sample in each.samples]
    assert {row["mixed" if "mixed" in row else "setting_mixed"] for row in rows} == {"1", "two"}
    assert {type(row[name]) for row in rows for name in ("value", "started")} == {float}
    assert {row["setting_guest_lso"] for row in rows} == {True}
    assert {row["cores"] for row in rows} == {4}


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MachineLacks, match=r"pip install 'testbed\[results\]'"):
        export_to([run()], "parquet", tmp_path / "x.parquet")
    assert [*tmp_path.iterdir()] == []


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for read in (read_lines, read_results):
        with pytest.raises(BadInput, match=r"x\.jsonl"):
            take(tmp_path / "all.db", [tmp_path / "x.jsonl"], read)


def test_out_and_in_through_both_kinds(tmp_path: Path) -> None:
    original = run(seed=5, label="l")
    first = write_results(tmp_path / "a.db", original)
    lines = write_lines(tmp_path / "a.jsonl", *read_results(first))
    take(tmp_path / "b.db", [lines], exchange.read_lines)
    (found,) = read_results(tmp_path / "b.db")
    assert same(found, original)
