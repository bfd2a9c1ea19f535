"""Which runs somebody means: a file, ``FILE#SELECTOR``, or a selector in the default file.

A selector is the beginning of an id of a run, of a batch or of a commit, a whole label, ``KEY=VALUE`` with
one of the keys id, batch, commit, label, kind, lab and class, or ``latest``: the newest batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from testbed.errors import BadInput
from testbed.results.model import Run
from testbed.results.store import Head, reading

SHORTEST = 4  # characters of an id or commit that count as its beginning

_BEGINS: dict[str, Callable[[Head], str]] = {
    "id": lambda head: head.id,
    "batch": lambda head: head.batch,
    "commit": lambda head: head.fingerprint.commit,
}
_IS: dict[str, Callable[[Head], str]] = {
    "label": lambda head: head.label,
    "kind": lambda head: head.kind,
    "lab": lambda head: head.lab,
    "class": lambda head: head.class_id,
}
_BARE = ("id", "batch", "commit", "label")


def heads(text: str, default: Path) -> tuple[Path, list[Head]]:
    """The runs that ``text`` means, oldest first, and the file they are in. Raises BadInput for none."""
    path, selector = _split(text, default)
    with reading(path) as results:
        found = results.heads()
    return path, choose(found, selector, str(path))


def runs(text: str, default: Path) -> list[Run]:
    """The same with all samples."""
    path, chosen = heads(text, default)
    with reading(path) as results:
        return [run for head in chosen if (run := results.load(head.id)) is not None]


def choose(found: Sequence[Head], selector: str, where: str) -> list[Head]:
    """Those of ``found`` that a selector means; "" means all. Raises BadInput for none."""
    if not found:
        raise BadInput(f"{where}: there are no runs in it")
    if not selector:
        return [*found]
    if selector == "latest":
        newest = max(found, key=lambda head: head.started).batch
        return [head for head in found if head.batch == newest]
    key, equals, value = selector.partition("=")
    if equals and key in {**_BEGINS, **_IS}:
        chosen = [head for head in found if _matches(head, key, value)]
    else:
        chosen = _bare(found, selector, where)
    if not chosen:
        raise BadInput(f"{where}: {selector!r} means no run: `testbed results list` shows those there are")
    return chosen


def _bare(found: Sequence[Head], selector: str, where: str) -> list[Head]:
    """A selector without a key: it must mean the same runs whatever it is taken for."""
    by_key = {key: [head for head in found if _matches(head, key, selector)] for key in _BARE}
    meant = {key: chosen for key, chosen in by_key.items() if chosen}
    if len({tuple(head.id for head in chosen) for chosen in meant.values()}) > 1:
        if [*meant] == ["id", "batch"]:  # the first run of a batch may have its id
            return meant["batch"]
        keys = " and ".join(meant)
        raise BadInput(
            f"{where}: {selector!r} is the {keys} of different runs: write {next(iter(meant))}={selector}"
        )
    for key in ("id", "commit"):
        of = _BEGINS[key]
        if len({of(head) for head in meant.get(key, ())}) > 1:
            raise BadInput(f"{where}: {selector!r} is the beginning of several {key}s: write more of it")
    return next(iter(meant.values()), [])


def _matches(head: Head, key: str, value: str) -> bool:
    if key in _IS:
        return _IS[key](head) == value
    return len(value) >= SHORTEST and _BEGINS[key](head).startswith(value)


def _split(text: str, default: Path) -> tuple[Path, str]:
    if not text:
        return default, ""
    if Path(text).exists() or text.endswith(".db"):
        return Path(text), ""
    file, hash_sign, selector = text.rpartition("#")
    return (Path(file), selector) if hash_sign and file else (default, selector or text)
