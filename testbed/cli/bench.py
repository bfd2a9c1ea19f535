"""bench: throughput and latency between two VMs, beside baselines, over the cells of a plan."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from testbed.cli.output import print_json, print_table, progress, report_option
from testbed.cli.results import keeper, results_option

if TYPE_CHECKING:
    from testbed.lab.bench import CellResult, Failure
    from testbed.lab.lab import Lab
    from testbed.perf.expect import Outcome
    from testbed.perf.plan import BenchPlan, Cell

F = TypeVar("F", bound=Callable[..., Any])


def _axes(function: F) -> F:
    """Options of what a plan's matrix has; each may be given several times."""
    wire = click.Choice(["frames", "aggregated"])
    several: dict[str, Any] = {"multiple": True}
    for option in reversed(
        (
            click.option(
                "--nic", metavar="PROFILE", help="The NICs on the path are of it meanwhile.", **several
            ),
            click.option("--wire", type=wire, help="Switch the cables meanwhile.", **several),
            click.option("--guest-lso", type=bool, help="VMs hand over super-packets meanwhile.", **several),
            click.option(
                "--team", metavar="MODE/ALGORITHM", help="The hosts' teams meanwhile, or none.", **several
            ),
            click.option("--streams", type=click.IntRange(1, 128), help="Parallel streams.", **several),
            click.option("--direction", type=click.Choice(["forward", "reverse", "both"]), **several),
            click.option("--protocol", type=click.Choice(["tcp", "udp"]), **several),
            click.option("--ip", type=click.Choice(["4", "6"]), help="Version.", **several),
            click.option("--message-size", type=int, metavar="BYTES", help="Of one write.", **several),
            click.option("--rate", type=int, metavar="MBITS", help="Of each stream; 0: no limit.", **several),
        )
    ):
        function = option(function)
    return function


def _terms(function: F) -> F:
    """Options of what a plan says once."""
    for option in reversed(
        (
            click.option("--from", "source", metavar="VM", help="Default: the first VM that has a partner."),
            click.option("--to", "target", metavar="VM", help="Default: one of its subnet on another host."),
            click.option("--seconds", type=click.IntRange(1, 3600), help="Of a run; default 5."),
            click.option("--warm-up", type=click.IntRange(0, 3600), help="Seconds; default 1."),
            click.option("--repeat", type=click.IntRange(1, 1000), help="Turns; default 5."),
            click.option("--latency/--no-latency", default=None, help="Measure round trips; default: yes."),
            click.option("--congestion-control", metavar="NAME", help="Of TCP; default cubic."),
            click.option(
                "--baseline",
                type=click.Choice(["bare", "vxlan", "ovs"]),
                multiple=True,
                help="Measure this in turns with ours; may be given several times.",
            ),
        )
    ):
        function = option(function)
    return function


@click.command()
@click.argument("name")
@click.option("--plan", "file", type=click.Path(path_type=Path), metavar="FILE", help="A bench plan in YAML.")
@click.option("--list", "only_list", is_flag=True, help="Show the cells of the plan, measure nothing.")
@_axes
@_terms
@click.option("--save", is_flag=True, help="Record what is measured in the results file.")
@click.option("--label", default="", help="With --save: a word to find it by.")
@results_option
@report_option("a report")
def bench(
    name: str,
    file: Path | None,
    only_list: bool,
    save: bool,
    label: str,
    store: Path | None,
    output: str,
    **chosen: Any,
) -> None:
    """Measure throughput and round trips between two VMs, beside baselines, with iperf3's library.

    Options go before what the plan's file says. Exits 1 when an expectation of the plan is not met, and 3
    when a cell could not be measured to its end.
    """
    from testbed.lab import bench as lab_bench
    from testbed.lab.lab import Lab
    from testbed.perf.expect import judge

    plan = _plan(file, chosen)
    if only_list:
        with Lab.open(name) as lab:
            _list(lab, plan, output)
        return
    plan, skipped = _without_missing(plan)
    keep = keeper(save=save, label=label or (plan.label if save or store else ""), store=store)
    results: list[tuple[CellResult, dict[str, str]]] = []
    with Lab.open(name) as lab, progress() as report:
        if len(plan.cells()) > 1:
            _warn(lab_bench.cells_of(lab, plan))
        failures = lab_bench.run_plan(
            lab,
            plan,
            lambda done, total, what: report(f"{what} ({done} of {total} runs)" if total else what),
            lambda result: results.append((result, keep(lab, result))),
        )
    outcomes = judge(plan.expect, plan.cells(), {result.cell: result.turns for result, _ in results})
    alone = file is None and len(plan.cells()) == 1
    _print(plan, results, failures, outcomes, output, skipped, alone=alone)
    if failures:
        raise lab_bench.failed(failures, len(plan.cells()))
    if missed := sum(not each.met for each in outcomes):
        click.echo(f"testbed: {missed} of {len(outcomes)} expectations are not met", err=True)
        sys.exit(1)


def _plan(file: Path | None, chosen: dict[str, Any]) -> BenchPlan:
    """A file's plan, or an empty one, with what options say."""
    from testbed.perf import plan as plans

    axes = {axis: chosen.pop(axis) for axis in plans.Matrix.__struct_fields__}
    axes["ip"] = tuple(int(version) for version in axes["ip"])
    others = {
        "from_vm": chosen.pop("source"),
        "to_vm": chosen.pop("target"),
        "baselines": tuple(dict.fromkeys(chosen.pop("baseline"))),
        **chosen,
    }
    plan = (plans.load(file) if file else plans.BenchPlan()).changed(axes, others)
    plan.cells()
    return plan


