"""Graphviz draws: DOT text in, SVG or PNG out."""

from __future__ import annotations

import shutil
import subprocess
from typing import Literal

from testbed.errors import MachineLacks
from testbed.graph import dot
from testbed.graph.colours import dark_rules
from testbed.graph.model import Graph

SECONDS = 60.0  # the largest topologies take a few


def svg(graph: Graph, *, links: bool = False) -> str:
    """An SVG document that is dark where its reader likes it dark. Raises MachineLacks."""
    text = draw(dot.write(graph, links=links), "svg").decode()
    head, start, rest = text.partition("<g id=")
    return f"{head}<style>{dark_rules(graph.subnets)}</style>\n{start}{rest}"


def png(graph: Graph) -> bytes:
    """A PNG picture for high-resolution screens. Raises MachineLacks."""
    return draw(dot.write(graph), "png", "-Gdpi=144")


def draw(text: str, form: Literal["svg", "png"], *options: str) -> bytes:
    """What ``dot`` makes of DOT text. Raises MachineLacks where it is missing or does not do it."""
    program = shutil.which("dot")
    if program is None:
        raise MachineLacks(
            "SVG, PNG and HTML are drawn by Graphviz, whose dot is not on the path: install graphviz "
            "(--format text, dot and json need none)"
        )
    try:
        done = subprocess.run(
            [program, f"-T{form}", *options],
            input=text.encode(),
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MachineLacks(f"{program} has not drawn it within {SECONDS:g} s: try a smaller graph") from None
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise MachineLacks(f"{program} cannot draw it: {said}")
    return done.stdout
