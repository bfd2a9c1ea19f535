"""What the page is given: one index, and one detail file for each class of runs.

Lists that belong together run in parallel (a run is a number: its place in ``Runs``), and numbers are
rounded, since thousands of runs must load in a moment.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from testbed.results.compare import Comparison, Row
from testbed.results.model import Metric, Setting

Point = tuple[int, float, float, float, int]
"""Run, median, low and high bound of its 95 % interval, number of values."""

Status = Literal["reached", "close", "missed"]


class Runs(Struct):
    """By number, oldest first. id: its first 8 characters. commit, batch, of: places in the Index's lists.

    at: Unix seconds.
    """

    id: list[str] = []
    at: list[int] = []
    commit: list[int] = []
    batch: list[int] = []
    of: list[int] = []


class Commit(Struct, frozen=True):
    """name: "" outside of a checkout. at: Unix seconds, 0 where it is not known."""

    name: str
    at: int
    modified: bool


class Batch(Struct):
    """Runs of one bench plan. at: when the first began."""

    id: str
    at: int
    label: str
    kind: str
    commit: int
    runs: int = 0


class Environment(Struct, frozen=True):
    """A machine with what runs on it; runs of two are never compared."""

    name: str
    kernel: str
    cpu: str
    cores: int


class Class(Struct):
    """Runs that are like with like.

    nvgre: whether NICs had NVGRE offloads enabled, None where it is not told. has: what of "history",
    "queues", "members" and "phases" its detail file holds.
    """

    id: str
    kind: str
    environment: int
    topology: str
    settings: dict[str, Setting]
    nvgre: bool | None
    has: list[str] = []
    runs: int = 0
    last: int = 0


class Latest(Struct, frozen=True):
    """The newest value of a metric of a class: of a path, or of its ratio to a baseline."""

    of: int
    metric: str
    path: str
    baseline: str
    point: Point


class Checked(Struct, frozen=True):
    """A goal and the newest ratio that it concerns. recent: medians up to it, oldest first."""

    title: str
    of: int
    metric: str
    baseline: str
    goal: float
    most: bool
    point: Point
    status: Status
    recent: list[float]


class Trend(Struct, frozen=True):
    """The newest commit of a class beside the runs before it. base, new: how many runs on either side."""

    of: int
    commit: int
    base: int
    new: int
    rows: list[Row]


class Index(Struct, kw_only=True):
    """All that the first page shows. baselines: names in the order in which they were met."""

    source: str
    made: int
    version: str
    served: bool
    threshold: float
    runs: Runs
    commits: list[Commit]
    batches: list[Batch]
    environments: list[Environment]
    classes: list[Class]
    metrics: dict[str, Metric]
    baselines: list[str]
    latest: list[Latest]
    goals: list[Checked]
    trends: list[Trend]
    compared: Comparison | None = None
    compared_batches: tuple[str, str] | None = None


class Series(Struct):
    """A metric of a path over all runs; with a baseline: of the ratio to it."""

    metric: str
    path: str
    baseline: str
    points: list[Point] = []


class Share(Struct, frozen=True):
    """What one object (a queue, a phase) got in one turn."""

    object: str
    value: float
    turn: int


class Track(Struct, frozen=True):
    """One object (a team member) over the seconds of one turn."""

    object: str
    turn: int
    times: list[float]
    values: list[float]


class Detail(Struct):
    """A class. queues, members: of its newest run that has them. phases: names, and a row for each run."""

    series: list[Series] = []
    queues_run: int = -1
    queues: list[Share] = []
    members_run: int = -1
    members: list[Track] = []
    phase_names: list[str] = []
    phases: list[tuple[int, list[float]]] = []
