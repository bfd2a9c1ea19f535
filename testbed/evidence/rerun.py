"""A bundle's lab again, on this machine: to look at, or to run the test that has failed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from testbed import plants, suites
from testbed.engines.select import choose
from testbed.errors import BadInput
from testbed.evidence.bundle import Bundle
from testbed.evidence.collect import TOPOLOGY
from testbed.lab import build, store
from testbed.lab.lab import Lab
from testbed.suites import Suite
from testbed.testing import run
from testbed.testing.results import Results
from testbed.topology import plan_from_file

_TEST = re.compile(r"test_[A-Za-z0-9_]+(\[[A-Za-z0-9_.:+-]*\])?\Z")

Progress = Callable[[str], None]


@contextlib.contextmanager
def topology_of(bundle: Bundle) -> Iterator[Path]:
    """Its topology as a file, for the block. Raises BadInput."""
    if TOPOLOGY not in bundle.files:
        why = bundle.manifest.missing.get(TOPOLOGY, "it is not there")
        raise BadInput(f"the bundle has no topology to build: {why}; look at its plan.json and captures")
    with store.scratch("repro") as folder:
        file = folder / TOPOLOGY
        file.write_bytes(bundle.files[TOPOLOGY])
        yield file


def up(bundle: Bundle, source: Path, engine_name: str, name: str | None, progress: Progress) -> Lab:
    """Build its lab and leave it up. Raises TestbedError."""
    plant = _plant(bundle)
    with topology_of(bundle) as file:
        plan = plan_from_file(file, {})
    engine, _ = choose(engine_name or bundle.manifest.engine, progress)
    return build.up(plan, engine, name, str(source.absolute()), progress, plant=plant)


def again(bundle: Bundle, engine_name: str, progress: Progress) -> Results:
    """Run its test on labs like its own. Raises TestbedError."""
    plant, suite = _plant(bundle), _suite(bundle)
    engine, _ = choose(engine_name or bundle.manifest.engine, progress)
    with topology_of(bundle) as file:
        plan_from_file(file, {})
        order = run.Order((suite,), file=file, engine=engine.name, plant=plant, only=bundle.manifest.name)
        return run.run(order, lambda event, _: progress(str(event.get("id", event["event"]))))


def _plant(bundle: Bundle) -> str:
    if bundle.manifest.plant:
        plants.load(bundle.manifest.plant)
    return bundle.manifest.plant


def _suite(bundle: Bundle) -> Suite:
    manifest = bundle.manifest
    if not manifest.suite:
        raise BadInput(
            f"{manifest.file} is a test file of somebody's own, which is not in the bundle: "
            f"bring the lab up with --shell and run pytest on it"
        )
    suite = suites.named(manifest.suite)
    if suite is None or not _TEST.match(manifest.name):
        raise BadInput(f"this version has no test {manifest.id!a}; use testbed {manifest.testbed!a}")
    return suite
