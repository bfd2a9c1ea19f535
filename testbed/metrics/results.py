"""Metrics of the latest results: the newest batch of each kind in a results file."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path

from testbed.errors import TestbedError
from testbed.metrics.families import Families
from testbed.results.model import OURS, Metric, Run
from testbed.results.store import reading
from testbed.results.turns import Turns, median_ratio, turns


class Results:
    """A source of metrics: a results file, read at each scrape, as others write to it meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def collect(self, families: Families) -> None:
        """The latest results; none, and not up, while the file cannot be read."""
        try:
            runs = list(latest(self._path))
        except TestbedError:
            runs = None
        families.add("gauge", "results_up", {"file": self._path.name}, float(runs is not None))
        add_runs(families, runs or ())

    def close(self) -> None:
        """Nothing is open between two scrapes."""


def latest(path: Path) -> Iterator[Run]:
    """The runs of the newest batch of each kind. Raises BadInput, LabError."""
    with reading(path) as results:
        heads = results.heads()
        batches = {head.kind: head.batch for head in heads}  # the oldest come first
        for head in heads:
            if batches[head.kind] == head.batch and (run := results.load(head.id)) is not None:
                yield run


def add_runs(families: Families, runs: Iterable[Run]) -> None:
    """Medians over the turns of each run, and of its ratios to a baseline of the same turn.

    Of runs with the same labels the newest counts. What is followed over time within a turn, and what is one
    of several objects, is left out.
    """
    newest = {tuple(_labels(run).items()): run for run in sorted(runs, key=lambda run: run.started)}
    for run in newest.values():
        labels = _labels(run)
        families.add("gauge", "result_timestamp_seconds", labels, run.started)
        measured = turns(run)
        for metric in run.metrics:
            told = {**labels, "metric": metric.name, "unit": metric.unit}
            by_path = {path: values for (name, path), values in measured.items() if name == metric.name}
            _add_metric(families, told, metric, by_path)


def _labels(run: Run) -> dict[str, str]:
    settings = ",".join(f"{name}={value}" for name, value in sorted(run.fingerprint.settings.items()))
    return {"kind": run.kind, "lab": run.lab, "label": run.label, "settings": settings}


def _add_metric(
    families: Families, labels: dict[str, str], metric: Metric, by_path: dict[str, Turns]
) -> None:
    for path, values in by_path.items():
        families.add("gauge", "result_value", {**labels, "path": path}, statistics.median(values.values()))
    ours = by_path.pop(OURS, {})
    for path, values in by_path.items():
        ratio = median_ratio(ours, values)
        if metric.better != "neither" and ratio is not None:
            families.add("gauge", "result_ratio", {**labels, "baseline": path}, ratio)
