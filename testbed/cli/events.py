"""events: one time line of what a lab's hosts and its VMM did."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING

import click

from testbed.cli.output import format_option, print_json
from testbed.errors import BadInput

if TYPE_CHECKING:
    from testbed.lab.event_sources import LabEvent
    from testbed.lab.events import LabTimeline

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@click.command()
@click.argument("name")
@click.argument("host", required=False)
@click.option("--follow", is_flag=True, help="Go on with those to come, until Ctrl-C or the lab's end.")
@click.option(
    "--kind", "kinds", multiple=True, metavar="KIND", help="Of this kind, or a glob; may be repeated."
)
@click.option(
    "--host", "hosts", multiple=True, metavar="HOST", help="Of or about this host; may be repeated."
)
@click.option(
    "--since", metavar="WHEN", help="Not older: 30s, 5m, 2h, now, 12:30:00, or a date and time (ISO 8601)."
)
@format_option
def events(
    name: str,
    host: str | None,
    follow: bool,
    kinds: tuple[str, ...],
    hosts: tuple[str, ...],
    since: str | None,
    output: str,
) -> None:
    """What happened in a running lab, in the order of time over all hosts and the VMM.

    Each event has an id, SOURCE/NUMBER, which captures made with --events have too.
    """
    from testbed.lab import events as lab_events
    from testbed.lab.lab import Lab

    start = moment(since, time.time()) if since else 0.0
    wanted = lab_events.Wanted(kinds, (*((host,) if host else ()), *hosts), start)
    with Lab.open(name) as lab:
        if follow:
            _follow(lab_events.LabTimeline(lab, wanted), output)
            return
        found, lost = lab_events.history(lab, wanted)
    if output == "json":
        print_json({"events": found, "lost": lost})
        return
    for event in found:
        _print(event, output)


def moment(text: str, now: float) -> float:
    """Seconds since the epoch. text: ``5m`` (ago), ``now``, today's time, or all of it. Raises BadInput."""
    if text == "now":
        return now
    if ago := re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text):
        return now - float(ago[1]) * _UNITS[ago[2]]
    day = f"{datetime.fromtimestamp(now).astimezone():%Y-%m-%d}T"
    try:
        clock = re.fullmatch(r"\d\d:\d\d(:\d\d(\.\d+)?)?", text)
        return datetime.fromisoformat(day + text if clock else text).astimezone().timestamp()
    except (ValueError, OverflowError):
        remedy = "say 30s, 5m, 2h, now, 12:30:00 or 2026-01-31T12:30:00"
        raise BadInput(f"--since {text}: this is no time: {remedy}") from None


def _follow(line: LabTimeline, output: str) -> None:
    import select

    from testbed.capture.session import Interrupt
    from testbed.lab.events import follow

    with Interrupt() as interrupt:
        try:
            for found in follow(line, lambda seconds: bool(select.select([interrupt], [], [], seconds)[0])):
                for event in found:
                    _print(event, output)
        finally:
            line.close()


def _print(event: LabEvent, output: str) -> None:
    """A line each; as JSON a line each too, so that a program can follow."""
    import msgspec

    from testbed.lab.event_text import line

    click.echo(msgspec.json.encode(event) if output == "json" else line(event))


COMMANDS = (events,)
