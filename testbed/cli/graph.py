"""graph: a picture of a running lab or of a topology file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.cli.labs import set_option, variables
from testbed.errors import BadInput

if TYPE_CHECKING:
    from testbed.graph.model import Graph

FORMS = ("text", "dot", "json", "svg", "png", "html")
_COLOURS = {"plain": None, "good": None, "warn": "yellow", "bad": "red"}


@click.command()
@click.argument("name", metavar="NAME|FILE")
@set_option
@click.option("-o", "--output", metavar="FILE", help="Where to write it; - is standard output, the default.")
@click.option(
    "-f", "--format", "form", type=click.Choice(FORMS), help="Default: by the ending of FILE, else text."
)
def graph(name: str, settings: tuple[str, ...], output: str | None, form: Any) -> None:
    """Draw a running lab, with its state as it is now, or a topology file.

    A word with neither dot nor slash is the name of a lab.
    """
    path = None if output in (None, "-") else Path(str(output))
    form = form or (_form_of(path) if path else "text")
    if path is None and form == "png" and sys.stdout.isatty():
        raise BadInput("a PNG is nothing for a terminal: say -o FILE.png")
    _check(path)
    found = _graph(name, settings)
    if form == "text" and path is None:
        _print(found)
        return
    data = _written(found, form)
    if path is None:
        click.echo(data, nl=False)
    else:
        _save(path, data)


def _form_of(path: Path) -> str:
    ending = path.suffix.removeprefix(".").lower()
    ending = {"txt": "text", "gv": "dot", "htm": "html"}.get(ending, ending)
    if ending not in FORMS:
        raise BadInput(
            f"{path}: its ending tells no format; use .svg, .png, .html, .dot or .json, or --format"
        )
    return ending


def _graph(name: str, settings: tuple[str, ...]) -> Graph:
    from testbed.graph.build import build

    if "." in name or "/" in name:
        from testbed.topology import plan_from_file

        return build(plan_from_file(Path(name), variables(settings)))
    if settings:
        raise BadInput(f"--set is for topology files; {name} is the name of a lab (a file would be ./{name})")
    import msgspec

    from testbed.lab.graph import live
    from testbed.lab.lab import Lab

    with Lab.open(name) as lab:
        return build(msgspec.structs.replace(lab.plan, name=lab.record.name), live(lab))


def _print(found: Graph) -> None:
    from testbed.graph import text

    for line, state in text.lines(found):
        colour = _COLOURS[state]
        click.echo(click.style(line, fg=colour) if colour else line)


def _written(found: Graph, form: str) -> bytes:
    import msgspec

    from testbed.graph import dot, page, render, text

    if form == "png":
        return render.png(found)
    if form == "json":
        return msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
    if form == "text":
        return "".join(f"{line}\n" for line, _ in text.lines(found)).encode()
    write = {"dot": dot.write, "svg": render.svg, "html": page.write}[form]
    return write(found).encode()


def _check(path: Path | None) -> None:
    """That it can be written, before anything is asked or drawn."""
    if path and (path.is_dir() or not path.parent.is_dir()):
        raise BadInput(
            f"-o {path}: {'it is a folder' if path.is_dir() else f'there is no folder {path.parent}'}"
        )


def _save(path: Path, data: bytes) -> None:
    """Write all of a file or, on an error, nothing."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and not path.is_file():  # a pipe, /dev/stdout
            path.write_bytes(data)
            return
        try:
            scratch.write_bytes(data)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(f"-o {path}: {error.strerror}") from error


COMMANDS = (graph,)
