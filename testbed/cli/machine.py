"""doctor, image: this machine."""

from __future__ import annotations

import click
import msgspec

from testbed.cli.output import format_option, print_json, print_table, progress
from testbed.errors import MachineLacks


@click.command()
@format_option
def doctor(output: str) -> None:
    """Tell what this machine has and lacks. Exits 4 when something required is missing."""
    from testbed.doctor import examine

    findings = examine()
    if output == "json":
        print_json([msgspec.to_builtins(finding) for finding in findings])
    else:
        print_table(
            ["", "what", "found", "remedy"],
            [
                [_mark(each.ok, each.required), each.name, each.detail, "" if each.ok else each.remedy]
                for each in findings
            ],
        )
    missing = [finding.name for finding in findings if finding.required and not finding.ok]
    if missing:
        raise MachineLacks(f"required and missing: {', '.join(missing)}")


def _mark(ok: bool, required: bool) -> str:
    if ok:
        return "ok"
    return "MISSING" if required else "-"


@click.group()
def image() -> None:
    """The node image of the docker engine."""


@image.command()
def build() -> None:
    """Build the node image if it is not there."""
    from testbed.engines.docker.client import connect
    from testbed.engines.docker.image import ensure

    client = connect()
    with progress() as report:
        click.echo(ensure(client, report))


COMMANDS = (doctor, image)
