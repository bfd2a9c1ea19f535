"""From a topology file to typed data; every error names file, line, key and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

from testbed.errors import BadInput
from testbed.topology import document
from testbed.topology.document import Node, YamlError, dotted, short
from testbed.topology.render import Rendering, begin
from testbed.topology.schema import Topology

T = TypeVar("T", bound=msgspec.Struct)

_PATH_STEP = re.compile(r"\.([^.\[\]]+)|\[([0-9]+)\]")
_BOUND = re.compile(r"Expected `(\w+)` ([<>]=?) (-?[0-9]+)")
_WORDS = {"str": "a string", "int": "a whole number", "array": "a list", "object": "a mapping"}
_WORDS |= {"bool": "a boolean", "null": "nothing", "float": "a number"}


class Source:
    """A read topology file: it knows the line of every key, in the user's own file."""

    def __init__(self, path: Path, root: Node, lines: Callable[[], list[int] | None]) -> None:
        self.path = path
        self.root = root
        self._find_lines = lines
        self._lines: list[int] | None = None
        self._searched = False

    def place(self, *path: str | int) -> tuple[int, str]:
        """Where a key or list item stands: its rendered line (to sort by), and ``FILE:LINE: KEY: ``."""
        line = self.root.line_of(path)
        return line, f"{self.line(line)}: {dotted(path)}: "

    def line(self, rendered_line: int) -> str:
        """``FILE:LINE`` of a rendered line (from 0)."""
        number = self.line_number(rendered_line)
        if number is None:
            return f"{self.path}: rendered line {rendered_line + 1} (see `testbed render`)"
        return f"{self.path}:{number}"

    def line_number(self, rendered_line: int) -> int | None:
        """Line (from 1) of the user's file for a rendered line (from 0), or None if it can't be known."""
        if not self._searched:
            self._searched, self._lines = True, self._find_lines()
        if self._lines is None:
            return None
        return self._lines[min(rendered_line, len(self._lines) - 1)]


def load(path: Path, variables: Mapping[str, str]) -> Topology:
    """The topology in a file, each value checked by itself. Raises BadInput."""
    with begin(path, variables) as rendering:
        return read(rendering)[0]


def render(path: Path, variables: Mapping[str, str]) -> str:
    """The file's text after Jinja2. Raises BadInput."""
    with begin(path, variables) as rendering:
        return rendering.text()


def read(rendering: Rendering) -> tuple[Topology, Source]:
    """The topology in a file, and the places of its values for further checks. Raises BadInput."""
    return read_as(rendering, Topology)


def read_as(rendering: Rendering, kind: type[T]) -> tuple[T, Source]:
    """As :func:`read`, for a file that holds something else. Raises BadInput."""
    try:
        root = document.parse(rendering.text())
    except YamlError as error:
        source = Source(rendering.path, Node(0, {}), rendering.lines)
        raise BadInput(_yaml_message(source, error)) from None
    source = Source(rendering.path, root, rendering.lines)
    try:
        return msgspec.convert(root.data(), kind), source
    except msgspec.ValidationError as error:
        raise BadInput(value_message(source, str(error), kind)[1]) from None


def _yaml_message(source: Source, error: YamlError) -> str:
    message = error.message
    if error.earlier is not None:
        number = source.line_number(error.earlier)
        message = message.replace("{earlier}", str(number or f"{error.earlier + 1} of the rendered text"))
    key = f"{error.key}: " if error.key else ""
    return f"{source.line(error.line)}: {key}{message}"


def value_message(
    source: Source, error: str, root: Any = Topology, below: document.Path = ()
) -> tuple[document.Path, str]:
    """Path and one line for a msgspec error, such as "Expected `int`, got `str` - at `$.vms[0].vsid`".

    root: the type that the value at ``below`` should have.
    """
    what, _, location = error.partition(" - at `$")
    path = tuple(int(number) if number else name for name, number in _PATH_STEP.findall(location.rstrip("`")))
    here = (*below, *path)
    if found := re.match(r"Object contains unknown field `(.*)`\Z", what, re.DOTALL):
        return here, _unknown_key(source, here, _type_at(root, path), found[1])
    if found := re.match(r"Object missing required field `(.*)`", what):
        return here, source.place(*here, found[1])[1] + "this key is missing; add it"
    node = source.root.at(here)
    return here, source.place(*here)[1] + _wrong_value(what, node, _type_at(root, path))


