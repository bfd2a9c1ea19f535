"""What was measured on a lab, as runs for a results file."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import msgspec

from testbed.errors import LabError
from testbed.lab.bench import CellResult
from testbed.lab.lab import Lab
from testbed.results import metrics
from testbed.results.environment import digest, fingerprint
from testbed.results.model import Run, Sample, Setting, new_id

_STARTS = uuid.UUID("5a1f8d0e-3a55-4e0b-9d53-0c4a4f1d6b1e")  # in which ids of starts are made from labs'


def bench(lab: Lab, result: CellResult, label: str = "") -> Run:
    """The run that a measured cell is."""
    samples = tuple(sample for turn in result.turns for each in turn for sample in each.samples)
    used = {sample.metric for sample in samples}
    mark = fingerprint(lab.plan.name, digest(lab.plan), result.settings, ["iperf3"])
    return Run(
        id=new_id(),
        batch=result.batch,
        kind="bench",
        label=label,
        lab=lab.record.name,
        started=result.started,
        seconds=result.seconds,
        fingerprint=msgspec.structs.replace(mark, tools=mark.tools | result.tools),
        metrics=tuple(metric for name, metric in metrics.METRICS.items() if name in used),
        samples=samples,
    )


def start(lab: Lab, label: str = "") -> Run:
    """How long a lab took to start, phase by phase. Always the same run for the same lab.

    Raises LabError for a lab that was never ready.
    """
    phases = dict(lab.record.phases)
    if not phases:
        raise LabError(f"{lab.record.name} is not complete: how long it took to start is not known")
    total = phases.pop("total")
    run = str(uuid.uuid5(_STARTS, lab.record.id))
    settings: dict[str, Setting] = {
        "engine": lab.record.engine,
        "hosts": len(lab.plan.hosts),
        "vms": len(lab.plan.vms),
    }
    return Run(
        id=run,
        batch=run,
        kind="start",
        label=label,
        lab=lab.record.name,
        started=lab.record.created,
        seconds=total,
        fingerprint=fingerprint(lab.plan.name, digest(lab.plan), settings),
        metrics=(metrics.START_TOTAL, metrics.START_PHASE),
        samples=(
            Sample(metrics.START_TOTAL.name, total),
            *_phases(phases),
        ),
    )


def _phases(seconds: dict[str, float]) -> Iterator[Sample]:
    """A sample for each phase, in their order: its time is when it began, seconds after the start did."""
    began = 0.0
    for name, value in seconds.items():
        yield Sample(metrics.START_PHASE.name, value, object=name, time=round(began, 4))
        began += value
