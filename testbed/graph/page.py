"""One HTML file that shows a Graph and needs nothing else: no network, no other file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from testbed.graph import render
from testbed.graph.colours import subnet_fill, subnet_line, variables
from testbed.graph.model import Graph

_FOLDER = Path(__file__).parent


def write(graph: Graph) -> str:
    """The page. Raises MachineLacks where Graphviz is missing."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    drawing = render.svg(graph, links=True)
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(_read("page.html"))
    return template.render(
        graph=graph,
        data=_data(graph),
        style=Markup(_style(graph)),  # noqa: S704  # ours; values are numbers and colours
        script=Markup(_read("page.js")),  # noqa: S704
        drawing=Markup(drawing[drawing.index("<svg") :]),  # noqa: S704  # Graphviz escapes
    )


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _style(graph: Graph) -> str:
    chips = {subnet.vsid: (subnet_fill(subnet), subnet_line(subnet)) for subnet in graph.subnets}

    def rules(dark: bool) -> str:
        return "".join(
            f'.chip[data-vsid="{vsid}"]{{background:{fill[dark]};border-color:{line[dark]}}}'
            for vsid, (fill, line) in chips.items()
        )

    return (
        f":root{{{variables(dark=False)}}}{rules(dark=False)}\n"
        f"@media (prefers-color-scheme: dark){{:root{{{variables(dark=True)}}}{rules(dark=True)}}}\n"
        f"{_read('page.css')}"
    )


def _data(graph: Graph) -> dict[str, Any]:
    """What the script knows of each thing, by id. host: the id of the host that it is in, or ""."""
    inside = {each.id: host.id for host in graph.hosts for each in (*host.nics, host.team, *host.vms)}
    things = {
        thing.id: {
            "kind": thing.kind,
            "name": thing.name,
            "state": thing.state,
            "notes": thing.notes,
            "details": thing.details,
            "related": thing.related,
            "vsids": thing.vsids,
            "host": inside.get(thing.id, ""),
        }
        for thing in graph.things()
    }
    return {"things": things}
