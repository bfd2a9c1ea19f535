"""test: the suites that ship, against a topology or a running lab."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.cli.labs import set_option, variables
from testbed.cli.output import format_option, print_json, print_table, progress
from testbed.errors import BadInput, MachineLacks

if TYPE_CHECKING:
    from testbed.suites import Suite
    from testbed.testing.results import Results
    from testbed.testing.run import Order


@click.command("test")
@click.argument("topology", required=False)
@click.option("--suite", "suites", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@click.option("-n", "--workers", default="auto", show_default=True, metavar="N", help="Labs at once.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write JUnit XML, too.")
@click.option("--shard", default="1/1", metavar="I/N", help="The I-th of N parts of the tests.")
@click.option("--evidence", default="", metavar="DIR", help="A bundle of each failed test goes here.")
@click.option("--pause-on-fail", is_flag=True, help="Leave the lab up after a failure until Enter.")
@click.option("--plant", default="", metavar="FAULT", help="A fault on purpose, which a suite has to find.")
@click.option("--list", "listing", is_flag=True, help="Only list the suites.")
@click.option("--engine", "engine_name", default="auto", show_default=True, help="auto, docker, namespaces.")
@set_option
@format_option
def run_suites(
    topology: str | None, suites: tuple[str, ...], listing: bool, output: str, **asked: Any
) -> None:
    """Run the suites that ship on labs of a topology, or on a running lab.

    TOPOLOGY is a file, the name of a running lab, or of a topology that ships. Exits 1 if a test failed.
    """
    chosen = _suites(suites)
    if listing:
        _list(chosen, output)
        return
    if topology is None:
        raise BadInput("name a topology file or a running lab, such as `testbed test topologies/4host.yaml`")
    from testbed.testing import run

    run.require()
    with progress() as report:
        order = _order(topology, chosen, asked, report)
        results = run.run(order, lambda event, so_far: _tell(report, event, so_far))
    if output == "json":
        print_json({"topology": topology, "engine": order.engine, **results.plain()})
    else:
        _show(results)
    if not results.ok:
        raise SystemExit(1)


def _suites(names: tuple[str, ...]) -> tuple[Suite, ...]:
    from testbed.suites import SUITES, named

    for name in names:
        if named(name) is None:
            raise BadInput(f"there is no suite {name!r}: one of {', '.join(each.name for each in SUITES)}")
    return tuple(each for each in SUITES if not names or each.name in names)


def _list(suites: tuple[Suite, ...], output: str) -> None:
    rows = [{"name": each.name, "shows": each.shows, "needs": each.needs} for each in suites]
    if output == "json":
        print_json(rows)
    else:
        print_table(["suite", "shows", "needs"], [list(row.values()) for row in rows])


def _order(topology: str, suites: tuple[Suite, ...], asked: dict[str, Any], report: Any) -> Order:
    """All that can be wrong is found before anything is made. Raises BadInput, MachineLacks."""
    from testbed import plants
    from testbed.testing.run import Order

    settings, plant = asked["settings"], asked["plant"]
    variables(settings)
    if plant:
        plants.load(plant)
    running, file = _where(topology)
    if running and (settings or plant):
        raise BadInput(f"{running} is running: --set and --plant are for labs that are built from a file")
    workers = _workers(asked["workers"], alone=bool(running) or asked["pause_on_fail"])
    if asked["pause_on_fail"] and not sys.stdin.isatty():
        raise BadInput("--pause-on-fail waits for Enter: it needs a terminal")
    if file:
        engine = _prepared(file, settings, asked["engine_name"], report)
    else:
        from testbed.lab import store

        engine = store.load(running).engine
    return Order(
        suites,
        file=file,
        running=running,
        settings=settings,
        engine=engine,
        workers=workers,
        plant=plant,
        junit=asked["junit"],
        shard=shard_of_option(asked["shard"]),
        pause=asked["pause_on_fail"],
        evidence=_evidence(asked["evidence"], plant),
    )


def _evidence(folder: str, plant: str) -> Path | None:
    """Where bundles go: by default here, but with a plant failures are no news."""
    if folder == "off" or (plant and not folder):
        return None
    return Path(folder or "testbed-evidence")


def _where(topology: str) -> tuple[str, Path | None]:
    """The name of a running lab, or a file. Raises BadInput."""
    from testbed.lab import store
    from testbed.testing.pool import shipped_topology

    is_path = "/" in topology or topology.endswith((".yaml", ".yml"))
    if not is_path and topology in [record.name for record in store.load_all()]:
        return topology, None
    for file in (Path(topology), shipped_topology(Path(topology).name)):
        if file.is_file():
            return "", file.absolute()
    raise BadInput(f"{topology}: no such file, no running lab, and no topology that ships is called so")


def _prepared(file: Path, settings: tuple[str, ...], engine_name: str, report: Any) -> str:
    """The engine's name, once file, rights and engine are known to be good."""
    from testbed.engines.select import choose
    from testbed.topology import plan_from_file

    plan_from_file(file, variables(settings))
    if os.geteuid() != 0:
        raise MachineLacks("network namespaces and NICs can be made by root only: use sudo")
    engine, _ = choose(engine_name, report)
    return engine.name


def _workers(text: str, *, alone: bool) -> int:
    if text == "auto":
        return 1 if alone else len(os.sched_getaffinity(0))
    if not text.isdigit() or not 1 <= int(text) <= 64:
        raise BadInput(f"-n {text}: use auto, or 1 to 64")
    if alone and int(text) > 1:
        raise BadInput(f"-n {text}: on a running lab and with --pause-on-fail tests run one by one")
    return int(text)


def shard_of_option(text: str) -> str:
    """The value of --shard. Raises BadInput."""
    shard, _, shards = text.partition("/")
    if not (shard.isdigit() and shards.isdigit() and 1 <= int(shard) <= int(shards)):
        raise BadInput(f"--shard {text}: write it as I/N, for example 1/3")
    return text


def _tell(report: Any, event: dict[str, Any], results: Results) -> None:
    if event["event"] == "collected":
        report(f"{event['total']} tests")
    elif event["event"] == "test":
        bad = len(results.of("failed", "flake"))
        report(f"{len(results.tests)} done, {bad} failed: {event['id']}")
    else:
        lab, node = event["lab"], event["node"]
        report("waiting for Enter")
        print(  # not click.echo: what shows progress sees this and keeps out of its way
            f"{event['text']}\n"
            f"{event['id']} failed. Its lab {lab} is as it was then:\n"
            f"  testbed exec {lab} {node} -- sh\n"
            f"  testbed inspect {lab}\n"
            "Enter goes on with the next test, Ctrl-C ends the run; in the end the lab is taken down.",
            file=sys.stderr,
        )


def _show(results: Results) -> None:
    for each in results.of("failed", "flake"):
        label = "flake, it passed when it was run again" if each.outcome == "flake" else "failed"
        click.echo(f"{each.id}: {label}\n{each.text}\n")
        if each.bundle:
            click.echo(f"reproduce it: testbed repro {each.bundle} --rerun\n")
    for each in results.of("skipped"):
        click.echo(f"{each.id}: skipped: {each.text}")
    rows = results.by_suite()
    print_table(list(rows[0]) if rows else ["suite"], [list(row.values()) for row in rows])
    bad = len(results.of("failed", "flake"))
    click.echo(f"{len(results.tests)} tests, {bad} failed, {results.seconds:.1f} s")


COMMANDS = (run_suites,)
