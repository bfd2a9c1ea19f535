"""link: the cables of a running lab."""

from __future__ import annotations

from typing import Any

import click

from testbed.cli.output import format_option, print_json, print_table
from testbed.errors import BadInput

_SWITCH = {"on": True, "off": False}
_PARTS = ("loss", "corruption", "duplication")


@click.command()
@click.argument("name")
@click.argument("cable")
@click.argument("verb", type=click.Choice(["show", "set", "clear", "up", "down"]), default="show")
@click.argument("settings", nargs=-1, metavar="[FAULT=VALUE...]")
@click.option("--way", type=click.Choice(["to-host", "from-host"]), help="One direction only.")
@format_option
def link(name: str, cable: str, verb: str, settings: tuple[str, ...], way: Any, output: str) -> None:
    """Show or change a cable of a running lab, named after its NIC: host1:nic1.

    Faults: loss=1%, corruption=0.1%, duplication=1%, black-hole=on, rate=200mbit, seed=7.
    """
    from testbed.lab import link as link_of
    from testbed.lab.lab import Lab
    from testbed.nic.faults import WAYS

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
    print_table(
        ["way", "rate", "loss", "corruption", "duplication", "black hole", "lost", "corrupted", "duplicated"],
        [
            [
                each,
                f"{told['rate'] / 1e6:g} Mbit/s" if told["rate"] else "",
                *(
                    f"{100 * told[key]:g} %" if told[key] else ""
                    for key in ("loss", "corruption", "duplication")
                ),
                "on" if told["black_hole"] else "",
                *(told["counters"].get(key, 0) for key in ("lost", "corrupted", "duplicated")),
            ]
            for each, told in found["ways"].items()
        ],
    )


def _read(settings: tuple[str, ...]) -> dict[str, Any]:
    from testbed.nic.faults import bits_per_second, part

    found: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise BadInput(f"{text!r} is no setting: write it like loss=1%")
        if key in _PARTS:
            found[key] = part(value)
        elif key == "rate":
            found[key] = bits_per_second(value)
        elif key == "black-hole" and value in _SWITCH:
            found["black_hole"] = _SWITCH[value]
        elif key == "seed" and value.isdecimal() and int(value):
            found[key] = int(value)
        else:
            known = "loss, corruption, duplication, black-hole (on, off), rate, seed (a number from 1 on)"
            raise BadInput(f"{text!r} can't be set: use {known}")
    return found


COMMANDS = (link,)
