"""repro: what is kept of a failed test, its lab again, and the test again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.cli.output import format_option, print_json, print_table, progress
from testbed.errors import BadInput, MachineLacks

if TYPE_CHECKING:
    from testbed.evidence.bundle import Bundle


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--rerun", is_flag=True, help="Run the test again, on a lab like its own.")
@click.option("--shell", is_flag=True, help="Bring the lab up, and leave it to look at.")
@click.option("--name", help="Name of that lab. Default: as `testbed up` names it.")
@click.option("--engine", "engine_name", default="", help="auto, docker, namespaces. Default: the bundle's.")
@format_option
def repro(bundle: Path, rerun: bool, shell: bool, name: str | None, engine_name: str, output: str) -> None:
    """Look at what is kept of a failed test, or reproduce it here.

    With --rerun exits 1 if the test fails again.
    """
    from testbed.evidence import bundle as bundles

    if rerun and shell:
        raise BadInput("--rerun takes its lab down, --shell leaves it up: say one of them")
    if name and not shell:
        raise BadInput("--name is for the lab that --shell leaves up")
    found = bundles.read(bundle)
    if not rerun and not shell:
        _show(found, output)
        return
    if os.geteuid() != 0:
        raise MachineLacks("network namespaces and NICs can be made by root only: use sudo")
    if rerun:
        _rerun(found, engine_name, output)
    else:
        _up(found, bundle, engine_name, name, output)


def _show(found: Bundle, output: str) -> None:
    from testbed.evidence.collect import FAILURE

    manifest = found.manifest
    facts: dict[str, Any] = {
        "test": manifest.id,
        "topology": manifest.topology,
        "settings": manifest.settings,
        "engine": manifest.engine,
        "plant": manifest.plant,
        "created": manifest.created,
        "testbed": manifest.testbed,
        "python": manifest.python,
        "kernel": manifest.kernel,
        "seeds": manifest.seeds,
        "missing": manifest.missing,
        "files": {name: entry.size for name, entry in manifest.files.items()},
        "failure": found.text(FAILURE),
    }
    if output == "json":
        print_json(facts)
        return
    click.echo(f"{facts['test']}\n{_printable(facts['failure'])}\n")
    rows: list[list[Any]] = [[key, facts[key]] for key in ("topology", "engine", "testbed", "kernel")]
    rows.insert(1, ["settings", [f"{key}={value}" for key, value in manifest.settings.items()]])
    rows += [["plant", manifest.plant]] if manifest.plant else []
    rows += [["seed", f"{cable}: {seed}"] for cable, seed in manifest.seeds.items()]
    rows += [["not there", f"{key}: {why}"] for key, why in manifest.missing.items()]
    print_table(["", ""], rows)
    print_table(["file", "bytes"], [[key, size] for key, size in facts["files"].items()])


def _printable(text: str) -> str:
    """Nothing of a stranger's text may speak to the terminal."""
    return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in text)


def _rerun(found: Bundle, engine_name: str, output: str) -> None:
    from testbed.evidence import rerun
    from testbed.testing import run

    run.require()
    with progress() as report:
        results = rerun.again(found, engine_name, report)
    if output == "json":
        print_json({"test": found.manifest.id, **results.plain()})
    else:
        for each in results.tests:
            click.echo(f"{each.id}: {each.outcome}{', it does not fail here' * (each.outcome == 'passed')}")
            if each.text:
                click.echo(each.text)
    if not results.ok:
        raise SystemExit(1)


def _up(found: Bundle, source: Path, engine_name: str, name: str | None, output: str) -> None:
    from testbed.cli.labs import check_name
    from testbed.evidence import rerun
    from testbed.lab.inspect import inspect

    check_name(name)
    with progress() as report, rerun.up(found, source, engine_name, name, report) as lab:
        facts = inspect(lab)
    if output == "json":
        print_json(facts)
        return
    fault = f", with the plant {found.manifest.plant}" if found.manifest.plant else ""
    click.echo(f"{facts['name']} is up, as it was for {found.manifest.id}{fault}.")
    click.echo(f"When done: testbed down {facts['name']}")


COMMANDS = (repro,)
