"""check, counters, bench: does it work, what happened, how fast is it."""

from __future__ import annotations

from typing import Any

import click

from testbed.cli.output import format_option, print_json, print_table, progress


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
    """Packets and bytes of ports and NICs, and drops by reason."""
    from testbed.lab.lab import Lab

    with Lab.open(name) as lab:
        hosts = [host] if host else [each.name for each in lab.plan.hosts]
        found: dict[str, Any] = {each: lab.ask(each, "counters") for each in hosts}
    if output == "json":
        print_json(found)
        return
    print_table(
        ["host", "port or NIC", "in packets", "in bytes", "out packets", "out bytes"],
        [
            [each, *row.values()]
            for each, values in found.items()
            for row in [
                *({key: port[key] for key in port if key != "vsid"} for port in values["ports"]),
                *values["nics"],
            ]
        ],
    )
    print_table(
        ["host", "port or NIC", "drop reason", "packets"],
        [[each, *drop.values()] for each, values in found.items() for drop in values["drops"]],
    )


@click.command()
@click.argument("name")
@click.option("--from", "source", metavar="VM", help="Default: the first VM that has a partner.")
@click.option("--to", "target", metavar="VM", help="Default: one of the same subnet on another host.")
@click.option("--seconds", default=5, show_default=True, type=click.IntRange(1, 3600))
@click.option("--streams", default=1, show_default=True, type=click.IntRange(1, 128))
@click.option("--repeat", default=5, show_default=True, type=click.IntRange(1, 1000))
@click.option("--wire", type=click.Choice(["frames", "aggregated"]), help="Switch the cables meanwhile.")
@click.option("--baseline", type=click.Choice(["vxlan"]), help="Measure this in alternation.")
@format_option
def bench(
    name: str,
    source: str | None,
    target: str | None,
    seconds: int,
    streams: int,
    repeat: int,
    wire: Any,
    baseline: Any,
    output: str,
) -> None:
    """Measure TCP throughput between two VMs with iperf3."""
    from testbed.lab import bench as lab_bench
    from testbed.lab.lab import Lab

    with Lab.open(name) as lab, progress() as report:
        result = lab_bench.run(
            lab,
            source,
            target,
            wire,
            baseline,
            seconds=seconds,
            streams=streams,
            repeat=repeat,
            progress=lambda done, total, what: report(f"{what} ({done} of {total} runs)"),
        )
    if output == "json":
        print_json(result)
        return
    print_table(
        ["path", "Gbit/s", "retransmits", "switch CPU s"],
        [list(run.values()) for run in result["runs"]],
        title=f"{result['from']} -> {result['to']}, wire {result['wire']}",
    )
    for other, ratio in result["ratio"].items():
        click.echo(f"ratio to {other}: {ratio} (median of {repeat} pairs)")


COMMANDS = (check, counters, bench)
