"""Captures at a running lab: its points, opened with the filter that each of them needs."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from testbed.capture import bpf, points
from testbed.capture.bpf import Program
from testbed.capture.events import EventReader, Happened
from testbed.capture.filters import REFUSE, Criteria, at_adapter, at_wire
from testbed.capture.inside import SwitchSource
from testbed.capture.points import Point
from testbed.capture.session import Interrupt, Limits, Output, Session
from testbed.capture.source import Reader, Source
from testbed.errors import BadInput, LabError
from testbed.lab.lab import Lab

_EVENTS_PERIOD = 0.1  # seconds between looks for events: packets wait for those that came before them


def choose(lab: Lab, patterns: Sequence[str]) -> list[Point]:
    """The points that the patterns name. Raises BadInput."""
    return points.choose(lab.record.name, points.known(lab.plan), patterns)


@contextlib.contextmanager
def opened(
    lab: Lab, chosen: Sequence[Point], wanted: Criteria, snaplen: int, *, events: bool = False
) -> Iterator[list[Reader]]:
    """A source at each point; from here on nothing that is wanted is missed. Raises BadInput, LabError.

    events: one more source behind them, of what happens in the lab (:data:`testbed.capture.events.EVENTS`).
    """
    keep = snaplen or bpf.WHOLE
    vsids = _vsids(lab) if wanted.vsid is not None and any(point.port for point in chosen) else {}
    programs = [_program(point, wanted, vsids, keep) for point in chosen]
    if all(program == REFUSE for program in programs):
        raise BadInput(
            "nothing can match: at a VM's adapter there are no provider addresses, and its virtual subnet is "
            "the adapter's own; choose points at NICs or cables, or another filter"
        )
    with contextlib.ExitStack() as stack:
        made: list[Reader] = []
        for number, (point, program) in enumerate(zip(chosen, programs, strict=True)):
            if point.is_inside:
                reader: Reader = _inside(lab, number, point, program, wanted.vsid, snaplen)
            else:
                reader = Source(number, point.name, lab.netns(point.node), point.interface, program)
            stack.callback(reader.close)
            made.append(reader)
        for point in chosen:
            lab.release_netns(point.node)
        if events:
            made.append(_events(lab, len(made)))
            stack.callback(made[-1].close)
        yield made


class _Look:
    """The events of a lab from now on, as a capture has them."""

    def __init__(self, lab: Lab) -> None:
        from testbed.lab.events import LabTimeline, Wanted

        self._line = LabTimeline(lab, Wanted(since=time.time()))

    def __call__(self) -> tuple[list[Happened], int]:
        """What is new, oldest first, and until when that is all there was."""
        from testbed.lab.event_text import short

        found = self._line.round()
        return (
            [Happened(round(event.time * 1e9), event.id, short(event)) for event in found],
            round(self._line.until * 1e9),
        )

    def close(self) -> None:
        """There will be no more looks."""
        self._line.close()


def _events(lab: Lab, number: int) -> EventReader:
    return EventReader(number, _Look(lab), _EVENTS_PERIOD)


def _program(point: Point, wanted: Criteria, vsids: Mapping[str, int], keep: int) -> Program:
    if point.is_inside:  # the switch knows the VSID of each packet, and cuts it
        return at_wire(replace(wanted, vsid=None))
    if point.port:
        return at_adapter(wanted, vsids.get(point.port, 0), keep)
    return at_wire(wanted, keep)


def _inside(
    lab: Lab, number: int, point: Point, program: Program, vsid: int | None, snaplen: int
) -> SwitchSource:
    name = secrets.token_hex(8)

    def ask() -> Mapping[str, int]:
        try:
            return lab.ask(point.node, "capture-counts", id=name)
        except (LabError, OSError):
            return {}  # the host has ended

    source = SwitchSource(number, point.name, program, ask)
    try:
        fields = {"id": name, "point": point.interface, "vsid": vsid, "snaplen": snaplen}
        lab.host(point.node).call("capture", [source.theirs], **fields)
        source.passed()
    except BaseException:
        source.close()
        raise
    return source


def run(
    lab: Lab,
    chosen: Sequence[Point],
    sources: Sequence[Reader],
    output: Output,
    limits: Limits,
    interrupt: Interrupt,
) -> Session:
    """Capture until it ends. A node that ends meanwhile, or is removed, takes its points with it."""
    of_node: dict[int, list[Reader]] = {}
    for point, source in zip(chosen, sources, strict=False):  # events are no point's
        of_node.setdefault(lab.node(point.node).pidfd, []).append(source)
    session = Session(sources, of_node, output)
    session.run(limits, interrupt)
    return session


def told(session: Session, sources: Sequence[Reader], write: Callable[[str], object]) -> None:
    """How it went: packets, and what was lost where."""
    events = f", {session.events} events" if any(source.is_beside for source in sources) else ""
    write(f"{session.packets} packets{events}")
    for source in sources:
        if source.lost:
            write(f"{source.name}: {source.lost} lost, they came faster than they were read")
        if source.unreadable:
            write(f"{source.name}: {source.unreadable} lost, super-packets of a kind that cannot be told")
        if source.ended:
            write(f"{source.name}: ended early, {source.ended}")
    if session.merge.disordered:
        write(f"{session.merge.disordered} packets stand later than their time")


def _vsids(lab: Lab) -> dict[str, int]:
    """The virtual subnet of each switch port, as the hosts have it now."""
    return {
        port["name"]: port["vsid"]
        for host in lab.plan.hosts
        for port in lab.ask(host.name, "status")["ports"]
    }
