"""A run that was measured is not lost, whatever becomes of the results file."""

from __future__ import annotations

from pathlib import Path

from testbed.errors import TestbedError
from testbed.results import exchange
from testbed.results.model import Run, check
from testbed.results.store import writing


def keep(path: Path, run: Run) -> None:
    """Record a run. Where that fails, write it into a file beside, and raise the error with its name."""
    check(run, str(path))
    try:
        with writing(path) as results:
            results.add(run)
    except TestbedError as error:
        beside = path.with_name(f"{path.name}.{run.id}.jsonl")
        exchange.export_to([run], "jsonl", beside)
        told = f"{error}; the run is in {beside}: record it with `testbed results import {beside}`"
        raise type(error)(told) from error
