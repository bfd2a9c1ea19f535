"""A collection of problems in a topology file, each with its place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from testbed.topology.document import dotted, short

if TYPE_CHECKING:
    from testbed.topology.load import Source

Path = tuple[str | int, ...]
MAX_REPORTED = 50


class Problems:
    """What is wrong with one file; ordered by line when read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._found: list[tuple[int, int, str]] = []

    def add(self, path: Path, message: str) -> None:
        """Note a problem with the value at ``path``; the message ends with a remedy."""
        line, place = self._source.place(*path)
        self._found.append((line, len(self._found), place + message))

    def wrong_value(self, below: Path, error: str, root: type) -> None:
        """Note a msgspec error in the value at ``below``, which should have the type ``root``."""
        from testbed.topology.load import value_message

        path, text = value_message(self._source, error, root, below)
        self._found.append((self._source.place(*path)[0], len(self._found), text))

    def unknown(self, path: Path, kind: str, name: str, known: Sequence[str]) -> None:
        """Note a reference to something that does not exist."""
        from difflib import get_close_matches

        close = get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        self.add(path, f'unknown {kind} "{short(name)}"; {hint}the file has: {shown or "none"}')

    def unique(self, values: Iterable[tuple[Path, str]], message: str) -> None:
        """Note every value that occurred before; ``{first}`` in the message stands for where."""
        seen: dict[str, Path] = {}
        for path, value in values:
            if value in seen:
                self.add(path, f'"{short(value)}" ' + message.replace("{first}", self.where(seen[value])))
            else:
                seen[value] = path

    def where(self, path: Path) -> str:
        """``hosts[0].name (line 7)``."""
        number = self._source.line_number(self._source.root.line_of(path))
        return dotted(path) + (f" (line {number})" if number else "")

    def lines(self) -> list[str]:
        """One line per problem, in the order of the file; the rest is counted when there are very many."""
        found = [text for _, _, text in sorted(self._found)]
        if len(found) > MAX_REPORTED:
            rest = len(found) - MAX_REPORTED
            found = [*found[:MAX_REPORTED], f"{self._source.path}: and {rest} more problems"]
        return found
