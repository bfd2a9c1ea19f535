"""The cells of a matrix: combinations as GitHub Actions makes them, each checked against its topology.

``exclude`` takes away every combination that has all of an entry's values. An entry of ``include`` is added
to each combination whose axes it does not contradict; where there is none, it is a cell of its own.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from testbed import suites
from testbed.engines.select import NAMES
from testbed.errors import BadInput
from testbed.matrix.file import ENGINE, SUITES, TOPOLOGY, Axes, Entry, Steps, read
from testbed.topology import document, plan_from_file
from testbed.topology.plan import Plan

ALL = "all"
MAX_CELLS = 1000
_OWN = (TOPOLOGY, ENGINE, SUITES)
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
_UNKNOWN = re.compile(r"--set (\w+): (.*)", re.DOTALL)


class Cell(Struct, frozen=True):
    """A run of suites. axes: as the file has them; settings: as for --set. suites: none is all."""

    name: str
    file: Path
    engine: str
    suites: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    axes: dict[str, Any]
    seconds: int
    plan: Plan


def load(path: Path) -> tuple[str, list[Cell]]:
    """Name of a matrix and all its cells, in the order of the file. Raises BadInput, also for topologies."""
    axes = read(path)
    plans: dict[Any, Plan] = {}
    cells: list[Cell] = []
    for combination in combinations(axes):
        cell = _cell(axes, combination, path.parent, plans)
        if any(cell.name == known.name for known in cells):
            steps = next(iter(combination.values())).steps
            raise axes.refused(steps, f"two cells are {cell.name}; remove one of them")
        cells.append(cell)
    return axes.name, cells


def combinations(axes: Axes) -> list[Entry]:
    """What is left of all combinations after exclude and include. Raises BadInput for too many or none."""
    count = 1
    for values in axes.values.values():
        count *= len(values)
    if count + len(axes.include) > MAX_CELLS:
        raise axes.refused(("matrix",), f"it has {count} combinations; at most {MAX_CELLS} are possible")
    made = [
        dict(zip(axes.values, values, strict=True))
        for values in (itertools.product(*axes.values.values()) if axes.values else ())
    ]
    for entry in axes.exclude:
        left = [each for each in made if not _agrees(entry, each)]
        if len(left) == len(made):
            steps = next(iter(entry.values())).steps[:-1]
            raise axes.refused(steps, "no combination has all these values; remove the entry")
        made = left
    found = [(each, dict(each)) for each in made]
    alone: list[Entry] = []
    for entry in axes.include:
        own = {key: value for key, value in entry.items() if key in axes.values}
        fitting = [result for original, result in found if _agrees(own, original)]
        for result in fitting:
            result.update(entry)
        if not fitting:
            alone.append(entry)
    if not found and not alone:
        raise axes.refused(("matrix",), "everything is excluded; leave at least one combination")
    return [result for _, result in found] + alone


def _agrees(entry: Entry, combination: Entry) -> bool:
    return all(combination[key].same(value.value) for key, value in entry.items())


def shard_of(cells: Sequence[Cell], shard: str) -> list[Cell]:
    """Every n-th cell from the i-th of "i/n"."""
    index, _, count = shard.partition("/")
    return list(cells[int(index) - 1 :: int(count)])


def _cell(axes: Axes, entry: Entry, folder: Path, plans: dict[Any, Plan]) -> Cell:
    if TOPOLOGY not in entry:
        steps = next(iter(entry.values())).steps[:2]
        raise axes.refused(steps, "a combination has no topology; add it, such as topology: [4host]")
    file = _file(axes, entry, folder)
    engine = str(entry[ENGINE].value) if ENGINE in entry else "auto"
    if engine not in NAMES:
        raise axes.refused(entry[ENGINE].steps, f"no such engine; one of: {', '.join(NAMES)}")
    names = _suites(axes, entry)
    settings = tuple(_settings(entry))
    key = file, settings
    if key not in plans:
        plans[key] = _plan(axes, entry, file, dict(settings))
    axes_of = {key: value.value for key, value in entry.items()}
    name = ".".join(_UNSAFE.sub("-", part).strip("-") for part in _name(file, entry))
    return Cell(name, file, engine, names, settings, axes_of, axes.seconds, plans[key])


def _name(file: Path, entry: Entry) -> Iterator[str]:
    yield file.stem
    if ENGINE in entry:
        yield str(entry[ENGINE].value)
    for key, text in _settings(entry):
        yield "-".join((key, text.strip('"')))
    if SUITES in entry:
        yield "+".join(entry[SUITES].value)


def _file(axes: Axes, entry: Entry, folder: Path) -> Path:
    from testbed.conformance.labs import shipped

    name = str(entry[TOPOLOGY].value)
    for file in (folder / name, folder / f"{name}.yaml", shipped(Path(name).name.removesuffix(".yaml"))):
        if file.is_file():
            return file.absolute()
    steps = entry[TOPOLOGY].steps
    raise axes.refused(steps, f"no topology {name!r}: not beside this file, and none that ships is called so")


def _suites(axes: Axes, entry: Entry) -> tuple[str, ...]:
    if SUITES not in entry or entry[SUITES].value == [ALL]:
        return ()
    names: list[str] = entry[SUITES].value
    for name in names:
        if suites.named(name) is None:
            known = ", ".join([ALL, *(each.name for each in suites.SUITES)])
            raise axes.refused(entry[SUITES].steps, f"there is no suite {name!r}; one of: {known}")
    return tuple(names)


def _settings(entry: Entry) -> Iterator[tuple[str, str]]:
    """The variables as --set takes them. Nothing as a value leaves the topology's own."""
    for key, value in entry.items():
        if key not in _OWN and value.value is not None:
            yield key, _scalar(value.value)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if isinstance(value, str) and (not text or document.scalar(text) != text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'  # "8" is not 8
    return text


def _plan(axes: Axes, entry: Entry, file: Path, settings: dict[str, str]) -> Plan:
    try:
        return plan_from_file(file, settings)
    except BadInput as error:
        steps, message = _blame(entry, file, settings, str(error))
        remedy = "correct it, or leave the combination out under exclude"
        raise axes.refused(steps, f"{file.name} does not take it: {message}; {remedy}") from None


def _blame(entry: Entry, file: Path, settings: dict[str, str], message: str) -> tuple[Steps, str]:
    """Which value is at fault: one that the file does not know, or without which all is well."""
    if (found := _UNKNOWN.match(message)) and found[1] in entry:
        return entry[found[1]].steps, found[2]
    for name in settings:
        try:
            plan_from_file(file, {key: value for key, value in settings.items() if key != name})
        except BadInput:
            continue
        return entry[name].steps, message
    return entry[TOPOLOGY].steps, message
