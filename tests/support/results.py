"""Made-up runs: two paths in turns on a machine whose speed drifts."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from testbed.results import metrics
from testbed.results.model import Fingerprint, Run, Sample, new_id

MARK = Fingerprint(
    kernel="6.1.0-18-amd64",
    architecture="x86_64",
    cpu="Some CPU",
    cores=4,
    memory=8 << 30,
    python="3.11.2",
    version="0.1.0",
    commit="0123456789abcdef0123456789abcdef01234567",
    commit_time=1.7e9,
    modified=False,
    topology="4host",
    topology_hash="b5736ceb2c41ab58",
    settings={"engine": "namespaces", "wire": "frames", "streams": 1, "guest_lso": True},
    tools={"iperf3": "0.1.11"},
)


def mark(settings: dict[str, Any] | None = None, **changed: Any) -> Fingerprint:
    """The fingerprint of made-up runs with some of it changed; settings are added."""
    return msgspec.structs.replace(MARK, settings=MARK.settings | (settings or {}), **changed)


def run(
    *,
    ratio: float = 1.0,
    cpu: float = 0.2,
    noise: float = 0.01,
    speed: float = 4.0,
    turns: int = 10,
    seed: int = 1,
    baseline: bool = True,
    **more: Any,
) -> Run:
    """A run of ``turns`` turns in which ours is ``ratio`` times as fast as VXLAN.

    speed: VXLAN's Gbit/s when the machine is at its usual speed, which it leaves by half from turn to
    turn. noise: standard deviation of each value of ours. cpu: seconds for each gigabit.
    """
    chooser = random.Random(seed)
    samples = []
    for turn in range(turns):
        now = speed * chooser.uniform(0.5, 1.5)
        ours = now * ratio * chooser.gauss(1, noise)
        samples.append(Sample("throughput", ours, "wnv", turn))
        samples.append(Sample("switch_cpu_per_gigabit", cpu * chooser.gauss(1, noise), "wnv", turn))
        if baseline:
            samples.append(Sample("throughput", now, "vxlan", turn))
            samples.append(Sample("switch_cpu_per_gigabit", 0.0, "vxlan", turn))
    own = new_id()
    head: dict[str, Any] = {"id": own, "batch": own, "kind": "bench", "lab": "4host", "label": ""}
    head |= {"started": 1.7e9 + seed, "seconds": 66.5, "fingerprint": MARK} | more
    described = (metrics.THROUGHPUT, metrics.SWITCH_CPU_PER_GIGABIT)
    return Run(**head, metrics=described, samples=tuple(samples))


def same(one: Run, other: Run) -> bool:
    """Whether two runs are equal, in whatever order their samples and metrics stand."""

    def key(of: Run) -> tuple[Any, ...]:
        samples = sorted(msgspec.structs.astuple(each) for each in of.samples)
        described = sorted(msgspec.structs.astuple(each) for each in of.metrics)
        return msgspec.structs.replace(of, samples=(), metrics=()), samples, described

    return key(one) == key(other)
