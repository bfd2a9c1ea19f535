"""vnic: a VM's adapter in a running lab."""

from __future__ import annotations

from typing import Any

import click

from testbed.cli.output import format_option, print_json, print_table
from testbed.cli.settings import switch_of
from testbed.errors import BadInput


@click.command()
@click.argument("name")
@click.argument("port")
@click.argument("verb", type=click.Choice(["show", "set"]), default="show")
@click.argument("settings", nargs=-1, metavar="[TASK=on|off...]")
@click.option("--virtual-subnet-id", metavar="VSID", type=int, help="0: not virtualised (4096-16777214).")
@format_option
def vnic(
    name: str, port: str, verb: str, settings: tuple[str, ...], virtual_subnet_id: int | None, output: str
) -> None:
    """Show what a running VM's adapter ("blue1:eth0") offloads, or switch it, at once.

    Tasks: lso, tx-checksum, rx-checksum, rsc. With --virtual-subnet-id its port goes into another virtual
    subnet instead; the guest is not touched: it keeps its addresses and its MTU.
    """
    from testbed.lab import policy
    from testbed.lab import vnic as vnic_of
    from testbed.lab.lab import Lab

    if virtual_subnet_id is not None and (verb, settings) != ("show", ()):
        raise BadInput("--virtual-subnet-id goes without `set`: say one after the other")
    if (verb == "set") != bool(settings):
        raise BadInput("`show` takes no settings, `set` at least one, such as rsc=off")
    offloads = dict(map(switch_of, settings))
    with Lab.open(name) as lab:
        if virtual_subnet_id is not None:
            done = policy.set_port(lab, port, virtual_subnet_id)
        elif settings:
            done = vnic_of.change(lab, port, offloads)
        else:
            done = vnic_of.show(lab, port)
    if output == "json":
        print_json(done)
    elif virtual_subnet_id is not None:
        click.echo(f"{done['host']}: {port}: VSID {done['before']} -> {virtual_subnet_id}")
    else:
        _print(done)


def _print(found: dict[str, Any]) -> None:
    supported, enabled = found["offloads"]["supported"], found["offloads"]["enabled"]
    off = [task for task in supported if task not in enabled]
    rows = [[found["port"], found["host"], found["virtual_subnet_id"], enabled, off]]
    print_table(["port", "host", "VSID", "enabled", "supported, off"], rows)


COMMANDS = (vnic,)
