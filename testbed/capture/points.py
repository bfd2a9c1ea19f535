"""Where packets can be seen: named points of a lab, chosen by name or glob."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from testbed.errors import BadInput
from testbed.switch.tap import POINTS
from testbed.topology.plan import Plan

FABRIC = "fabric"  # the node in whose namespace the switches are


class Point(NamedTuple):
    """An interface of a node, or a point inside of a host's switch.

    port: the switch port of a VM's adapter, which has a VSID; else "". is_inside: the interface is one of
    :data:`testbed.switch.tap.POINTS`.
    """

    name: str
    node: str
    interface: str
    description: str
    port: str = ""
    is_inside: bool = False


def known(plan: Plan) -> list[Point]:
    """All points of a lab. A cable is also its switch's port, and has both names."""
    return [*_adapters(plan), *_insides(plan), *_nics(plan), *_cables(plan), *_ports(plan)]


def choose(lab: str, points: Sequence[Point], patterns: Iterable[str]) -> list[Point]:
    """Those whose names match a pattern, each interface once, under the first name it was asked for.

    ``vm:NAME`` is all adapters of the VM, ``switch:NAME`` all ports of the switch. Raises BadInput.
    """
    chosen: dict[tuple[str, str, bool], Point] = {}
    for pattern in patterns:
        found = [point for point in points if _matches(point.name, pattern)]
        if not found:
            names = ", ".join(point.name for point in points)
            raise BadInput(f"{lab} has no point {pattern!r}: one of {names}, or a glob such as 'cable:*'")
        for point in found:
            chosen.setdefault((point.node, point.interface, point.is_inside), point)
    return list(chosen.values())


def _matches(name: str, pattern: str) -> bool:
    if fnmatchcase(name, pattern):
        return True
    kind, _, rest = pattern.partition(":")
    separator = {"vm": ":", "switch": "/"}.get(kind)
    return bool(separator and rest and fnmatchcase(name, f"{pattern}{separator}*"))


def _adapters(plan: Plan) -> Iterator[Point]:
    for vm in plan.vms:
        for vnic in vm.vnics:
            several = len(vm.vnics) > 1
            name = f"vm:{vm.name}:{vnic.interface}" if several else f"vm:{vm.name}"
            description = f"adapter {vnic.interface} of VM {vm.name}"
            yield Point(name, vm.name, vnic.interface, description, vnic.port)


def _insides(plan: Plan) -> Iterator[Point]:
    for host in plan.hosts:
        for point in POINTS:
            description = f"{point} of the switch of {host.name}"
            yield Point(f"{host.name}:{point}", host.name, point, description, is_inside=True)


def _nics(plan: Plan) -> Iterator[Point]:
    for host in plan.hosts:
        for nic in host.nics:
            yield Point(f"{host.name}:{nic.name}", host.name, nic.name, f"NIC {nic.name} of {host.name}")


def _cables(plan: Plan) -> Iterator[Point]:
    for cable in plan.fabric.cables:
        description = f"port {cable.port} of {cable.switch}, cable of {cable.host}:{cable.nic}"
        yield Point(f"cable:{cable.host}/{cable.nic}", FABRIC, cable.interface, description)


def _ports(plan: Plan) -> Iterator[Point]:
    for switch in plan.fabric.switches:
        for cable in plan.fabric.cables:
            if cable.switch == switch.name:
                description = f"port {cable.port} of {cable.switch}, cable of {cable.host}:{cable.nic}"
                yield Point(f"switch:{switch.name}/{cable.port}", FABRIC, cable.interface, description)
        for trunk in plan.fabric.trunks:
            for end, other in (trunk.ends, trunk.ends[::-1]):
                if end.switch == switch.name:
                    description = f"port {end.port} of {end.switch}, trunk to {other.switch}"
                    yield Point(f"switch:{switch.name}/{end.port}", FABRIC, end.interface, description)
