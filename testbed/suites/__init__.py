"""The suites that ship: pytest modules that run against any topology and both engines.

A suite asks for the fixture ``lab`` (and others of :mod:`testbed.pytest_plugin`), chooses from it who plays
which part, and skips with the reason where nobody can. It asserts hop by hop, waits with deadlines only, and
leaves the lab as it was, or says ``@pytest.mark.topology(exclusive=True)``.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class Suite(Struct, frozen=True):
    """A module here. needs: what it skips without; shows: what holds when it passes."""

    name: str
    shows: str
    needs: str

    @property
    def file(self) -> Path:
        """The module, for pytest."""
        return Path(__file__).parent / f"{self.name.replace('-', '_')}.py"


SUITES = (
    Suite(
        "connectivity",
        "VMs of a network reach each other, on one host, across hosts and across subnets, IPv4 and IPv6",
        "two VMs of one network",
    ),
    Suite(
        "isolation",
        "nothing of a network reaches a VM of another, and equal addresses lead to their own network's VM",
        "two networks",
    ),
    Suite(
        "mtu",
        "the longest packet fits the PA network; a longer one ends in the switch, and its sender is told",
        "two VMs of one subnet on different hosts",
    ),
    Suite(
        "migration",
        "a VM moves to another host: packets find it there, connections go on, it keeps what it has",
        "a VMM, two VMs of one subnet on different hosts",
    ),
    Suite(
        "cluster-failover",
        "an address goes to a VM on another host, all hosts follow; of two that take it the first keeps it",
        "a VMM, learning, three VMs of one subnet on two hosts",
    ),
)


def named(name: str) -> Suite | None:
    """The suite of a name."""
    return next((suite for suite in SUITES if suite.name == name), None)
