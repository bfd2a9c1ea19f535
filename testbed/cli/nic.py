"""nic: the emulated NICs of a running host."""

from __future__ import annotations

from typing import Any

import click

from testbed.cli.output import format_option, print_json, print_table
from testbed.cli.settings import SWITCH, split
from testbed.errors import BadInput


@click.command()
@click.argument("name")
@click.argument("host")
@click.argument("verb", type=click.Choice(["show", "set"]), default="show")
@click.argument("settings", nargs=-1, metavar="[TASK=on|off...]")
@click.option(
    "--nic", "nics", metavar="NIC", multiple=True, help="This NIC only; may be given several times."
)
@format_option
def nic(
    name: str, host: str, verb: str, settings: tuple[str, ...], nics: tuple[str, ...], output: str
) -> None:
    """Show the NICs of a running host, or switch what they offload, at once and for all that follows.

    Besides tasks: hash-types=ipv4,tcp-ipv4, table=0,1,2,3 and key=HEX of receive-side scaling.
    """
    from testbed.lab import nic as nic_of
    from testbed.lab.lab import Lab

    if (verb == "set") != bool(settings):
        raise BadInput("`show` takes no settings, `set` at least one, such as lso=off")
    offloads, rss = _read(settings)
    with Lab.open(name) as lab:
        if settings:
            nic_of.change(lab, host, nics, offloads, rss)
        found = [each for each in nic_of.show(lab, host) if not nics or each["name"] in nics]
    if output == "json":
        print_json(found)
        return
    print_table(
        ["NIC", "enabled", "supported, off", "queues", "VMQ"],
        [
            [
                each["name"],
                list(each["offloads"]["enabled"]),
                [task for task in each["offloads"]["supported"] if task not in each["offloads"]["enabled"]],
                each["queues"],
                [f"{mac} -> {queue}" for mac, queue in each["vmq"].items()] if each["queues"] > 1 else [],
            ]
            for each in found
        ],
    )


def _read(settings: tuple[str, ...]) -> tuple[dict[str, bool], dict[str, Any]]:
    """Switches of tasks, and what is for RSS."""
    offloads: dict[str, bool] = {}
    rss: dict[str, Any] = {}
    for text in settings:
        key, value = split(text)
        try:
            if key == "hash-types":
                rss["hash_types"] = value.split(",")
            elif key == "table":
                rss["table"] = [int(number) for number in value.split(",")]
            elif key == "key":
                rss["key"] = bytes.fromhex(value)
            else:
                offloads[key] = SWITCH[value]
        except (ValueError, KeyError):
            raise BadInput(f"{key}={value}: {_expected(key)}") from None
    return offloads, rss


def _expected(key: str) -> str:
    wanted = {"table": "numbers of queues with commas", "key": "hexadecimal digits"}
    return f"expected {wanted.get(key, 'on or off')}"


COMMANDS = (nic,)
