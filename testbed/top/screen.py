"""How a lab's activity looks in a terminal of any size from 40 x 10 on."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from testbed.lab.activity import Activity, Row
from testbed.top.choice import HELP, Choice
from testbed.top.columns import TITLES, VIEWS, cells, headings, is_number, number

_PROBLEMS = 3  # lines for them at most
_BAD = ("down", "Failed", "dead", "ended")


def draw(shown: Activity, choice: Choice, console: Console) -> RenderableType:
    """The whole screen."""
    width, height = console.size
    head = [_lab(shown, choice), _totals(shown), _tabs(choice)]
    problems = [Text(f"! {each}", "bold red") for each in shown.problems[:_PROBLEMS]]
    if (more := len(shown.problems) - _PROBLEMS) > 0:
        problems[-1] = Text(f"! and {more + 1} more", "bold red")
    foot = _foot(choice)
    left = max(1, height - len(head) - len(problems) - 1)
    body = _help() if choice.help else _table(shown, choice, left)
    for line in (*head, *problems, foot):
        line.truncate(width, overflow="ellipsis")
    blank = height - len(head) - len(problems) - 1 - body.row_count - body.show_header
    return Group(*head, *problems, body, *[Text()] * max(0, blank), foot)


def _lab(shown: Activity, choice: Choice) -> Text:
    up = sum(row.state == "running" for row in shown.hosts)
    running = sum(row.state == "running" for row in shown.vms)
    clock = datetime.fromtimestamp(shown.time, UTC).astimezone().strftime("%H:%M:%S")
    text = Text.assemble(
        (shown.lab, "bold"),
        f"  {shown.engine}  ",
        (shown.state, "bold red" if shown.state in _BAD else "green"),
        f"  hosts {up}/{len(shown.hosts)}  VMs {running}/{len(shown.vms)}  {clock}",
    )
    if choice.paused:
        text.append("  paused", "bold yellow")
    return text


def _totals(shown: Activity) -> Text:
    """Of all hosts' NICs; nothing before there are two readings."""
    if not shown.seconds:
        return Text("the first rates come with the next reading", "dim")
    hosts = [row for row in shown.hosts if row.out_bits is not None]
    bits = number(sum(row.out_bits or 0.0 for row in hosts))
    packets = number(sum(row.out_packets or 0.0 for row in hosts))
    drops = number(sum(row.drops or 0.0 for row in hosts))
    return Text(f"NICs send {bits} bit/s, {packets} pkt/s; drops {drops}/s; over {shown.seconds:.1f} s")


def _tabs(choice: Choice) -> Text:
    text = Text()
    for place, view in enumerate(VIEWS, 1):
        text.append(f" {place} {TITLES[view]} ", "reverse" if view == choice.view else "dim")
    return text


def _foot(choice: Choice) -> Text:
    if choice.typing:
        return Text(f"filter: {choice.filter}_   Enter keeps it, Esc removes it", "bold")
    order = choice.sort + (", reversed" if choice.reverse else "")
    text = f"q quit  ? help  s sort: {order}  p {'go on' if choice.paused else 'pause'}  / filter"
    return Text(text + (f": {choice.filter}" if choice.filter else ""), "dim")


def _help() -> Table:
    table = Table.grid(padding=(0, 2))
    for keys, what in HELP:
        table.add_row(Text(keys, "bold"), what)
    return table


def _table(shown: Activity, choice: Choice, lines: int) -> Table:
    """As many rows as there are lines below the heading; the last one says how many there are beyond."""
    rows = choice.of(shown.rows(choice.view))
    room = max(1, lines - 1)
    choice.top = max(0, min(choice.top, len(rows) - room + (len(rows) > room)))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), expand=False, header_style="bold")
    names = headings(choice.view)
    for heading in names:
        table.add_column(
            Text(heading),
            justify="right" if is_number(heading) else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=5 if is_number(heading) else None,
        )
    seen = rows[choice.top :][:room]
    if len(rows) > room and choice.top + room < len(rows):
        seen = seen[:-1]
    for row in seen:
        table.add_row(*map(Text, cells(choice.view, row)), style=_style(row))
    if not rows:
        table.add_row(Text(_nothing(shown, choice), "dim"))
    elif beyond := len(rows) - choice.top - len(seen):
        table.add_row(Text(f"{beyond} more", "dim"))
    return table


def _nothing(shown: Activity, choice: Choice) -> str:
    rows = shown.rows(choice.view)
    if rows:
        return f"none of {len(rows)} contains {choice.filter!r}"
    return "nothing has several queues" if choice.view == "queues" and shown.seconds else "none"


def _style(row: Row) -> str:
    if row.state in _BAD:
        return "red"
    return "yellow" if row.drops else ""
