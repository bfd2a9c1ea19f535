"""check, counters, events, bench: does it work, what happened, how fast is it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from testbed.cli.output import format_option, print_json, print_table, progress
from testbed.cli.results import keeper, results_option


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


@click.command()
@click.argument("name")
@click.argument("host", required=False)
@click.option("--kind", metavar="KIND", help="Only events of this kind, such as policy-mismatch.")
@format_option
def events(name: str, host: str | None, kind: str | None, output: str) -> None:
    """What happened on the hosts, oldest first."""
    from testbed.lab.inspect import events as lab_events
    from testbed.lab.lab import Lab

    with Lab.open(name) as lab:
        found = lab_events(lab, host, kind)
    if output == "json":
        print_json(found)
        return
    print_table(
        ["time", "host", "kind", "object", ""],
        [
            [_clock(each["time"]), each["host"], each["kind"], each["object"], _pairs(each["fields"])]
            for each in found["events"]
        ],
    )
    if found["lost"]:
        click.echo(f"{found['lost']} older events are no longer known")


def _clock(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(" ", "milliseconds")


@click.command()
@click.argument("name")
@click.option("--from", "source", metavar="VM", help="Default: the first VM that has a partner.")
@click.option("--to", "target", metavar="VM", help="Default: one of the same subnet on another host.")
@click.option("--seconds", default=5, show_default=True, type=click.IntRange(1, 3600))
@click.option("--streams", default=1, show_default=True, type=click.IntRange(1, 128))
@click.option("--repeat", default=5, show_default=True, type=click.IntRange(1, 1000))
@click.option("--wire", type=click.Choice(["frames", "aggregated"]), help="Switch the cables meanwhile.")
@click.option("--nic", "profile", metavar="PROFILE", help="The NICs on the path are of it meanwhile.")
@click.option("--guest-lso", type=bool, help="Whether the VMs hand over super-packets meanwhile.")
@click.option("--baseline", type=click.Choice(["vxlan"]), help="Measure this in alternation.")
@click.option("--save", is_flag=True, help="Record the run in the results file.")
@click.option("--label", default="", help="With --save: a word to find it by.")
@results_option
@format_option
def bench(
    name: str,
    source: str | None,
    target: str | None,
    seconds: int,
    streams: int,
    repeat: int,
    wire: Any,
    profile: str | None,
    guest_lso: bool | None,
    baseline: Any,
    save: bool,
    label: str,
    store: Path | None,
    output: str,
) -> None:
    """Measure TCP throughput between two VMs with iperf3."""
    from testbed.lab import bench as lab_bench
    from testbed.lab.lab import Lab

    keep = keeper(save=save, label=label, store=store)
    with Lab.open(name) as lab, progress() as report:
        result = lab_bench.run(
            lab,
            source,
            target,
            wire,
            baseline,
            profile=profile,
            guest_lso=guest_lso,
            seconds=seconds,
            streams=streams,
            repeat=repeat,
            progress=lambda done, total, what: report(f"{what} ({done} of {total} runs)"),
        )
        saved = keep(lab, result)
    if output == "json":
        print_json({**result, **saved})
        return
    print_table(
        ["path", "Gbit/s", "retransmits", "switch CPU s"],
        [list(run.values()) for run in result["runs"]],
        title=f"{result['from']} -> {result['to']}, wire {result['wire']}",
    )
    for other, ratio in result["ratio"].items():
        click.echo(f"ratio to {other}: {ratio} (median of {repeat} pairs)")
    if saved:
        click.echo(f"recorded in {saved['results']} as run {saved['run']}")


COMMANDS = (check, counters, events, bench)