def _unknown_key(source: Source, path: document.Path, kind: Any, key: str) -> str:
    from difflib import get_close_matches

    struct = _struct(kind)
    known = list(struct.__struct_fields__) if struct else []
    close = get_close_matches(key, known, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    _, place = source.place(*path, key)
    place = place.removesuffix(f"{dotted((*path, key))}: ") + dotted((*path, short(key)))
    return f"{place}: unknown key; {hint}known here: {', '.join(known) or 'none'}"


def _wrong_value(what: str, node: Node | None, kind: Any) -> str:
    """What is wrong with one value, in terms of the file."""
    value = node.value if node else None
    shown = f'"{short(value)}"' if isinstance(value, str) else short(str(value))
    if "matching regex" in what:
        return f"{shown} is not allowed; must be {_description(kind)}"
    if what.startswith("Invalid enum value"):
        choices = ", ".join(str(choice) for choice in _choices(kind))
        return f"{shown} is not allowed; must be one of: {choices}"
    if "of length" in what:
        return f"must have {_length(kind)}; this has {len(value) if isinstance(value, (str, list)) else 0}"
    if found := _BOUND.match(what):
        bound = {">=": "at least", "<=": "at most"}.get(found[2], found[2])
        return f"{shown} is out of range; must be {bound} {found[3]} ({_description(kind)})"
    if found := re.match(r"Expected `(\w+)(?: \| null)?`, got `(\w+)`", what):
        return _wrong_type(found[1], found[2], value, node.raw if node else "")
    return what if ";" in what else f"{what}; change the value"


def _wrong_type(expected: str, got: str, value: object, raw: str) -> str:
    """One sentence on a value of the wrong type. raw: a plain scalar's text."""
    wanted, given = _WORDS.get(expected, expected), _WORDS.get(got, got)
    if got == "null":
        return f"expected {wanted}, got nothing; give it a value or leave the key out"
    if expected == "str" and raw:
        return f'expected {wanted}, but YAML reads {short(raw)} as {given}; quote it: "{short(raw)}"'
    shown = f' "{short(value)}"' if isinstance(value, str) else f" {short(raw)}" if raw else ""
    if expected == "int":
        remedy = "remove the quotes" if isinstance(value, str) and value.isdecimal() else "write it in digits"
        return f"expected {wanted}, got {given}{shown}; {remedy}"
    return f"expected {wanted}, got {given}{shown}; write {wanted}"


def _type_at(kind: Any, path: document.Path) -> Any:
    """The type at ``path`` inside ``kind``, with its annotations."""
    for step in path:
        if isinstance(step, int):
            kind = get_args(_plain(kind))[0]
            continue
        struct = _struct(kind)
        fields = {field.name: field.type for field in msgspec.structs.fields(struct)} if struct else {}
        kind = fields.get(step)
    return kind


def _plain(kind: Any) -> Any:
    """``kind`` without Annotated and without ``| None``."""
    while True:
        if hasattr(kind, "__metadata__"):
            kind = kind.__origin__
        elif get_origin(kind) in (Union, UnionType):
            kind = next(part for part in get_args(kind) if part is not type(None))
        else:
            return kind


def _struct(kind: Any) -> type[msgspec.Struct] | None:
    kind = _plain(kind)
    return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None


def _meta(kind: Any) -> list[msgspec.Meta]:
    if get_origin(kind) in (Union, UnionType):
        return [meta for part in get_args(kind) for meta in _meta(part)]
    return [meta for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]


def _description(kind: Any) -> str:
    return next((meta.description for meta in _meta(kind) if meta.description), "")


def _choices(kind: Any) -> tuple[Any, ...]:
    return get_args(_plain(kind))


def _length(kind: Any) -> str:
    for meta in _meta(kind):
        if meta.min_length == meta.max_length and meta.min_length is not None:
            return f"{meta.min_length} items"
        if meta.max_length is not None:
            return f"{meta.min_length or 0} to {meta.max_length} items"
        if meta.min_length is not None:
            return f"at least {meta.min_length} item{'s' if meta.min_length > 1 else ''}"
    return "another length"
