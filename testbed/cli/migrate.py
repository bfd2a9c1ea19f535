"""migrate: a running VM to another host."""

from __future__ import annotations

import click

from testbed.cli.output import format_option, print_json


@click.command()
@click.argument("name")
@click.argument("vm")
@click.option("--to", "target", metavar="HOST", required=True, help="The host it is to run on.")
@format_option
def migrate(name: str, vm: str, target: str, output: str) -> None:
    """Move a running VM to another host; it keeps its processes, addresses and connections.

    Needs a lab with a VMM. What fails leaves the VM where it was.
    """
    from msgspec import to_builtins

    from testbed.lab.lab import Lab
    from testbed.lab.migrate import migrate as migrate_vm

    with Lab.open(name) as lab:
        done = migrate_vm(lab, vm, target)
    if output == "json":
        print_json(to_builtins(done))
    elif done.source == done.target:
        click.echo(f"{vm} is on {target} already")
    else:
        click.echo(f"{vm}: {done.source} -> {done.target}, prepared in {done.prepare:.0f} ms")
        click.echo(f"blackout {done.blackout:.1f} ms, {done.without_switch:.1f} ms of it without a switch")


COMMANDS = (migrate,)
