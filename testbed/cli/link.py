"""link: the cables of a running lab."""

from __future__ import annotations

from typing import Any

import click

from testbed.cli.output import format_option, print_json, print_table
from testbed.errors import BadInput


@click.command()
@click.argument("name")
@click.argument("cable")
@click.argument("verb", type=click.Choice(["show", "set", "clear", "up", "down"]), default="show")
@click.argument("settings", nargs=-1, metavar="[FAULT=VALUE...]")
@click.option("--way", type=click.Choice(["to-host", "from-host"]), help="One direction only.")
@format_option
def link(name: str, cable: str, verb: str, settings: tuple[str, ...], way: Any, output: str) -> None:
    """Show or change a cable of a running lab, named after its NIC: host1:nic1.

    Faults: loss=1%, corruption=0.1%, duplication=1%, black-hole=on, rate=200mbit, delay=5ms, jitter=1ms,
    reordering=2%, seed=7.
    """
    from testbed.lab import link as link_of
    from testbed.lab.lab import Lab
    from testbed.nic.faults import WAYS, described

    if (verb == "set") != bool(settings):
        raise BadInput("`set` takes at least one setting, such as loss=1%; the others take none")
    wanted = _read(settings)
    with Lab.open(name) as lab:
        if verb == "set":
            link_of.change(lab, cable, (way,) if way else WAYS, wanted)
        elif verb == "clear":
            link_of.clear(lab, cable)
        elif verb != "show":
            link_of.set_up(lab, cable, up=verb == "up")
        found = link_of.show(lab, cable)
    if output == "json":
        print_json(found)
        return
    click.echo(f"{cable} at {found['switch']}, {'up' if found['up'] else 'down'}")
    rows = [
        [way, described(link_of.faults(told)), _counted(told["counters"])]
        for way, told in found["ways"].items()
    ]
    print_table(["way", "set", "frames so far"], rows)


def _counted(counters: dict[str, int]) -> str:
    return ", ".join(f"{value} {key}" for key, value in counters.items() if value)


def _read(settings: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise BadInput(f"{text!r} is no setting: write it like loss=1%")
        found[key] = value
    return found


COMMANDS = (link,)
