"""One packet from one VM to another, seen at each hop: what left, what was on which cable, what arrived."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from testbed.testing.vm import token

if TYPE_CHECKING:
    from testbed.testing.lab import LiveLab
    from testbed.testing.vm import Vm
    from testbed.testing.watch import Frame, Wanted, Watch

SECONDS = 10.0
TRY_SECONDS = 0.5


class Journey(NamedTuple):
    """Frames with the packet's token, by hop. arrived: at the VM, whatever came before at the others."""

    one: Vm
    other: Vm
    left: list[Frame]
    from_host: list[Frame]  # on the cables of the sender's host, from it
    to_host: list[Frame]  # on the cables of the receiver's host, to it
    arrived: list[Frame]

    def __str__(self) -> str:
        return (
            f"{self.one} on {self.one.host} -> {self.other} on {self.other.host}: "
            f"{len(self.left)} left the VM, "
            f"{len(self.from_host)} on the cables of {self.one.host}, "
            f"{len(self.to_host)} on those to {self.other.host}, {len(self.arrived)} arrived"
        )


def points(lab: LiveLab, one: Vm, other: Vm) -> list[str]:
    """The points on the way of a packet."""
    hosts = dict.fromkeys((one.host, other.host))
    return [one.point, other.point, *(lab.host(name).cables for name in hosts)]


def take(
    lab: LiveLab, one: Vm, other: Vm, make: Callable[[bytes], bytes], seconds: float = SECONDS
) -> Journey:
    """Send what ``make`` makes of a token until one arrives; the way of that one.

    Each try has a token of its own. Raises AssertionError, which tells how far the last one came.
    """
    deadline = time.monotonic() + seconds
    with lab.capture(*points(lab, one, other)) as seen:
        while True:
            mark = token()
            one.send(make(mark))
            try:
                seen.wait(other.point, mark, outgoing=False, seconds=TRY_SECONDS)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise AssertionError(f"not delivered: {of(lab, seen, one, other, mark)}") from None
            else:
                return of(lab, seen, one, other, mark)


def follow(lab: LiveLab, one: Vm, other: Vm, version: int = 4) -> Journey:
    """The way of a packet that no kernel answers, checked at each hop."""
    trip = take(lab, one, other, lambda mark: one.frame(other, mark, version))
    check(lab, trip)
    return trip


def of(lab: LiveLab, seen: Watch, one: Vm, other: Vm, mark: Wanted) -> Journey:
    """The way of the packets with this token, or that fulfil it, in a capture at :func:`points`."""
    return Journey(
        one,
        other,
        left=seen.frames(one.point, mark, outgoing=True),
        from_host=seen.frames(lab.host(one.host).cables, mark, outgoing=False),
        to_host=seen.frames(lab.host(other.host).cables, mark, outgoing=True),
        arrived=seen.frames(other.point, mark, outgoing=False),
    )


def check(lab: LiveLab, trip: Journey) -> None:
    """Assert that each hop saw what it should: on one host no cable, else NVGRE of the receiver's VSID.

    Where a cable loses or doubles frames, only the kinds of frames are checked, not their number.
    """
    one, other = trip.one, trip.other
    exact = not any(lab.host(name).is_faulty for name in (one.host, other.host))
    assert len(trip.left) == 1, trip
    assert trip.arrived, trip
    assert len(trip.arrived) == 1 or not exact, trip
    if one.host == other.host:
        assert not trip.from_host, f"on a cable, for a VM of the same host: {trip}"
        assert not trip.to_host, f"on a cable, for a VM of the same host: {trip}"
        return
    assert trip.from_host, trip
    assert len(trip.from_host) == 1 or not exact, trip
    assert trip.to_host, trip
    for frame in (*trip.from_host, *trip.to_host):
        _check_cable(lab, trip, frame)
    assert trip.arrived[0].inner == trip.to_host[0].inner, (
        f"what arrived is not what was on the cable: {trip}"
    )


def _check_cable(lab: LiveLab, trip: Journey, frame: Frame) -> None:
    found = frame.nvgre
    if not trip.one.vsid:
        assert found is None, f"NVGRE around a frame of VSID 0 at {frame.point}"
        return
    assert found, f"no NVGRE at {frame.point}: {frame.data[:60].hex()}"
    assert found.vsid == trip.other.vsid, (
        f"VSID {found.vsid} at {frame.point}, {trip.other}'s is {trip.other.vsid}"
    )
    sources = lab.host(trip.one.host).provider_addresses(trip.one.vsid)
    targets = lab.host(trip.other.host).provider_addresses(trip.other.vsid)
    assert found.source in sources, f"from PA {found.source} at {frame.point}, {trip.one.host} has {sources}"
    assert found.destination in targets, f"to PA {found.destination} at {frame.point}, not one of {targets}"


def fence(seen: Watch, one: Vm, other: Vm, version: int = 4) -> None:
    """A later packet of ``one`` reaches ``other``: what came before on the same way has come, or will not."""
    mark = token()
    frame = one.frame(other, mark, version)
    what = f"a later packet of {one} to {other}"
    seen.wait(other.point, mark, lambda: one.send(frame), outgoing=False, what=what)
