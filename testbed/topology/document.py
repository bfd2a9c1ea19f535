"""A YAML document as data that remembers its lines.

The tree is built from the parser's events, not with PyYAML's constructors: those know neither
duplicate keys nor limits, and its C composer overflows the stack on deep nesting.
Plain scalars are read as YAML 1.1 reads them, but where that would surprise (octal and
sexagesimal numbers, dates) the document is refused instead.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

MAX_NODES = 100_000  # after the expansion of aliases
MAX_DEPTH = 32

_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep; make it flatter"

Path = tuple[str | int, ...]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})\Z|0x[0-9a-fA-F]{1,16}\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class YamlError(Exception):
    """What is wrong and the remedy, with the line (from 0), the key and an earlier line where known.

    ``{earlier}`` in the message stands for the earlier line.
    """

    def __init__(self, line: int, message: str, key: str = "", earlier: int | None = None) -> None:
        super().__init__(message)
        self.line, self.message, self.key, self.earlier = line, message, key, earlier


class Node:
    """A value of the document. value: a scalar, a list of nodes, or a dict of nodes by key.

    line: from 0; key_lines: of a mapping; raw: a plain scalar's text; size: nodes in the subtree.
    """

    __slots__ = ("key_lines", "line", "raw", "size", "value")

    def __init__(self, line: int, value: Any, raw: str = "") -> None:
        self.line = line
        self.value = value
        self.raw = raw
        self.size = 1
        self.key_lines: dict[str, int] = {}

    def data(self) -> Any:
        """The value as plain Python data."""
        if isinstance(self.value, dict):
            return {key: node.data() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.data() for node in self.value]
        return self.value

    def line_of(self, path: Path) -> int:
        """Line (from 0) of the key or list item at ``path``, or of its nearest existing parent."""
        node: Node = self
        line = self.line
        for step in path:
            child = node.at((step,))
            if child is None:
                break
            line = node.key_lines[step] if isinstance(step, str) else child.line
            node = child
        return line

    def at(self, path: Path) -> Node | None:
        """The node at ``path``, or None."""
        node = self
        for step in path:
            try:
                node = node.value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return node


def parse(text: str) -> Node:
    """The single document in ``text``, a mapping. Raises YamlError."""
    return _Parser(text).document()


def scalar(text: str) -> Any:
    """The value of a plain scalar: ``8`` is an int, ``no`` is False. Raises YamlError."""
    node = _Parser(text).root()
    if isinstance(node.value, (dict, list)):
        raise YamlError(0, "must be a single value; a list or mapping can't be passed")
    return node.value


def dotted(path: Path) -> str:
    """``vms[2].vnics[0].vsid``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._loader = _Loader(text)
        self._anchors: dict[str, Node | None] = {}  # None: the node is not complete yet
        self._nodes = 0

    def document(self) -> Node:
        root = self.root()
        if not isinstance(root.value, dict):
            raise YamlError(root.line, "the file must be a mapping; start with `name: NAME`")
        return root

    def root(self) -> Node:
        """The one node of the stream."""
        self._next()  # stream start
        if isinstance(event := self._next(), StreamEndEvent):
            raise YamlError(0, "the file is empty; start with `name: NAME`")
        root = self._node(self._next(), (), 0)
        self._next()  # document end
        if isinstance(event := self._next(), DocumentStartEvent):
            raise YamlError(_line(event), "a second document begins; keep one topology in a file")
        return root

    def _next(self) -> Event:
        try:
            event: Event = self._loader.get_event()
        except yaml.MarkedYAMLError as error:
            mark, begin = error.problem_mark or error.context_mark, error.context_mark
            if "nesting" in (error.problem or ""):  # newer versions of libyaml have a limit of their own
                raise YamlError(mark.line if mark else 0, _TOO_DEEP) from None
            what = f"{error.context or ''} {error.problem or ''}".strip()
            earlier = begin.line if begin and mark and begin.line != mark.line else None
            if earlier is not None:
                what = f"{error.context} that begins on line {{earlier}}: {error.problem}"
            remedy = "check indentation, brackets and quotes here"
            if mark and self._indented_with_tab(mark.line):
                remedy = "indent with spaces, not with tabs"
            raise YamlError(mark.line if mark else 0, f"YAML: {what}; {remedy}", earlier=earlier) from None
        except yaml.YAMLError as error:
            raise YamlError(0, f"YAML: {' '.join(str(error).split())}; check the file's characters") from None
        return event

    def _indented_with_tab(self, line: int) -> bool:
        text = "".join(self._text.split("\n")[line : line + 1])
        return "\t" in text[: len(text) - len(text.lstrip())]

    def _node(self, event: Event, path: Path, depth: int) -> Node:
        line = _line(event)
        self._count(line, 1, path)
        if isinstance(event, AliasEvent):
            return self._alias(event, path)
        if depth > MAX_DEPTH:
            raise YamlError(line, _TOO_DEEP, dotted(path))
        assert isinstance(event, (ScalarEvent, SequenceStartEvent, MappingStartEvent))
        anchor, tag = event.anchor, event.tag
        if tag not in (None, "!", _TAG + "str", _TAG + "seq", _TAG + "map"):
            raise YamlError(line, f"the tag {short(tag)} is not allowed; remove it", dotted(path))
        if anchor is not None:
            self._anchors[anchor] = None
        if isinstance(event, ScalarEvent):
            node = self._scalar(event, path)
        elif isinstance(event, SequenceStartEvent):
            node = self._sequence(line, path, depth)
        else:
            node = self._mapping(line, path, depth)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _count(self, line: int, nodes: int, path: Path) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            message = f"more than {MAX_NODES} values once aliases are expanded; make the file smaller"
            raise YamlError(line, message, dotted(path))

    def _alias(self, event: AliasEvent, path: Path) -> Node:
        line = _line(event)
        name = event.anchor or ""
        if name not in self._anchors:
            message = f"*{name} names no anchor; put &{name} before the value it means"
            raise YamlError(line, message, dotted(path))
        node = self._anchors[name]
        if node is None:
            raise YamlError(line, f"*{name} contains itself; write the value out", dotted(path))
        self._count(line, node.size, path)
        return node

    def _sequence(self, line: int, path: Path, depth: int) -> Node:
        items: list[Node] = []
        node = Node(line, items)
        while not isinstance(event := self._next(), SequenceEndEvent):
            item = self._node(event, (*path, len(items)), depth + 1)
            node.size += item.size
            items.append(item)
        return node

    def _mapping(self, line: int, path: Path, depth: int) -> Node:
        items: dict[str, Node] = {}
        node = Node(line, items)
        while not isinstance(event := self._next(), MappingEndEvent):
            at = _line(event)
            if not isinstance(event, ScalarEvent):
                raise YamlError(at, "a key must be a word, not a list, mapping or alias", dotted(path))
            key = event.value
            if key == "<<" and event.implicit[0]:
                message = "merge keys are not supported; use a Jinja2 loop or write the keys out"
                raise YamlError(at, message, dotted((*path, key)))
            if key in items:
                message = "the key stands twice, first on line {earlier}; remove one"
                raise YamlError(at, message, dotted((*path, short(key))), node.key_lines[key])
            value = self._node(self._next(), (*path, key), depth + 1)
            items[key], node.key_lines[key] = value, at
            node.size += value.size + 1
        return node

    def _scalar(self, event: ScalarEvent, path: Path) -> Node:
        text: str = event.value
        line = _line(event)
        if not event.implicit[0]:
            return Node(line, text)
        kind = str(self._loader.resolve(yaml.ScalarNode, text, (True, False))).removeprefix(_TAG)
        if kind == "null":
            return Node(line, None, text)
        if kind == "bool":
            return Node(line, _WORDS[text.lower()], text)
        if kind == "int" and _INTEGER.match(text):
            return Node(line, int(text, 0), text)
        if kind == "float" and _FLOAT.match(text):
            return Node(line, float(text), text)
        if kind in ("int", "float", "timestamp"):
            what = "a date" if kind == "timestamp" else "an unusual number"
            remedy = f'write a decimal number, or quote it: "{short(text)}"'
            message = f"YAML reads {short(text)} as {what}; {remedy}"
            raise YamlError(line, message, dotted(path))
        return Node(line, text)


def _line(event: Event) -> int:
    return event.start_mark.line if event.start_mark else 0


def short(text: str) -> str:
    """At most 60 printable characters of ``text``."""
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return shown if len(shown) <= 60 else shown[:57] + "..."
