"""What a bench plan expects: ratios between two of its cells, judged by the medians of their turns."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from testbed.errors import BadInput
from testbed.perf.bench import Turn
from testbed.perf.iperf import Direction, Protocol
from testbed.results import metrics
from testbed.results.model import OURS, Metric
from testbed.topology.schema import Wire

if TYPE_CHECKING:
    from testbed.perf.plan import Cell

_OF_PARTS = (metrics.QUEUE_PACKETS, metrics.MEMBER_THROUGHPUT, metrics.START_TOTAL, metrics.START_PHASE)
_METRICS = {name: metric for name, metric in metrics.METRICS.items() if metric not in _OF_PARTS}
_OF_UDP, _OF_TCP = (metrics.LOSS, metrics.JITTER), (metrics.RETRANSMITS,)
_Bound = Annotated[float, Meta(ge=0)]


class Choice(Struct, frozen=True, forbid_unknown_fields=True):
    """Values of some axes of a cell; null: as the lab has it."""

    nic: str | UnsetType | None = UNSET
    wire: Wire | UnsetType | None = UNSET
    guest_lso: bool | UnsetType | None = UNSET
    team: str | UnsetType | None = UNSET
    streams: int | UnsetType = UNSET
    direction: Direction | UnsetType = UNSET
    protocol: Protocol | UnsetType = UNSET
    ip: int | UnsetType | None = UNSET
    message_size: int | UnsetType | None = UNSET
    rate: int | UnsetType = UNSET

    def chosen(self) -> dict[str, Any]:
        """By axis."""
        values = {axis: getattr(self, axis) for axis in self.__struct_fields__}
        return {axis: value for axis, value in values.items() if value is not UNSET}


class Expectation(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ratio of a metric of cells with the values ``of`` to that of those with ``against`` instead."""

    of: Choice
    against: Choice
    metric: str = metrics.THROUGHPUT.name
    at_least: _Bound | None = None
    at_most: _Bound | None = None

    def pairs(self, cells: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
        """What is compared: cells that have what ``of`` says, and those that differ by ``against`` alone."""
        have = self.of.chosen().items()
        other = self.against.chosen()
        found = [
            (cell, msgspec.structs.replace(cell, **other))
            for cell in cells
            if all(getattr(cell, axis) == value for axis, value in have)
        ]
        known = {*cells}
        return [pair for pair in found if pair[1] in known and pair[0] != pair[1]]

    def check(self, place: str, cells: Sequence[Cell], *, latency: bool) -> None:
        """Raise BadInput for what names no metric, no bound, or no two cells. place: where it stands."""
        if self.metric not in _METRICS:
            raise BadInput(f"{place}.metric: {self.metric!r} is none of {', '.join(_METRICS)}")
        bounds = [bound for bound in (self.at_least, self.at_most) if bound is not None]
        if not bounds or bounds != sorted(bounds):
            raise BadInput(f"{place}: give it a number at_least, or at_most, or both in this order")
        if not self.against.chosen():
            raise BadInput(f"{place}.against: says nothing; name an axis and its value in the other cell")
        for key, choice in (("of", self.of), ("against", self.against)):
            for axis, value in choice.chosen().items():
                known = dict.fromkeys(getattr(cell, axis) for cell in cells)
                if value not in known:
                    raise BadInput(
                        f"{place}.{key}: {axis} is {_told(value)} in no cell of the plan, "
                        f"but {', '.join(map(_told, known))}"
                    )
        pairs = self.pairs(cells)
        if not pairs:
            remedy = "no cell with these values has another that differs by `against` alone: see --list"
            raise BadInput(f"{place}: names no two cells of the plan; {remedy}")
        for cell in (cell for pair in pairs for cell in pair):
            if why := _not_measured(_METRICS[self.metric], cell, latency=latency):
                raise BadInput(f"{place}.metric: {self.metric} is not measured {why}: {cell.name()}")


class Outcome(Struct, frozen=True, kw_only=True):
    """An expectation about two cells, judged. why: there is no ratio."""

    metric: str
    cell: str
    against: str
    ratio: float | None
    at_least: float | None
    at_most: float | None
    met: bool
    why: str = ""

    def wanted(self) -> str:
        """The bounds in words."""
        bounds = {"at least": self.at_least, "at most": self.at_most}
        return ", ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)


def judge(
    expect: Iterable[Expectation], cells: Sequence[Cell], measured: Mapping[Cell, Sequence[Turn]]
) -> list[Outcome]:
    """All expectations; one about a cell that was not measured is not met."""
    return [
        _judged(each, *pair, [_median(measured, cell, each.metric) for cell in pair])
        for each in expect
        for pair in each.pairs(cells)
    ]


def _judged(expectation: Expectation, cell: Cell, against: Cell, medians: Sequence[float | None]) -> Outcome:
    ours, theirs = medians
    ratio, why = None, ""
    missing = [each.name() for each, value in zip((cell, against), medians, strict=True) if value is None]
    if ours is None or theirs is None:
        why = f"not measured: {', '.join(missing)}"
    elif theirs == 0:
        why = f"{expectation.metric} is 0: {against.name()}"
    else:
        ratio = ours / theirs
    low, high = expectation.at_least, expectation.at_most
    return Outcome(
        metric=expectation.metric,
        cell=cell.name(),
        against=against.name(),
        ratio=None if ratio is None else round(ratio, 3),
        at_least=low,
        at_most=high,
        met=ratio is not None and (low is None or ratio >= low) and (high is None or ratio <= high),
        why=why,
    )


def _median(measured: Mapping[Cell, Sequence[Turn]], cell: Cell, metric: str) -> float | None:
    """Over the turns that have it; None where none has."""
    turns = measured.get(cell, ())
    found = [each.values().get(metric) for turn in turns for each in turn if each.path == OURS]
    values = [value for value in found if value is not None]
    return statistics.median(values) if values else None


def _not_measured(metric: Metric, cell: Cell, *, latency: bool) -> str:
    """Why a cell will not have a metric; "" if it will."""
    if metric in _OF_UDP and cell.protocol != "udp":
        return "with TCP"
    if metric in _OF_TCP and cell.protocol != "tcp":
        return "with UDP"
    of_round_trips = metric.name.startswith("rtt_") or metric == metrics.PROBE_LOSS
    return "without latency" if of_round_trips and not latency else ""


def _told(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
