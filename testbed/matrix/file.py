"""A matrix file: axes with their values, ``exclude`` and ``include``, each value with its line.

The keys ``topology``, ``engine`` and ``suites`` are the options of `testbed test`; any other axis is a
variable of the topologies' templates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from testbed.errors import BadInput
from testbed.topology.load import Source, read_as
from testbed.topology.render import begin
from testbed.topology.schema import Name

TOPOLOGY, ENGINE, SUITES = "topology", "engine", "suites"
INCLUDE, EXCLUDE = "include", "exclude"
Steps = tuple[str | int, ...]


class MatrixFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole file. seconds: until a cell is ended."""

    name: Name
    matrix: dict[str, Any]
    seconds: Annotated[int, Meta(ge=10, le=7200, description="seconds that a cell may take")] = 600


class Value(Struct, frozen=True):
    """A value of an axis and where it stands in the file."""

    value: Any
    steps: Steps

    def same(self, other: Any) -> bool:
        """Whether it is this value: 1 is not true, as it would be in Python."""
        return type(self.value) is type(other) and bool(self.value == other)


Entry = dict[str, Value]


class Axes(Struct, frozen=True):
    """What the file says: values of each axis; combinations that are excluded; what is added."""

    name: str
    seconds: int
    values: dict[str, list[Value]]
    exclude: list[Entry]
    include: list[Entry]
    source: Source

    def refused(self, steps: Steps, message: str) -> BadInput:
        """An error with its place in the file."""
        return BadInput(self.source.place(*steps)[1] + message)


def read(path: Path) -> Axes:
    """The axes in a file. Raises BadInput with file, line, key and remedy."""
    with begin(path, {}) as rendering:
        found, source = read_as(rendering, MatrixFile)
    axes = Axes(found.name, found.seconds, {}, [], [], source)
    if not found.matrix:
        raise axes.refused(("matrix",), "it is empty; give it axes, or combinations under include")
    for key, value in found.matrix.items():
        steps: Steps = ("matrix", key)
        if not isinstance(value, list) or not value:
            raise axes.refused(steps, "must be a list with at least one item, such as [4host]")
        if key in (INCLUDE, EXCLUDE):
            entries = axes.include if key == INCLUDE else axes.exclude
            entries += [_entry(axes, item, (*steps, index)) for index, item in enumerate(value)]
        else:
            _check_key(axes, key, steps)
            axes.values[key] = [_value(axes, key, item, (*steps, i)) for i, item in enumerate(value)]
    _check_excluded(axes)
    return axes


def _entry(axes: Axes, item: Any, steps: Steps) -> Entry:
    if not isinstance(item, dict) or not item:
        raise axes.refused(steps, "must be a mapping of axes to values, such as {topology: 4host, nic: r2}")
    for key in item:
        _check_key(axes, key, (*steps, key))
    return {key: _value(axes, key, value, (*steps, key)) for key, value in item.items()}


def _check_key(axes: Axes, key: str, steps: Steps) -> None:
    if not key.isidentifier():
        raise axes.refused(steps, "an axis is topology, engine, suites or the name of a template's variable")


def _value(axes: Axes, key: str, item: Any, steps: Steps) -> Value:
    names = [item] if isinstance(item, str) else item
    if key == SUITES and isinstance(names, list) and names and all(isinstance(one, str) for one in names):
        return Value(names, steps)
    if key == SUITES:
        raise axes.refused(steps, "must be the name of a suite, a list of names, or all")
    if isinstance(item, dict | list):
        raise axes.refused(steps, "must be a single value: a topology's variable takes no list or mapping")
    if key in (TOPOLOGY, ENGINE) and not isinstance(item, str):
        raise axes.refused(steps, f"must be a name, such as {'4host' if key == TOPOLOGY else 'docker'}")
    return Value(item, steps)


def _check_excluded(axes: Axes) -> None:
    for entry in axes.exclude:
        for key, value in entry.items():
            if key not in axes.values:
                known = ", ".join(axes.values) or "none"
                raise axes.refused(value.steps, f"the matrix has no such axis; its axes are: {known}")
            if not any(one.same(value.value) for one in axes.values[key]):
                raise axes.refused(value.steps, f"the axis {key} has no such value; correct or remove it")
