"""Results files of made-up runs: the shape of real ones, always the same numbers."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from testbed.results import metrics
from testbed.results.model import Fingerprint, Metric, Run, Sample, Setting
from testbed.results.store import writing

START = 1_780_000_000
DAY = 86_400
PROFILES = {"modern": "nvgre,nvgre-lso,nvgre-rsc", "r2-nvgre": "nvgre,nvgre-lso", "r2": "lso", "basic": ""}
CELLS = [*itertools.product(PROFILES, ("frames", "aggregated"), (1, 8), (True, False))]
_RATE = {"modern": 21.0, "r2-nvgre": 9.0, "r2": 1.4, "basic": 1.25}


def settings(nic: str, wire: str, streams: int, guest_lso: bool) -> dict[str, Setting]:
    return {
        "nic": nic,
        "offloads": PROFILES[nic],
        "wire": wire,
        "streams": streams,
        "guest_lso": guest_lso,
        "team": "SwitchIndependent/Dynamic",
        "protocol": "tcp",
    }


def run(
    number: int,
    samples: Sequence[Sample],
    chosen: dict[str, Setting],
    *,
    commit: int = 0,
    batch: int | None = None,
    kind: str = "bench",
    kernel: str = "6.1.0",
    modified: bool = False,
    label: str = "",
) -> Run:
    """A run of these samples; number and batch make its UUIDs."""
    mark = Fingerprint(
        kernel=kernel,
        architecture="x86_64",
        cpu="Made-up CPU 3000",
        cores=2,
        memory=1 << 34,
        python="3.11.2",
        version="0.1.0",
        commit=f"{random.Random(commit).getrandbits(160):040x}",
        commit_time=float(START + commit * DAY),
        modified=modified,
        topology="2host",
        topology_hash="0123456789abcdef",
        settings=chosen,
    )
    used = {sample.metric for sample in samples}
    return Run(
        id=_uuid(number),
        batch=_uuid(number if batch is None else batch + (1 << 64)),
        kind=kind,
        label=label,
        lab="lab",
        started=START + commit * DAY + number % 5000,
        seconds=60.0,
        fingerprint=mark,
        metrics=tuple(each for each in metrics.METRICS.values() if each.name in used),
        samples=tuple(samples),
    )


def _uuid(number: int) -> str:
    return str(uuid.UUID(int=number + (4 << 76) + (1 << 127)))


def values(metric: Metric, path: str, numbers: Sequence[float], of: str = "") -> list[Sample]:
    """A sample for each number, in turns."""
    return [Sample(metric.name, number, path, turn, of) for turn, number in enumerate(numbers)]


def bench(
    chance: random.Random, cell: tuple[str, str, int, bool], slower: float = 1.0, *, rich: bool = False
) -> list[Sample]:
    """Five turns of ours and of VXLAN. rich: with queues and team members as well."""
    nic, wire, streams, lso = cell
    rate = _RATE[nic] * (0.3 if wire == "frames" else 1) * (1 if lso else 0.6) * (1 + streams / 40)
    found: list[Sample] = []
    for path, factor in (("wnv", 1 / slower), ("vxlan", 1.04)):
        rates = [rate * factor * chance.gauss(1, 0.03) for _ in range(5)]
        costs = [0.3 / each * chance.gauss(1, 0.04) + 0.02 for each in rates]
        trips = [0.4 * slower * chance.gauss(1, 0.05) for _ in rates]
        found += values(metrics.THROUGHPUT, path, rates)
        found += values(metrics.SWITCH_CPU_PER_GIGABIT, path, costs)
        found += values(metrics.RTT_LOAD_P50, path, trips)
        found += values(metrics.RETRANSMITS, path, [float(chance.randrange(9)) for _ in rates])
    if rich:
        queues = [f"host2/nic{nic}/queue{queue}" for nic in (1, 2) for queue in range(4)]
        for queue in queues:
            found += values(metrics.QUEUE_PACKETS, "wnv", [float(chance.randrange(8000, 12000))], queue)
        found += [
            Sample(metrics.MEMBER_THROUGHPUT.name, _member(chance, member, second), "wnv", 0, member, second)
            for member in ("host1/nic1", "host1/nic2")
            for second in (0.5 * step for step in range(1, 41))
        ]
    return found


def _member(chance: random.Random, member: str, second: float) -> float:
    """The second member fails for a while."""
    failed = 8 <= second < 13
    share = 1.0 if failed else 0.5
    return chance.gauss(0.2, 0.004) * share * 2 if member.endswith("1") or not failed else 0.0


def start(chance: random.Random) -> list[Sample]:
    phases = {"plan": 0.05, "nodes": 0.9, "links": 0.6, "switches": 0.5, "vms": 0.4}
    took = {name: usual * chance.gauss(1, 0.08) for name, usual in phases.items()}
    samples = [Sample(metrics.START_PHASE.name, value, object=name) for name, value in took.items()]
    return [Sample(metrics.START_TOTAL.name, sum(took.values())), *samples]


def history(count: int, *, slower_at_the_end: float = 1.0) -> Iterator[Run]:
    """``count`` runs: a plan of all cells for each commit, and a start on two engines."""
    chance = random.Random(9)
    plan: list[tuple[str, str, int, bool] | str] = [*CELLS, "docker", "namespaces"]
    commits = -(-count // len(plan))
    for number, (commit, cell) in zip(range(count), itertools.product(range(commits), plan), strict=False):
        last = commit == commits - 1
        if isinstance(cell, str):
            chosen: dict[str, Setting] = {"engine": cell, "hosts": 2, "vms": 4}
            yield run(number, start(chance), chosen, commit=commit, batch=commit, kind="start")
            continue
        slower = slower_at_the_end if last and cell[0] == "modern" else 1.0
        samples = bench(chance, cell, slower, rich=last)
        yield run(number, samples, settings(*cell), commit=commit, batch=commit, label="nightly")


def write(path: Path, runs: Iterator[Run] | Sequence[Run]) -> Path:
    with writing(path) as results:
        for each in runs:
            results.add(each)
    return path
