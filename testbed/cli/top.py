"""top: what a running lab does, live."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from testbed.cli.output import format_option, print_table
from testbed.errors import LabError

if TYPE_CHECKING:
    from testbed.lab.activity import Activity, View
    from testbed.lab.watch import Watch

VIEWS = ("vms", "cables", "queues", "team", "drops", "vsids", "hosts")


@click.command()
@click.argument("name")
@click.option(
    "--view", type=click.Choice(VIEWS), default="vms", show_default=True, help="What to show (at first)."
)
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    help="Between two readings.",
)
@click.option("--count", metavar="N", type=click.IntRange(1), help="End after so many intervals.")
@click.option("--once", is_flag=True, help="One table, or one JSON object, after one interval.")
@format_option
def top(name: str, view: View, interval: float, count: int | None, once: bool, output: str) -> None:
    """Rates of VMs, cables, queues and team members, drops by reason, live.

    In a terminal until q is pressed (h tells the keys); elsewhere it prints one table.
    """
    from testbed.lab import store
    from testbed.lab.watch import Watch

    store.load(name)  # raises where there is none
    with Watch(name) as watch:
        if output == "json":
            _print_json(watch, interval, 1 if once else count)
        elif once or not _is_terminal():
            _print_tables(watch, view, interval, 1 if once else count or 1)
        else:
            from testbed.top.choice import Choice
            from testbed.top.live import run

            run(watch, Choice(view), interval, count)


def _is_terminal() -> bool:
    dumb = os.environ.get("TERM", "dumb") in ("dumb", "unknown")
    return sys.stdin.isatty() and sys.stdout.isatty() and not dumb


def _print_json(watch: Watch, interval: float, count: int | None) -> None:
    import msgspec

    for found in _intervals(watch, interval, count):
        click.echo(msgspec.json.encode(found))
        sys.stdout.flush()


def _print_tables(watch: Watch, view: View, interval: float, count: int) -> None:
    from testbed.top.columns import cells, headings

    for found in _intervals(watch, interval, count):
        for problem in found.problems:
            click.echo(problem, err=True)
        print_table(headings(view), [cells(view, row) for row in found.rows(view)])


def _intervals(watch: Watch, interval: float, count: int | None) -> Iterator[Activity]:
    """What happens in each interval. Raises LabError when the lab has ended, after that was told."""
    from testbed.lab.activity import activity

    before, due = watch.sample(), time.monotonic()
    done = 0
    while count is None or done < count:
        due += interval
        time.sleep(max(0.0, due - time.monotonic()))
        now = watch.sample()
        found = activity(before, now)
        yield found
        if now.state in ("ended", "dead"):
            raise LabError(found.problems[0])
        before, done = now, done + 1


COMMANDS = (top,)
