"""team: the NIC teams of a running lab's hosts."""

from __future__ import annotations

import click

from testbed.cli.output import format_option, print_json, print_table
from testbed.errors import BadInput


@click.command()
@click.argument("name")
@click.argument("host")
@click.argument("verb", type=click.Choice(["show", "fail", "restore"]), default="show")
@click.argument("member", required=False)
@format_option
def team(name: str, host: str, verb: str, member: str | None, output: str) -> None:
    """Show a host's team of NICs, or give a member up (fail) and take it back (restore)."""
    from testbed.lab import team as team_of
    from testbed.lab.lab import Lab

    if (verb == "show") != (member is None):
        raise BadInput("`fail` and `restore` take the name of a member, `show` takes none")
    with Lab.open(name) as lab:
        if member is not None:
            team_of.set_member(lab, host, member, failed=verb == "fail")
        found = team_of.show(lab, host)
    if output == "json":
        print_json(found)
        return
    click.echo(
        f"{host}: {found['mode']}, {found['algorithm']}, {found['queues']}; "
        f"{found['flowlets_moved']} flowlets moved, {found['flows_rebalanced']} flows rebalanced, "
        f"gap {1000 * found['gap']:g} ms"
    )
    print_table(
        [
            "member",
            "state",
            "speaks for",
            "flows",
            "out packets",
            "out bytes",
            "in packets",
            "in bytes",
            "RTT",
        ],
        [
            [
                each["name"] + (" (primary)" if each["primary"] else ""),
                each["state"] + (f": {each['fault']}" if each["fault"] else ""),
                ", ".join(each["speaks_for"]),
                each["flows"],
                each["tx_packets"],
                each["tx_bytes"],
                each["rx_packets"],
                each["rx_bytes"],
                f"{1000 * each['round_trip']:.2f} ms" if each["round_trip"] else "",
            ]
            for each in found["members"]
        ],
    )


COMMANDS = (team,)
