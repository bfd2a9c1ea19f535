"""What the verbs print: tables for people, JSON for programs, progress on a terminal only."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click
import msgspec

_Command = TypeVar("_Command", bound=Callable[..., Any] | click.Command)


def formats(others: Sequence[str], for_whom: str) -> Callable[[_Command], _Command]:
    """How a command's result is told: a table, or one of ``others``."""
    return click.option(
        "-f",
        "--format",
        "output",
        type=click.Choice(["table", *others]),
        default="table",
        show_default=True,
        help=for_whom,
    )


format_option = formats(["json"], "For people or for programs.")


def report_option(whose: str) -> Callable[[_Command], _Command]:
    """The same with Markdown, for ``whose``."""
    return formats(["json", "markdown"], f"For people, for programs, or for {whose}.")


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    click.echo(msgspec.json.format(msgspec.json.encode(data), indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
    """A table on standard output; without colour and frame where that is not a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    table = Table(*columns, title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(_text(cell) for cell in row))
    Console(width=None if terminal else 200, markup=False, highlight=False).print(table)


def _text(cell: Any) -> str:
    if isinstance(cell, list | tuple):
        return ", ".join(str(each) for each in cell)
    return "" if cell is None else str(cell)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show what is being done, on standard error and only if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield status.update
