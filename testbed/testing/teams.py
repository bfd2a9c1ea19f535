"""Teams of a running lab: what their members do, and a member that does not work for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

from testbed.lab import link, team
from testbed.lab.lab import Lab
from testbed.nic.faults import WAYS
from testbed.testing.waiting import until

Failure = Literal["carrier", "administrative", "black-hole", "to-host", "from-host"]
FAILURES: tuple[Failure, ...] = ("carrier", "administrative", "black-hole")


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


def sent_by(lab: Lab, host: str = "host1") -> dict[str, int]:
    """Bytes that each member has sent."""
    return {name: each["tx_bytes"] for name, each in members(lab, host).items()}


@contextlib.contextmanager
def failing(lab: Lab, how: Failure, member: str, host: str = "host1") -> Iterator[None]:
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
