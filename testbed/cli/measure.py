"""check, counters: does it work, and what was counted."""

from __future__ import annotations

from typing import Any

import click

from testbed.cli.output import format_option, print_json, print_table


@click.command()
@click.argument("name")
@format_option
def check(name: str, output: str) -> None:
    """Every VM must reach every VM of its network, over IPv4 and IPv6, and none of another's.

    Exits 1 if anything differs.
    """
    from testbed.lab.check import check as check_lab
    from testbed.lab.lab import Lab

    with Lab.open(name) as lab:
        result = check_lab(lab)
    if output == "json":
        print_json(result)
    else:
        for problem in result["problems"]:
            answered = ", ".join(problem["answered_by"]) or "nobody"
            wanted = problem["expected"] or "nobody"
            click.echo(f"{problem['from']} -> {problem['address']}: {answered} answered, not {wanted}")
        for leak in result["leaks"]:
            click.echo(f"leak: a datagram of {leak['from']} arrived at {leak['to']}")
        verdict = "as it should be" if result["ok"] else "NOT as it should be"
        click.echo(f"{result['pairs']} pairs of VM and address: {verdict}")
    if not result["ok"]:
        raise SystemExit(1)


@click.command()
@click.argument("name")
@click.argument("host", required=False)
@format_option
def counters(name: str, host: str | None, output: str) -> None:
    """Packets and bytes of ports, NICs and virtual subnets, and drops by reason."""
    from testbed.lab.inspect import counters as lab_counters
    from testbed.lab.lab import Lab

    with Lab.open(name) as lab:
        found = lab_counters(lab, host)
    if output == "json":
        print_json({"counters": found})
        return
    of = {kind: [each for each in found if each["kind"] == kind] for kind in _KINDS}
    print_table(
        ["host", "port, NIC or VSID", "VSID", "in packets", "in bytes", "out packets", "out bytes"],
        [
            [each["host"], each["object"], each["fields"].get("vsid"), *_traffic(each["fields"])]
            for kind in _KINDS[:3]
            for each in of[kind]
        ],
    )
    print_table(
        ["host", "stage", "port or NIC", "VSID", "drop reason", "packets"],
        [
            [each["host"], fields["stage"], each["object"], *(fields[key] for key in _DROP)]
            for each in of["drop"]
            for fields in [each["fields"]]
        ],
    )
    if of["extension"]:
        print_table(
            ["host", "extension", "counters"],
            [[each["host"], each["object"], _pairs(each["fields"])] for each in of["extension"]],
        )


_KINDS = ("port", "nic", "vsid", "drop", "extension")
_DROP = ("vsid", "reason", "packets")
_WAYS = (("from_vm", "to_vm"), ("rx", "tx"))  # into the switch, out of it


def _traffic(fields: dict[str, Any]) -> list[int]:
    incoming, outgoing = next(way for way in _WAYS if f"{way[0]}_packets" in fields)
    return [fields[f"{way}_{unit}"] for way in (incoming, outgoing) for unit in ("packets", "bytes")]


def _pairs(fields: dict[str, Any]) -> list[str]:
    """What has a value; of a policy object its values only."""
    return [f"{key} {_plain(value)}" for key, value in fields.items() if value not in ("", None)]


def _plain(value: Any) -> str:
    return " ".join(str(each) for each in value.values() if each) if isinstance(value, dict) else str(value)


COMMANDS = (check, counters)
