"""A Graph in the DOT language: switches on top, then hosts in rows, each a card with NICs, team and VMs."""

from __future__ import annotations

import html
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from testbed.graph.colours import PLAIN_LINE, light, subnet_fill, subnet_line
from testbed.graph.model import Adapter, Cable, Graph, Host, State, Subnet, Thing, Vm

_ONE_ROW = 5  # so many hosts stand beside each other
_WIDER = 2.0  # more hosts: this many times as many columns as rows
_COLUMNS = 2  # of VMs in a card
_LONG = 34  # characters of an address or a note; the details have all of it
_LEGEND_ROW = 4
_CARD, _SPREAD = 290, 0.75  # about the width of a host, in points; the part of it that switches take
_PORT = 24, 90  # narrowest and widest port of a switch, in points
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_T = TypeVar("_T")


def write(graph: Graph, *, links: bool = False) -> str:
    """DOT text for Graphviz' ``dot``. links: things are links to their ids ("#t7"), for the page."""
    return _Writer(graph, links=links).text()


def quote(text: str) -> str:
    r"""A quoted identifier: only quotation marks and backslashes mean anything in it.

    >>> quote('a"b')
    '"a\\"b"'
    """
    return '"' + _CONTROL.sub(" ", text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def escape(text: str) -> str:
    """Text in an HTML-like label, in which a backslash begins something even where it is an entity."""
    return html.escape(_CONTROL.sub(" ", text)).replace("\\", "\\\N{ZERO WIDTH SPACE}")


def rows_of(hosts: Sequence[_T]) -> list[Sequence[_T]]:
    """Hosts in rows: one for a few, else about as wide as a screen."""
    if len(hosts) <= _ONE_ROW:
        return [hosts]
    wide = math.ceil(math.sqrt(len(hosts) * _WIDER))
    return [hosts[start : start + wide] for start in range(0, len(hosts), wide)]


def _node(thing: Thing) -> str:
    return quote(f"{thing.kind} {thing.name}")


def _font(text: str, role: str, size: int, *, bold: bool = False) -> str:
    words = escape(text)
    return f'<FONT COLOR="{light(role)}" POINT-SIZE="{size}">{f"<B>{words}</B>" if bold else words}</FONT>'


def _short(text: str) -> str:
    return text if len(text) <= _LONG else text[: _LONG - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _table(rows: Iterable[str], **attributes: object) -> str:
    words = {"BORDER": 0, "CELLBORDER": 0, "CELLSPACING": 0, "CELLPADDING": 0, **attributes}
    said = " ".join(f'{key}="{value}"' for key, value in words.items())
    return f"<TABLE {said}>{''.join(rows)}</TABLE>"


def _row(cells: Iterable[str]) -> str:
    return f"<TR>{''.join(cells)}</TR>"


class _Writer:
    def __init__(self, graph: Graph, *, links: bool) -> None:
        self.graph = graph
        self.links = links
        self._subnets = {subnet.vsid: subnet for subnet in graph.subnets}
        self._nodes = {each.id: _node(each) for each in (*graph.switches, *graph.hosts)}
        self._rows = rows_of(graph.hosts)

    def text(self) -> str:
        title = (
            "" if self.links else f" labelloc=t labeljust=l label=<{self._title()}>"
        )  # the page has its own
        font = f'fontname="Helvetica,Arial,sans-serif" fontcolor="{light("text")}"'
        apart = 0.35 if len(self._rows) == 1 else 0.16  # cables go between hosts
        lines = [
            f"graph {quote(self.graph.name)} {{",
            f'  graph [{font} bgcolor="{light("page")}" rankdir=TB ranksep=0.5 nodesep={apart} pad=0.35 '
            f"splines=true{title}]",
            f"  node [shape=plain {font}]",
            f'  edge [{font} color="{light("cable")}" penwidth=1.5]',
            *self._fabric(),
            *self._hosts(),
            *self._cables(),
            *self._trunks(),
            "}",
        ]
        return "\n".join(lines) + "\n"

    # ---- title and legend -----------------------------------------------------------------

    def _title(self) -> str:
        graph = self.graph
        head = f'<TD ALIGN="LEFT">{_font(graph.name, "text", 22, bold=True)}</TD>'
        under = f'<TD ALIGN="LEFT">{_font(graph.summary, "muted", 12)}</TD>'
        chips = [self._chip(subnet) for subnet in graph.subnets]
        rows = [_row(chips[at : at + _LEGEND_ROW]) for at in range(0, len(chips), _LEGEND_ROW)]
        legend = [_row([f'<TD ALIGN="LEFT">{_table(rows, CELLSPACING=5)}</TD>'])] if rows else []
        return _table([_row([head]), _row([under]), *legend], CELLPADDING=2)

    def _chip(self, subnet: Subnet) -> str:
        words = _font(f"{subnet.network} {subnet.vsid}", "text", 11, bold=True)
        prefixes = _font(_short(", ".join(subnet.prefixes)), "muted", 10)
        box = self._adapter_box(subnet, [_row([f'<TD ALIGN="LEFT">{words}  {prefixes}</TD>'])], CELLPADDING=4)
        return f'<TD ALIGN="LEFT">{box}</TD>'

    # ---- fabric ---------------------------------------------------------------------------

    def _fabric(self) -> list[str]:
        switches = [*self.graph.switches]
        vmm = [self.graph.vmm] if self.graph.vmm else []
        lines = [f"  {_node(switch)} [id={switch.id} label=<{self._switch(switch)}>]" for switch in switches]
        lines += [f"  {_node(each)} [id={each.id} label=<{self._vmm(each)}>]" for each in vmm]
        return [*lines, *self._in_a_row([*switches, *vmm])]

    def _switch(self, switch: Thing) -> str:
        width = self._port_width()
        ports = [
            f'<TD PORT="{quote(cable.port)[1:-1]}" BGCOLOR="{light("port")}" WIDTH="{width}" CELLPADDING="3">'
            f"{_font(cable.port, 'on-port', 9)}</TD>"
            for cable in self._ports_of(switch)
        ]
        name = _font(switch.name, "on-switch", 15, bold=True)
        head = f'<TD ALIGN="CENTER" CELLPADDING="5"{self._link(switch)}>{name}</TD>'
        line = [_row([f"<TD>{_table([_row(ports)], CELLSPACING=3)}</TD>"])] if ports else []
        return _table([_row([head]), *line], BGCOLOR=light("switch"), STYLE="ROUNDED", CELLPADDING=2)

    def _port_width(self) -> int:
        """Points; all ports together nearly as wide as the hosts below, so that cables go down, not aside."""
        wide = _SPREAD * len(self._rows[0]) * _CARD / max(1, len(self.graph.cables))
        return round(min(max(wide, _PORT[0]), _PORT[1]))

    def _ports_of(self, switch: Thing) -> list[Cable]:
        """Its cables, from the left to the right of where their hosts stand: fewer of them cross."""
        column = {host.id: at for row in self._rows for at, host in enumerate(row)}
        own = [cable for cable in self.graph.cables if cable.switch == switch.id]
        return sorted(own, key=lambda cable: column[cable.host])

    def _vmm(self, vmm: Thing) -> str:
        address = next(value for label, value in vmm.details if label == "address")
        lines = [
            _font("VMM", "text", 13, bold=True),
            _font(address, "muted", 10),
            *(_font(note, vmm.state, 10, bold=True) for note in vmm.notes),
        ]
        return _table([self._cell("<BR/>".join(lines), link=vmm)], **self._frame(vmm.state), CELLPADDING=7)

    # ---- hosts ----------------------------------------------------------------------------

    def _hosts(self) -> list[str]:
        lines = [f"  {_node(host)} [id={host.id} label=<{self._host(host)}>]" for host in self.graph.hosts]
        for row in self._rows:
            lines += self._in_a_row(row)
        for upper, lower in itertools.pairwise(self._rows):
            lines += [
                f"  {_node(one)} -- {_node(other)} [style=invis weight=50]"
                for one, other in zip(upper, lower, strict=False)
            ]
        return lines

    def _host(self, host: Host) -> str:
        head = _font(host.name, "text", 15, bold=True)
        notes = "".join(f"  {_font(note, host.state, 10, bold=True)}" for note in host.notes)
        nics = [_row([self._nic(nic) for nic in host.nics])]
        parts = [_row([f"<TD>{_table(nics, CELLSPACING=6)}</TD>"])]
        if len(host.nics) > 1:
            parts.append(self._team(host.team))
        parts.append(
            _row([f'<TD CELLPADDING="5" BGCOLOR="{light("head")}"{self._link(host)}>{head}{notes}</TD>'])
        )
        if host.vms:
            cells = [f'<TD VALIGN="TOP">{self._vm(vm)}</TD>' for vm in host.vms]
            grid = [_row(cells[at : at + _COLUMNS]) for at in range(0, len(cells), _COLUMNS)]
            parts.append(_row([f"<TD>{_table(grid, CELLSPACING=6)}</TD>"]))
        return _table(parts, **self._frame(host.state), CELLPADDING=1)

    def _team(self, team: Thing) -> str:
        words = _font(" \N{MIDDLE DOT} ".join(("team", *team.notes)), "text", 10)
        role = f"{team.state}-tint" if team.state in ("warn", "bad") else "team"
        return _row([f'<TD CELLPADDING="3" BGCOLOR="{light(role)}"{self._link(team)}>{words}</TD>'])

    def _nic(self, nic: Thing) -> str:
        role = f"{nic.state}-tint" if nic.state in ("warn", "bad") else "nic"
        words = "good" if nic.state == "good" else "muted"
        colour = nic.state if nic.state in ("warn", "bad") else words
        name = nic.name.partition(":")[2]
        lines = [_font(name, "text", 11, bold=True), *(_font(_short(note), colour, 9) for note in nic.notes)]
        line = light(nic.state if nic.state in ("warn", "bad") else "border")
        return (
            f'<TD PORT="{quote(name)[1:-1]}" BORDER="1" COLOR="{line}" BGCOLOR="{light(role)}" '
            f'STYLE="ROUNDED" CELLPADDING="5"{self._link(nic)}>{"<BR/>".join(lines)}</TD>'
        )

    def _vm(self, vm: Vm) -> str:
        first, *others = vm.adapters
        top = [_font(vm.name, "text", 11, bold=True)]
        top += [_font(_short(note), vm.state, 9, bold=True) for note in vm.notes]
        rows = [self._cell("<BR/>".join([*top, self._adapter(first)]))]
        rows += [self._cell(self._adapter(each), fill=self._fill(each)) for each in others]
        attributes: dict[str, object] = (
            {"COLOR": light(vm.state), "BORDER": 3} if vm.state in ("warn", "bad") else {}
        )
        subnet = self._subnets.get(first.vsid)
        return self._adapter_box(subnet, rows, link=vm, CELLPADDING=4, **attributes)

    def _adapter(self, adapter: Adapter) -> str:
        more = f" +{adapter.more}" if adapter.more else ""
        number = _font(str(adapter.vsid) if adapter.vsid else "no VSID", "text", 9)
        address = _font(f" \N{MIDDLE DOT} {_short(adapter.address)}{more}", "muted", 9)
        return number + (address if adapter.address else "")

    def _adapter_box(
        self, subnet: Subnet | None, rows: list[str], link: Thing | None = None, **attributes: object
    ) -> str:
        fill, line = subnet_fill(subnet)[0], subnet_line(subnet)[0]
        wanted = {"BORDER": 1, "STYLE": "ROUNDED", "COLOR": line, "BGCOLOR": fill, **attributes}
        table = _table(rows, **wanted)
        return table.replace("<TABLE", f"<TABLE{self._link(link)}", 1) if link else table

    def _fill(self, adapter: Adapter) -> str:
        return subnet_fill(self._subnets.get(adapter.vsid))[0]

    # ---- cables ---------------------------------------------------------------------------

    def _cables(self) -> list[str]:
        lines = []
        minlen = min(2 + len(self.graph.cables) // 24, 4)  # many cables need room to part
        nics = {nic.id: nic.name.partition(":")[2] for host in self.graph.hosts for nic in host.nics}
        for cable in self.graph.cables:
            ends = (
                f"{self._nodes[cable.switch]}:{quote(cable.port)}:s",
                f"{self._nodes[cable.host]}:{quote(nics[cable.nic])}:n",
            )
            lines.append(f"  {' -- '.join(ends)} [{self._edge(cable)} minlen={minlen}]")
        return lines

    def _trunks(self) -> list[str]:
        return [
            f"  {' -- '.join(self._nodes[switch] for switch in trunk.switches)} "
            f"[{self._edge(trunk)} penwidth=4 constraint=false]"
            for trunk in self.graph.trunks
        ]

    def _edge(self, thing: Thing) -> str:
        words = [f'id={thing.id} class={thing.state} color="{light(PLAIN_LINE[thing.state])}"']
        if thing.state in ("warn", "bad"):
            words.append("penwidth=2.5")
        if thing.state == "bad":
            words.append("style=dashed")
        if self.links:
            words.append(f'URL="#{thing.id}"')
        return " ".join(words)

    # ---- parts ----------------------------------------------------------------------------

    def _in_a_row(self, things: Sequence[Thing]) -> list[str]:
        """On one rank, in this order."""
        names = [_node(thing) for thing in things]
        chain = [f"  {one} -- {other} [style=invis]" for one, other in itertools.pairwise(names)]
        return [f"  {{rank=same; {'; '.join(names)}}}", *chain]

    def _frame(self, state: State) -> dict[str, object]:
        wrong = state in ("warn", "bad")
        colour = light(state if wrong else "border")
        return {"BORDER": 2 if wrong else 1, "COLOR": colour, "BGCOLOR": light("card"), "STYLE": "ROUNDED"}

    def _cell(self, words: str, link: Thing | None = None, fill: str = "") -> str:
        colour = f' BGCOLOR="{fill}"' if fill else ""
        return _row([f"<TD{colour}{self._link(link)}>{words}</TD>"])

    def _link(self, thing: Thing | None) -> str:
        if thing is None or not self.links:
            return ""
        return f' HREF="#{thing.id}" TITLE="{escape(f"{thing.kind} {thing.name}")}"'
