"""vnic: a VM's adapter in a running lab."""

from __future__ import annotations

import click

from testbed.cli.output import format_option, print_json


@click.command()
@click.argument("name")
@click.argument("port")
@click.option(
    "--virtual-subnet-id", metavar="VSID", type=int, required=True, help="0: not virtualised (4096-16777214)."
)
@format_option
def vnic(name: str, port: str, virtual_subnet_id: int, output: str) -> None:
    """Put a running VM's port ("blue1:eth0") into another virtual subnet.

    The guest is not touched: it keeps its addresses and its MTU.
    """
    from testbed.lab import policy
    from testbed.lab.lab import Lab

    with Lab.open(name) as lab:
        done = policy.set_port(lab, port, virtual_subnet_id)
    if output == "json":
        print_json(done)
    else:
        click.echo(f"{done['host']}: {port}: VSID {done['before']} -> {virtual_subnet_id}")


COMMANDS = (vnic,)
