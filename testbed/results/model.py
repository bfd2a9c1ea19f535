"""What a results file holds: runs, each with its fingerprint and its samples. See docs/results.md.

A :class:`Run` is one cell of a bench plan: one choice of settings, on which one or several paths
(ours and its baselines) are measured in turns. A :class:`Sample` is one number of it: a named metric
of one path in one turn. What is new to measure is a new metric, a new setting or a new path, never a
new field.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from typing import Literal

import msgspec
from msgspec import Struct

from testbed.errors import BadInput

SCHEMA = 1
"""Version of what follows and of the tables; a file with a higher one is refused."""

OURS = "wnv"
"""The path through the lab's switches; every other path of a run is a baseline of it."""

Setting = str | int | float | bool | None
Better = Literal["higher", "lower", "neither"]


class Metric(Struct, frozen=True, forbid_unknown_fields=True):
    """What is measured. better: which way is good; what is "neither" is shown and never judged."""

    name: str
    unit: str
    better: Better
    title: str = ""


class Sample(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One number.

    metric: the name of one of the run's metrics, in whose unit value is. path: what was measured: "wnv",
    "vxlan", "bare", or "" for what belongs to none. repetition: the turn, from 0; paths with the same
    number were measured right after each other, so a ratio is taken within it. object: which one of
    several, such as "host1/nic1/queue0", or "". time: seconds since the turn began, for what is
    followed over time; 0 for what holds for the whole turn.
    """

    metric: str
    value: float
    path: str = ""
    repetition: int = 0
    object: str = ""
    time: float = 0.0


class Fingerprint(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """In what environment a run was made.

    kernel: its release. cpu: model name. cores: those this process may use. memory: bytes. python:
    "3.11.2". version, commit, commit_time (Unix seconds), modified: of testbed; commit is "" outside of
    a checkout. topology, topology_hash: the lab's; the hash is over all that the Plan decides. settings:
    whatever was chosen, by name. tools: versions of programs that take part.
    """

    kernel: str
    architecture: str
    cpu: str
    cores: int
    memory: int
    python: str
    version: str
    commit: str
    commit_time: float
    modified: bool
    topology: str
    topology_hash: str
    settings: dict[str, Setting]
    tools: dict[str, str] = {}

    def comparable(self) -> dict[str, Setting]:
        """What must be equal for two runs to be compared: all but testbed itself, memory and tools."""
        python = ".".join(self.python.split(".")[:2])
        return {
            "kernel": self.kernel,
            "architecture": self.architecture,
            "cpu": self.cpu,
            "cores": self.cores,
            "python": python,
            "topology": self.topology_hash,
            **{f"settings.{name}": self.settings[name] for name in sorted(self.settings)},
        }

    def class_id(self) -> str:
        """A short name for :meth:`comparable`: runs of the same one are like with like."""
        return hashlib.sha256(msgspec.json.encode(self.comparable())).hexdigest()[:16]


class Run(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One choice of settings, measured.

    id: a UUID, by which merging knows a run. batch: the UUID that all runs of one bench plan share; a
    run by itself has its own id there. kind: "bench", "start" and the like. label: the user's. lab: its
    name. started: Unix seconds. seconds: how long all of it took. metrics: those that samples name.
    """

    id: str
    batch: str
    kind: str
    lab: str
    started: float
    seconds: float
    fingerprint: Fingerprint
    metrics: tuple[Metric, ...]
    samples: tuple[Sample, ...]
    label: str = ""


def new_id() -> str:
    """An id for a run or a batch."""
    return str(uuid.uuid4())


def check(run: Run, where: str) -> None:
    """Raise BadInput, which begins with ``where``, for a run that must not be recorded."""
    for problem in _problems(run):
        raise BadInput(f"{where}: run {run.id!r}: {problem}; it is not recorded")


def _problems(run: Run) -> list[str]:
    print_of = run.fingerprint
    found = [f"{name} is not a UUID" for name in ("id", "batch") if not _is_uuid(getattr(run, name))]
    needed = ("kernel", "architecture", "cpu", "python", "version", "topology_hash")
    found += [f"its fingerprint lacks {name}" for name in needed if not getattr(print_of, name)]
    if print_of.cores < 1 or not print_of.settings:
        found.append("its fingerprint lacks cores or settings")
    if not run.kind or not run.samples:
        found.append("it has no kind or no samples")
    names = [metric.name for metric in run.metrics]
    if len({*names}) != len(names):
        found.append("it describes a metric twice")
    found += [
        f"metric {name} is not described" for name in sorted({each.metric for each in run.samples} - {*names})
    ]
    if not all(math.isfinite(value) for value in (run.started, run.seconds)):
        found.append("its time is not a number")
    keys = set()
    for each in run.samples:
        key = (each.metric, each.path, each.object, each.repetition, each.time)
        if key in keys:
            found.append(f"two values of {each.metric} for one path, object, repetition and time")
        keys.add(key)
        if not (math.isfinite(each.value) and math.isfinite(each.time)) or each.repetition < 0:
            found.append(f"a value of {each.metric} is not a number")
    return found


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
