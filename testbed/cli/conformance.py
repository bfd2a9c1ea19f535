"""conformance: whether the labs do what network virtualization is said to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from testbed.cli.output import formats, print_json, print_table, progress
from testbed.errors import MachineLacks

if TYPE_CHECKING:
    from testbed.conformance.runner import Result


@click.command()
@click.argument("topology", type=click.Path(path_type=Path), required=False)
@click.option(
    "--statement", "numbers", multiple=True, type=int, metavar="N", help="Only this one; may be repeated."
)
@click.option("--engine", "engine_name", default="auto", show_default=True, help="auto, docker, namespaces.")
@formats(["json", "junit"], "For people or for programs.")
def conformance(topology: Path | None, numbers: tuple[int, ...], engine_name: str, output: str) -> None:
    """Show every statement about network virtualization on labs of its own.

    TOPOLOGY is used where it can show a statement; without it, the shipped 4host. Exits 1 if a
    statement does not hold.
    """
    from testbed.conformance import runner
    from testbed.engines.select import choose
    from testbed.topology import plan_from_file

    runner.chosen_statements(numbers)
    if topology is not None:
        plan_from_file(topology, {})
    if os.geteuid() != 0:
        raise MachineLacks("network namespaces and NICs can be made by root only: use sudo")
    with progress() as report:
        engine, _ = choose(engine_name, report)
        results = runner.run(topology, numbers, engine, report)
    _show(results, output)
    if any(result.verdict == "fail" for result in results):
        raise SystemExit(1)


def _show(results: list[Result], output: str) -> None:
    from testbed.conformance import report

    if output == "json":
        print_json(report.plain(results))
    elif output == "junit":
        click.echo(report.junit(results))
    else:
        print_table(
            ["", "verdict", "statement", "evidence"],
            [[result.number, result.verdict, result.text, result.evidence] for result in results],
        )


COMMANDS = (conformance,)
