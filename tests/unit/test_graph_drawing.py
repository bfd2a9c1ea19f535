"""DOT, SVG, PNG and the page: drawn by Graphviz, escaped, with enough contrast."""

from __future__ import annotations

import json
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from support import graphs
from support.cli import TOPOLOGIES
from testbed.cli.main import cli
from testbed.errors import BadInput, MachineLacks
from testbed.graph import colours, dot, page, render
from testbed.graph.build import build
from testbed.graph.model import CableState, Subnet
from testbed.topology.plan import Plan

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="no Graphviz")
SVG = "{http://www.w3.org/2000/svg}"
TWO_HOSTS = str(TOPOLOGIES / "2host.yaml")


def words(svg: str) -> list[str]:
    """The pieces of text of a drawing; a blank of it is a no-break space."""
    tree = ET.fromstring(svg)
    return ["".join(each.itertext()).replace("\xa0", " ") for each in tree.iter(f"{SVG}text")]


class Page(HTMLParser):
    """How many elements of each kind, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


# ---- drawings -----------------------------------------------------------------------------


@needs_dot
@pytest.mark.parametrize("name", ["2host", "4host", "team", "dhcp", "cluster"])
@pytest.mark.parametrize("links", [False, True])
def test_graphviz_draws_every_topology_that_ships(name: str, links: bool) -> None:
    graph = build(graphs.plan(name))
    svg = render.svg(graph, links=links)
    found = words(svg)
    for each in (*graph.switches, *graph.hosts, *(vm for host in graph.hosts for vm in host.vms)):
        assert each.name in found
    hrefs = {*re.findall(r'xlink:href="#(\w+)"', svg)}
    assert hrefs == ({each.id for each in graph.things() if _is_drawn(graph, each.id)} if links else set())


def _is_drawn(graph: object, identity: str) -> bool:
    """Whether it has a place of its own in a drawing: the team of a single NIC has none."""
    alone = [host.team.id for host in graph.hosts if len(host.nics) == 1]  # type: ignore[attr-defined]
    return identity not in alone


@needs_dot
def test_the_largest_topology_is_drawn_soon() -> None:
    graph = build(graphs.plan("4host", hosts="32", vms_per_host="8"))
    begin = time.monotonic()
    svg = render.svg(graph)
    assert time.monotonic() - begin < 30
    assert words(svg).count("host32") == 1
    assert len(dot.rows_of(graph.hosts)) == 4
    width, height = map(float, re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2])
    assert 1 < width / height < 3


@needs_dot
def test_what_is_wrong_is_in_the_drawing() -> None:
    plan = graphs.plan("2host")
    down = {"host1:nic1": CableState(False, {})}
    good, bad = (render.svg(build(plan, graphs.live(plan, cables=cables))) for cables in ({}, down))
    assert ("link down" in words(good), "link down" in words(bad)) == (False, True)
    assert (good.count("stroke-dasharray"), bad.count("stroke-dasharray")) == (0, 1)
    assert 'class="edge bad"' in bad


@needs_dot
@pytest.mark.parametrize("plan", [graphs.hostile(), graphs.renamed()], ids=["values", "names"])
def test_nothing_that_is_said_becomes_code(plan: Plan) -> None:
    graph = build(plan)
    svg = render.svg(graph, links=True)  # which ElementTree takes
    assert (graphs.SHOWN in words(svg)) is (plan.name == graphs.HOSTILE)
    found = Page(page.write(graph))
    good = Page(page.write(build(graphs.plan("2host"))))
    assert found.counts == good.counts
    assert found.counts["script"] == 2
    told = json.loads(found.scripts[0])["things"].values()
    if plan.name != graphs.HOSTILE:
        assert ["image", graphs.HOSTILE] in [detail for each in told for detail in each["details"]]


@needs_dot
def test_a_png_is_one() -> None:
    assert render.png(build(graphs.plan("2host"))).startswith(b"\x89PNG\r\n")


def test_the_page_names_no_other_place() -> None:
    folder = Path(page.__file__).parent
    text = "".join((folder / f"page.{ending}").read_text() for ending in ("html", "css", "js"))
    assert re.findall(r"https?://(?!www\.w3\.org/1999/xlink)|@import|url\(|fetch\(|XMLHttp", text) == []
    assert "default-src 'none'" in text


def test_without_graphviz(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineLacks, match="install graphviz"):
        render.svg(build(graphs.plan("2host")))
    assert CliRunner().invoke(cli, ["graph", TWO_HOSTS, "-f", "dot"]).output.startswith('graph "2host" {')
    result = CliRunner().invoke(cli, ["graph", TWO_HOSTS, "-o", str(tmp_path / "x.svg")])
    assert isinstance(result.exception, MachineLacks)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("script", "said"), [("exec sleep 60", "within 0.2 s"), ("echo no >&2; exit 3", "cannot draw it: no")]
)
def test_graphviz_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, said: str) -> None:
    program = tmp_path / "dot"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(program))
    monkeypatch.setattr(render, "SECONDS", 0.2 if "sleep" in script else 30.0)
    with pytest.raises(MachineLacks, match=said):
        render.draw("graph {}", "svg")


# ---- colours ------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


SUBNETS = [Subnet(1, "x", (), hue, shade) for hue in range(25) for shade in range(4)]
PAIRS = [
    *((ink, ground) for ink in ("text", "muted") for ground in ("page", "card", "head", "nic", "team")),
    *((state, f"{state}-tint") for state in ("good", "warn", "bad")),
    *((state, ground) for state in ("good", "warn", "bad") for ground in ("nic", "head", "card")),
    ("on-switch", "switch"),
    ("on-port", "port"),
    ("text", "warn-tint"),
    ("text", "bad-tint"),
]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read(dark: bool) -> None:
    low = {
        pair: ratio
        for pair in PAIRS
        if (ratio := contrast(*(colours.ROLES[role][dark] for role in pair))) < 4.5
    }
    for subnet in (None, *SUBNETS):
        for role in ("text", "muted"):
            ratio = contrast(colours.ROLES[role][dark], colours.subnet_fill(subnet)[dark])
            if ratio < 4.5:
                low[role, str(subnet)] = ratio
    assert low == {}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_cables_can_be_seen(dark: bool) -> None:
    page_colour = colours.ROLES["page"][dark]
    low = [role for role in ("cable", "warn", "bad") if contrast(colours.ROLES[role][dark], page_colour) < 3]
    assert low == []


def test_each_colour_of_a_drawing_is_one_role() -> None:
    days = [pair[0] for pair in colours.ROLES.values()]
    assert len(set(days)) == len(days)
    own = {colour[0] for each in SUBNETS for colour in (colours.subnet_fill(each), colours.subnet_line(each))}
    assert not own & {*days}


@needs_dot
def test_all_colours_of_a_drawing_have_a_dark_one() -> None:
    plan = graphs.plan("4host")
    down = {"host1:nic1": CableState(False, {})}
    graph = build(plan, graphs.live(plan, cables=down))
    svg = render.svg(graph)
    used = {*re.findall(r' (?:fill|stroke)="([^"]+)"', svg)} - {"none", "transparent"}
    assert used <= {*colours.pairs(graph.subnets)}


# ---- the verb -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([TWO_HOSTS, "-o", "x.pdf"], "its ending tells no format"),
        ([TWO_HOSTS, "-o", "no/such/x.svg"], "there is no folder no/such"),
        (["lab", "--set", "hosts=3"], "--set is for topology files"),
        (["no/such.yaml"], "no/such.yaml"),
    ],
)
def test_bad_usage(arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["graph", *arguments])
    assert isinstance(result.exception, BadInput)
    assert said in str(result.exception)
    assert not [*tmp_path.iterdir()]


@needs_dot
@pytest.mark.parametrize("ending", ["svg", "png", "html", "dot", "json", "txt"])
def test_a_file_is_written_whole(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"x.{ending}"
    file.write_bytes(b"before")
    result = CliRunner().invoke(cli, ["graph", TWO_HOSTS, "-o", str(file)])
    assert result.exit_code == 0, result.exception
    assert result.output == ""
    begin = {"svg": b"<?xml", "png": b"\x89PNG", "html": b"<!DOCTYPE html>", "dot": b"graph", "json": b"{"}
    assert file.read_bytes().startswith(begin.get(ending, b"2host: 2 hosts"))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_settings_reach_the_template() -> None:
    found = CliRunner().invoke(cli, ["graph", str(TOPOLOGIES / "4host.yaml"), "--set", "hosts=3"]).output
    assert found.startswith("4host: 3 hosts, 6 VMs")
