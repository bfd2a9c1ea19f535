"""validate, render, schema: topology files."""

from __future__ import annotations

from pathlib import Path

import click

from testbed.cli.labs import file_argument, set_option, variables
from testbed.cli.output import print_json


@click.command()
@file_argument
@set_option
def validate(file: Path, settings: tuple[str, ...]) -> None:
    """Check a topology file."""
    from testbed.topology import plan_from_file

    plan = plan_from_file(file, variables(settings))
    click.echo(f"{file}: {len(plan.hosts)} hosts, {len(plan.vms)} VMs, {len(plan.networks)} networks: valid")


@click.command()
@file_argument
@set_option
def render(file: Path, settings: tuple[str, ...]) -> None:
    """Print a topology file with its template filled in."""
    from testbed.topology.load import render as render_file

    click.echo(render_file(file, variables(settings)), nl=False)


@click.command()
def schema() -> None:
    """Print the JSON Schema of topology files."""
    from testbed.topology.jsonschema import schema as json_schema

    print_json(json_schema())


COMMANDS = (validate, render, schema)
