"""What was measured on a lab, as runs for a results file."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

from testbed.errors import LabError
from testbed.lab.lab import Lab
from testbed.results import metrics
from testbed.results.environment import digest, fingerprint
from testbed.results.model import Run, Sample, Setting, new_id

_STARTS = uuid.UUID("5a1f8d0e-3a55-4e0b-9d53-0c4a4f1d6b1e")  # in which ids of starts are made from labs'


def bench(lab: Lab, result: dict[str, Any], *, started: float, seconds: float, label: str = "") -> Run:
    """The run that a result of :func:`testbed.lab.bench.run` is. started: Unix seconds; seconds: it took."""
    turns: Counter[str] = Counter()
    samples = []
    for each in result["runs"]:
        samples += _samples(each, turns[each["path"]], result["settings"]["seconds"])
        turns[each["path"]] += 1
    used = {sample.metric for sample in samples}
    run = new_id()
    return Run(
        id=run,
        batch=run,
        kind="bench",
        label=label,
        lab=lab.record.name,
        started=started,
        seconds=seconds,
        fingerprint=fingerprint(lab.plan.name, digest(lab.plan), result["settings"], ["iperf3"]),
        metrics=tuple(metric for name, metric in metrics.METRICS.items() if name in used),
        samples=tuple(samples),
    )


def _samples(measured: dict[str, Any], turn: int, seconds: float) -> list[Sample]:
    rate, cpu = measured["gigabits_per_second"], measured["switch_cpu_seconds"]
    values = {
        metrics.THROUGHPUT: rate,
        metrics.RETRANSMITS: measured["retransmits"],
        metrics.SWITCH_CPU: cpu,
        metrics.SWITCH_CPU_PER_GIGABIT: cpu / (rate * seconds),
    }
    return [Sample(metric.name, float(value), measured["path"], turn) for metric, value in values.items()]


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
            *(Sample(metrics.START_PHASE.name, value, object=name) for name, value in phases.items()),
        ),
    )
