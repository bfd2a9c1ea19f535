"""up, apply, down, list, inspect, gc: the life of a lab."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.cli.output import format_option, print_json, print_table, progress
from testbed.cli.results import start_keeper
from testbed.errors import BadInput, LabError, MachineLacks, TestbedError

if TYPE_CHECKING:
    from testbed.lab.lab import Lab

file_argument = click.argument("file", type=click.Path(path_type=Path))
set_option = click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Set a template variable; may be repeated."
)


def variables(settings: tuple[str, ...]) -> dict[str, str]:
    """The template variables of ``--set``. Raises BadInput."""
    found = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.isidentifier():
            raise BadInput(f"--set {setting}: write it as NAME=VALUE, for example --set hosts=8")
        found[name] = value
    return found


@click.command()
@file_argument
@set_option
@click.option("--name", help="Name of the lab. Default: the file's name; then NAME-2 and so on.")
@click.option("--engine", "engine_name", default="auto", show_default=True, help="auto, docker, namespaces.")
@click.option(
    "--results",
    "store",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Record in this results file how long it took.",
)
@format_option
def up(
    file: Path,
    settings: tuple[str, ...],
    name: str | None,
    engine_name: str,
    store: Path | None,
    output: str,
) -> None:
    """Build a new lab from a topology file."""
    from testbed.engines.select import choose
    from testbed.lab import build, garbage
    from testbed.topology import plan_from_file

    plan = plan_from_file(file, variables(settings))
    check_name(name)
    if os.geteuid() != 0:
        raise MachineLacks("network namespaces and NICs can be made by root only: use sudo")
    record = start_keeper(store)
    garbage.collect(unfinished_only=True)
    with progress() as report:
        engine, why = choose(engine_name, report)
        if output == "table":
            click.echo(f"engine: {engine.name} ({why})", err=True)
        found: dict[str, Any] = {}
        topology = str(file.absolute())
        lab = build.up(plan, engine, name, topology, report, lambda lab: found.update(_finish(lab)))
    with lab:
        try:
            found.update(record(lab))
        finally:  # the lab is up, whatever becomes of the record
            _show_up(found, output)


def check_name(name: str | None) -> None:
    """Raise BadInput for what can't be a new lab's name; None: it has a name by default."""
    import re

    if name is not None and not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", name):
        raise BadInput(f"--name {name!r}: at most 32 lower-case letters, digits and inner hyphens")


def _finish(lab: Lab) -> dict[str, Any]:
    """What ``inspect`` shows of a new lab; after that Ctrl-C comes too late, only the telling is left."""
    import signal

    from testbed.lab.inspect import inspect

    found = inspect(lab)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return found


def _show_up(found: dict[str, Any], output: str) -> None:
    if output == "json":
        print_json(found)
        return
    _vm_table(found)
    lab_name = found["name"]
    program = os.environ.get("TESTBED_PROGRAM", "testbed")  # how testbed.sh was called
    first = found["vms"][0]["name"] if found["vms"] else found["hosts"][0]["name"]
    if "results" in found:
        click.echo(f"recorded in {found['results']} as run {found['run']}")
    click.echo(f"{lab_name} is up in {found['phases']['total']:.2f} s. Try:")
    click.echo(f"  {program} check {lab_name}")
    click.echo(f"  {program} exec -it {lab_name} {first} -- bash")
    click.echo(f"  {program} bench {lab_name} --baseline vxlan")


def _vm_table(found: dict[str, Any]) -> None:
    print_table(
        ["VM", "host", "network", "VSID", "addresses", "MAC"],
        [
            [vm["name"], vm["host"], vm.get("network"), vm.get("vsid"), vm["addresses"], vm.get("mac")]
            for vm in found["vms"]
        ],
    )


@click.command()
@click.argument("name")
@file_argument
@set_option
@click.option("--dry-run", is_flag=True, help="Only say what would be changed.")
@format_option
def apply(name: str, file: Path, settings: tuple[str, ...], dry_run: bool, output: str) -> None:
    """Change a running lab into what a topology file says."""
    from testbed.lab.apply import apply as apply_plan
    from testbed.lab.apply import changes_to, describe
    from testbed.lab.lab import Lab
    from testbed.topology import plan_from_file

    with Lab.open(name) as lab:
        new = plan_from_file(file, variables(settings), lab.plan)
        if dry_run:
            changes = changes_to(lab, new)
        else:
            with progress() as report:
                changes = apply_plan(lab, new, report)
    described = describe(changes)
    if output == "json":
        print_json({"name": name, "applied": not dry_run, "changes": described})
        return
    for line in _change_lines(described) or ["nothing to change"]:
        click.echo(line)


def _change_lines(described: dict[str, Any]) -> list[str]:
    lines = []
    for kind, entry in described.items():
        if isinstance(entry, dict):
            for sign, key in (("+", "added"), ("-", "removed"), ("~", "changed")):
                lines += [f"{sign} {kind.rstrip('s')} {name}" for name in entry[key]]
        else:
            lines += [f"~ {kind} {name}" for name in entry]
    return lines


@click.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="End every lab.")
def down(names: tuple[str, ...], everything: bool) -> None:
    """End labs and remove everything of them."""
    from testbed.lab import build, store

    if everything == bool(names):
        raise BadInput("name the labs to end, or say --all")
    failed = []
    for name in [record.name for record in store.load_all()] if everything else names:
        try:
            build.down(name)
            click.echo(f"{name} is down")
        except TestbedError as error:
            if len(names) == 1:
                raise
            failed.append(f"{name}: {error}")
    if failed:
        raise LabError("; ".join(failed))


@click.command("list")
@format_option
def list_labs(output: str) -> None:
    """List the labs of this machine."""
    from testbed.engines.select import by_name
    from testbed.lab import store

    rows = []
    for record in store.load_all():
        alive = by_name(record.engine).alive(store.ref(record))
        state = ("running" if record.ready else "starting") if alive else "dead"
        rows.append(
            {
                "name": record.name,
                "id": record.id,
                "engine": record.engine,
                "state": state,
                "ready": record.ready and alive,
                "created": record.created,
                "topology": record.topology,
            }
        )
    if output == "json":
        print_json(rows)
    else:
        print_table(
            ["lab", "engine", "state", "topology"],
            [[row["name"], row["engine"], row["state"], row["topology"]] for row in rows],
        )


@click.command()
@click.argument("name")
@format_option
def inspect(name: str, output: str) -> None:
    """Show the live state of a lab."""
    from testbed.lab.inspect import inspect as inspect_lab
    from testbed.lab.lab import Lab

    with Lab.open(name) as lab:
        found = inspect_lab(lab)
    if output == "json":
        print_json(found)
        return
    click.echo(f"{found['name']} ({found['id']}), engine {found['engine']}, {_ready(found)}")
    if found["vmm"]:
        click.echo(_vmm_text(found["vmm"]))
    print_table(
        ["host", "provider addresses", "WNV", "extensions", "NICs", "processes", "MiB"],
        [
            [
                host["name"],
                [_pa_text(pa) for pa in host.get("provider_address_states", [])],
                host.get("wnv"),
                host.get("extensions"),
                [nic["name"] + ("*" if nic["active"] else "") for nic in host["nics"]],
                [process["pid"] for process in host["processes"]],
                round(sum(process["pss_bytes"] for process in host["processes"]) / 2**20, 1),
            ]
            for host in found["hosts"]
        ],
    )
    _vm_table(found)


def _vmm_text(vmm: dict[str, Any]) -> str:
    if "error" in vmm:
        return f"{vmm['name']}: {vmm['error']}"
    mib = sum(process["pss_bytes"] for process in vmm["processes"]) / 2**20
    return f"{vmm['name']} {vmm['address']}:{vmm['port']}, revision {vmm['revision']}, {mib:.1f} MiB"


def _pa_text(pa: dict[str, Any]) -> str:
    return f"{pa['address']} ({pa['vsid']}, {pa['state']})"


def _ready(found: dict[str, Any]) -> str:
    return "ready" if found["ready"] else "not ready"


@click.command()
def gc() -> None:
    """Remove what dead processes left behind."""
    from testbed.lab.garbage import collect

    for line in collect() or ["nothing to remove"]:
        click.echo(line)


COMMANDS = (up, apply, down, list_labs, inspect, gc)
