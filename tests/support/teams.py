"""Teams in running labs: rates of flows, outages, who carries what."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from support import streams
from support.waiting import until
from testbed.lab import link, team
from testbed.lab.lab import Lab
from testbed.nic.faults import WAYS
from testbed.perf.outage import Outage, probing

BLUE1, BLUE2 = "10.0.0.5", "10.0.0.6"
SETTLE = 0.2  # seconds of probes before anything happens


def members(lab: Lab, host: str = "host1") -> dict[str, dict[str, Any]]:
    """The members of a host's team by name."""
    return {each["name"]: each for each in team.show(lab, host)["members"]}


def wait_for(lab: Lab, state: str, *names: str, host: str = "host1", seconds: float = 15.0) -> None:
    """Return once members are in a state."""
    wanted = set(names or members(lab, host))
    until(
        lambda: all(members(lab, host)[name]["state"] == state for name in wanted),
        f"{', '.join(sorted(wanted))} of {host}: not {state}",
        seconds,
    )


def rate(lab: Lab, sources: list[int], port: int, seconds: float) -> float:
    """Bit/s of TCP streams from blue1 to blue2, one from each source port."""
    ends = lab.netns("blue1"), lab.netns("blue2")
    return streams.run(*ends, BLUE2, sources, port=port, seconds=seconds) * 8 / seconds


def sent_by(lab: Lab, host: str = "host1") -> dict[str, int]:
    """Bytes that each member has sent."""
    return {name: each["tx_bytes"] for name, each in members(lab, host).items()}


@contextlib.contextmanager
def failing(lab: Lab, how: str, member: str, host: str = "host1") -> Iterator[None]:
    """A member does not work meanwhile: ``carrier``, ``administrative``, ``black-hole``, or one way of it."""
    cable = f"{host}:{member}"

    def put(*, failed: bool) -> None:
        if how == "carrier":
            link.set_up(lab, cable, up=not failed)
        elif how == "administrative":
            team.set_member(lab, host, member, failed=failed)
        else:
            ways = WAYS if how == "black-hole" else [way for way in WAYS if way == how]
            link.change(lab, cable, ways, {"black-hole": "on" if failed else "off"})

    put(failed=True)
    try:
        yield
    finally:
        put(failed=False)  # a rate that the cable has stays


def outage(lab: Lab, how: str, member: str, seconds: float = 1.2) -> Outage:
    """The longest time without an answer from blue2 to blue1's probes when a member of host1's fails."""
    with probing(lab.netns("blue1"), [lab.netns("blue2")], BLUE2) as meter:
        time.sleep(SETTLE)  # probes run
        with failing(lab, how, member):
            time.sleep(seconds)
            found = meter.stop()
    return found
