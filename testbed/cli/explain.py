"""explain: why a VM does not reach another one, in one sentence, with the evidence."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from testbed.cli.output import format_option, print_json

if TYPE_CHECKING:
    from testbed.explain.model import Report


@click.command()
@click.argument("name")
@click.option(
    "--from", "source", required=True, metavar="VM[:ethN]", help="Who wants to reach the other one."
)
@click.option("--to", required=True, metavar="VM[:ethN]|IP", help="Who is to be reached.")
@format_option
def explain(name: str, source: str, to: str, output: str) -> None:
    """Say why a VM does not reach another one: the most likely cause, and what speaks for it.

    Exits 1 when something is wrong; what is separated by design is not.
    """
    from testbed.explain.runner import explain as explained
    from testbed.lab.lab import Lab

    with Lab.open(name) as lab:
        report = explained(lab, source, to)
    if output == "json":
        print_json(report)
    else:
        _print(report)
    sys.exit(1 if report.cause else 0)


def _print(report: Report) -> None:
    for step in report.steps:
        click.echo(f"{'ok    ' if step.ok else 'NOT OK'}  {step.asked} {step.said}")
    click.echo(f"\n{report.sentence}")


COMMANDS = (explain,)
