"""testbed.results.select: which runs a word means; what is ambiguous is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from support.results import mark, run
from testbed.errors import BadInput
from testbed.results.model import Run
from testbed.results.select import heads, runs
from testbed.results.store import writing

BATCH = "abcd0000-0000-4000-8000-000000000000"
OTHER = "abce0000-0000-4000-8000-000000000000"


def numbered(first: str, seed: int, **more: object) -> Run:
    run_id = f"{first}-0000-4000-8000-000000000000"
    changed = {"id": run_id, "batch": run_id, **more}
    return msgspec.structs.replace(run(seed=seed, turns=1), **changed)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "results.db"
    with writing(file) as results:
        results.add(numbered("11111111", 1, label="nightly", lab="big"))
        results.add(numbered("11112222", 2, label="dead", kind="start"))
        results.add(numbered("22222222", 3, batch=BATCH, fingerprint=mark(commit="dead" + "0" * 36)))
        results.add(numbered("33333333", 4, batch=BATCH, fingerprint=mark(commit="beef" + "0" * 36)))
        results.add(numbered("44444444", 0, batch=OTHER, label="nightly"))
    return file


MEANT = {
    "": "44444444 11111111 11112222 22222222 33333333",  # by age
    "2222": "22222222",
    "latest": "22222222 33333333",
    "abcd": "22222222 33333333",
    "nightly": "44444444 11111111",
    "label=dead": "11112222",
    "commit=dead": "22222222",
    "beef": "33333333",
    "kind=start": "11112222",
    "lab=big": "11111111",
    "id=1111": "11111111 11112222",
}


@pytest.mark.parametrize("selector", MEANT)
def test_what_is_meant(selector: str, path: Path) -> None:
    for text in filter(None, (selector, f"{path}#{selector}" if selector else str(path))):
        where, found = heads(text, path)
        assert where == path
        assert [head.id[:8] for head in found] == MEANT[selector].split()
    assert [each.id for each in runs(selector, path)] == [head.id for head in found]


@pytest.mark.parametrize(
    ("selector", "told"),
    [
        ("1111", "beginning of several ids"),
        ("dead", "commit and label of different runs: write commit=dead"),
        ("222", "means no run"),  # three characters may be anything
        ("label=none", "means no run"),
        ("id=", "means no run"),
        ("colour=red", "means no run"),
    ],
)
def test_what_is_refused(selector: str, told: str, path: Path) -> None:
    with pytest.raises(BadInput, match=told):
        heads(selector, path)


def test_another_file(path: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"other\.db: there is no such"):
        heads(f"{tmp_path}/other.db", path)
    with pytest.raises(BadInput, match=r"other: there is no such"):
        heads(f"{tmp_path}/other#latest", path)
    assert len(heads(str(path), tmp_path / "missing.db")[1]) == 5