def _warn(cells: dict[Cell, str]) -> None:
    """Name what will not be measured, before a long plan begins."""
    for cell, why in cells.items():
        if why:
            click.echo(f"testbed: {cell.name()} is not measured: {why}", err=True)


def _without_missing(plan: BenchPlan) -> tuple[BenchPlan, dict[str, str]]:
    """The plan without baselines that this machine has not got, and why not."""
    import msgspec

    from testbed.perf.bench import left_out

    skipped = left_out(plan.baselines)
    for name, why in skipped.items():
        click.echo(f"testbed: baseline {name} is left out: {why}", err=True)
    rest = tuple(each for each in plan.baselines if each not in skipped)
    return msgspec.structs.replace(plan, baselines=rest), skipped


# ---- output -----------------------------------------------------------------------------------

_FIGURES = {
    "Gbit/s": "throughput",
    "retransmits": "retransmits",
    "loss %": "loss",
    "switch CPU s": "switch_cpu",
    "machine CPU s": "machine_cpu",
    "RTT idle p50 ms": "rtt_idle_p50",
    "p99": "rtt_idle_p99",
    "RTT load p50 ms": "rtt_load_p50",
    "load p99": "rtt_load_p99",
}


def _list(lab: Lab, plan: BenchPlan, output: str) -> None:
    import msgspec

    from testbed.lab.bench import cells_of
    from testbed.perf.plan import Cell

    cells = cells_of(lab, plan)
    found = [{"cell": cell, "name": cell.name(), "refused": why} for cell, why in cells.items()]
    if output == "json":
        print_json({"plan": plan, "cells": found})
        return
    usual = msgspec.structs.asdict(Cell())
    used = [axis for axis in usual if any(getattr(cell, axis) != usual[axis] for cell in cells)]
    rows = [
        [number, *(_plain(getattr(cell, axis)) for axis in used), each["refused"]]
        for number, (cell, each) in enumerate(zip(cells, found, strict=True), 1)
    ]
    _table(["cell", *used, "refused"], rows, output)


def _plain(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _print(
    plan: BenchPlan,
    results: list[tuple[CellResult, dict[str, str]]],
    failures: list[Failure],
    outcomes: list[Outcome],
    output: str,
    skipped: dict[str, str],
    *,
    alone: bool,
) -> None:
    """All cells; a single one that only options describe is printed by itself."""
    if output == "json":
        told = [{"cell": each.cell.name(), **each.told(), **saved} for each, saved in results]
        batch = results[0][0].batch if results else None
        whole = {"batch": batch, "cells": told, "failed": failures, "expected": outcomes}
        print_json({**(told[0] if alone else whole), "left_out": skipped})
        return
    for result, saved in results:
        _print_cell(result, saved, output, plan.repeat, "" if alone else f"{result.cell.name()}: ")
    if not alone and results:
        _print_summary(results, output)
    if outcomes:
        columns = ["metric", "cell", "against", "ratio", "expected", "met"]
        _table(columns, [_outcome(each) for each in outcomes], output, "Expectations")


def _outcome(of: Outcome) -> list[str]:
    met = "yes" if of.met else f"no: {of.why}" if of.why else "no"
    return [of.metric, of.cell, of.against, _figure(of.ratio), of.wanted(), met]


def _print_cell(result: CellResult, saved: dict[str, str], output: str, repeat: int, before: str) -> None:
    measured = [each for turn in result.turns for each in turn]
    used = {
        title: name for title, name in _FIGURES.items() if any(name in each.values() for each in measured)
    }
    title = f"{before}{result.source} -> {result.target}, wire {result.wire}"
    rows = [[each.path, *(_figure(each.values().get(name)) for name in used.values())] for each in measured]
    _table(["path", *used], rows, output, title)
    for other, ratio in result.ratios().items():
        click.echo(f"ratio to {other}: {ratio} (median of {repeat} pairs)")
    if saved:
        click.echo(f"recorded in {saved['results']} as run {saved['run']}")
    if output == "markdown":
        click.echo()


def _print_summary(results: list[tuple[CellResult, dict[str, str]]], output: str) -> None:
    """Medians of each cell."""
    from statistics import median

    paths = list(dict.fromkeys(each.path for result, _ in results for turn in result.turns for each in turn))
    rows = []
    for result, _ in results:
        values: dict[str, list[float]] = {path: [] for path in paths}
        for turn in result.turns:
            for each in turn:
                values[each.path].append(each.values()["throughput"])
        ratios = [_figure(ratio) for ratio in result.ratios().values()]
        rows.append([result.cell.name(), *(_figure(median(of)) for of in values.values() if of), *ratios])
    others = [f"ratio to {name}" for name in results[0][0].baselines]
    _table(["cell", *(f"{path} Gbit/s" for path in paths), *others], rows, output, "Medians")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}" if value < 10000 else f"{value:.0f}"


def _table(columns: list[str], rows: list[list[Any]], output: str, title: str = "") -> None:
    if output != "markdown":
        print_table(columns, rows, title)
        return
    if title:
        click.echo(f"**{title}**\n")
    for row in (columns, ["---"] * len(columns), *rows):
        click.echo("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |")
    click.echo()


COMMANDS = (bench,)
