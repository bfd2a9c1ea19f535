"""What a lab may not have done by the time a test is over: crash, or lose packets without a reason."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from support.cli import Cli, drops

# Packets that end in the filter by design: ARP and ND answered there, multicast that only the sender's own
# VSID could want, questions for addresses that nobody has.
ALWAYS = frozenset(
    {"neighbor-consumed", "no-lookup-record", "no-customer-route", "gateway-address", "not-for-us"}
    | {"other-member", "own-packet"}  # of a team each member hears what is said to all
)
# While a lab boots, VMs speak before their PA is preferred, and are spoken to before they are there.
BOOT = ALWAYS | {"no-provider-address", "pa-not-local", "no-port", "port-refused"}

Counted = dict[tuple[str, str, str], int]


class Lab:
    """A lab under test; ``boot`` remembers what was dropped while it came up."""

    def __init__(self, cli: Cli, name: str) -> None:
        self.cli = cli
        self.name = name
        self.booted: Counted = {}

    def boot(self, allowed: Iterable[str] = ()) -> list[str]:
        """Drops during boot whose reason is not one of a boot's nor ``allowed``."""
        self.booted = drops(self.cli, self.name)
        return unexpected_drops({}, self.booted, BOOT | {*allowed})

    def faults(self, allowed: Iterable[str] = ()) -> list[str]:
        """Tracebacks in logs, and drops since boot whose reason is not expected nor ``allowed``."""
        found = tracebacks(self.cli, self.name)
        return found + unexpected_drops(self.booted, drops(self.cli, self.name), ALWAYS | {*allowed})


def unexpected_drops(before: Counted, now: Counted, allowed: Iterable[str]) -> list[str]:
    """What was dropped between ``before`` and ``now`` for other reasons than the allowed ones."""
    return [
        f"{host} {where}: {count - before.get((host, where, reason), 0)} packets dropped: {reason}"
        for (host, where, reason), count in now.items()
        if reason not in allowed and count > before.get((host, where, reason), 0)
    ]


def tracebacks(cli: Cli, name: str) -> list[str]:
    """Logs of a lab, as the product tells them, that show a crash."""
    said = cli.run("logs", name)
    if said.returncode != 0:
        return [f"the logs of {name} cannot be read: {said.stderr.decode()}"]
    text = said.stdout.decode(errors="replace")
    return [f"a node of {name} logged a traceback:\n{text}"] if "Traceback" in text else []


def state_left(state: Path) -> list[str]:
    """What a state folder still holds beside its lock."""
    labs = state / "labs"
    left = [f"lab folder {path.name} is left" for path in labs.iterdir()] if labs.exists() else []
    if state.exists():
        left += [f"{path} is left" for path in state.iterdir() if path.name not in ("lock", "labs")]
    return left


def tear_down(cli: Cli) -> list[str]:
    """End whatever a test left in its state folder; what was left."""
    left = state_left(cli.state)
    if left:
        cli.run("down", "--all")
        cli.run("gc")
        shutil.rmtree(cli.state, ignore_errors=True)
    return left
