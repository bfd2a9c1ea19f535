"""Pairs of VMs that suites ask for, with the reason where a lab has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.testing.lab import LiveLab, Pair
    from testbed.testing.vm import Vm


def same_subnet(one: Vm, other: Vm) -> bool:
    """Whether two are in one virtual subnet."""
    return bool(one.vsid) and one.vsid == other.vsid


def are_apart(one: Vm, other: Vm) -> bool:
    """Whether two are in one virtual subnet, on different hosts."""
    return same_subnet(one, other) and one.host != other.host


def kernels_know_a_way(one: Vm, other: Vm, version: int) -> bool:
    """Whether both kernels have a route; where they have none, it is the VM's own doing."""
    return one.has_route(other.address(version)) and other.has_route(one.address(version))


def apart(lab: LiveLab, version: int = 4) -> list[Pair]:
    """VMs of one virtual subnet on different hosts. Skips the test where there are none."""
    return lab.pairs(are_apart, "two VMs of one virtual subnet on different hosts", version=version)


def talking(lab: LiveLab, version: int = 4) -> list[Pair]:
    """Those of :func:`apart` whose kernels have routes. Skips the test where there are none."""
    return lab.pairs(
        lambda one, other: are_apart(one, other) and kernels_know_a_way(one, other, version),
        "two VMs of one virtual subnet on different hosts whose kernels have routes,",
        version=version,
    )
