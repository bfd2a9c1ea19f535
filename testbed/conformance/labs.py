"""The labs of a conformance run: each is built when a check first needs it, all end with the run."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec

import testbed
from testbed.conformance.scene import Scene
from testbed.conformance.statements import DEFAULT, TEAMED, TOPOLOGY
from testbed.engines.base import Engine
from testbed.errors import TestbedError
from testbed.lab import build, store, team
from testbed.lab.lab import Lab
from testbed.signals import undisturbed
from testbed.topology import plan_from_file
from testbed.topology.plan import HostPlan, Plan

OWN = Path(__file__).parent / "topologies"

Progress = Callable[[str], None]


def shipped(name: str) -> Path:
    """The file of a shipped topology, in the wheel or the checkout."""
    package = Path(testbed.__file__).parent
    data = package / "_data"
    return (data if data.is_dir() else package.parent) / "topologies" / f"{name}.yaml"


class Labs:
    """Scenes by the names that statements use. Use it in a ``with`` block."""

    def __init__(self, topology: Path | None, engine: Engine, progress: Progress) -> None:
        """``topology``: the user's file; without it, its place is the shipped one's."""
        self._topology = topology
        self._engine = engine
        self._progress = progress
        self._scenes: dict[str, Scene] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Labs:
        self._folder = self._stack.enter_context(store.scratch("conformance"))
        return self

    def __exit__(self, *_: object) -> None:
        with undisturbed():
            self._stack.close()

    def scene(self, name: str) -> Scene:
        """The lab of this name, built if it is not there yet. Raises BadInput, LabError, MachineLacks."""
        if name == TOPOLOGY and self._topology is None:
            name = DEFAULT
        if name not in self._scenes:
            self._scenes[name] = self._build(name)
        return self._scenes[name]

    def _build(self, name: str) -> Scene:
        if name == TOPOLOGY and self._topology:
            file = self._topology
        elif name == DEFAULT:
            file = shipped(name)
        else:
            file = OWN / f"{name}.yaml"
        plan = plan_from_file(file, {})
        if name != TEAMED:
            plan = _primaries_first(plan)
        unique = f"conformance-{secrets.token_hex(4)}"
        lab = build.up(
            plan,
            self._engine,
            unique,
            str(file),
            lambda step: self._progress(f"{plan.name}: {step}"),
            lasting=False,
        )
        self._stack.callback(_end, unique)
        self._stack.callback(lab.close)
        if name != TEAMED:
            _primaries_alone(lab)
        folder = self._folder / unique
        folder.mkdir()
        return Scene(lab, folder)


def _primaries_first(plan: Plan) -> Plan:
    """Teams whose addresses are all at home at the primary."""

    def at_primary(host: HostPlan) -> HostPlan:
        team = msgspec.structs.replace(host.team, algorithm="TransportPorts")
        return msgspec.structs.replace(host, team=team)

    return msgspec.structs.replace(plan, hosts=tuple(at_primary(host) for host in plan.hosts))


def _primaries_alone(lab: Lab) -> None:
    """Give up all other members of the teams: checks look at one cable for each host."""
    for host in lab.plan.hosts:
        for nic in host.nics:
            if nic.name != host.team.primary:
                team.set_member(lab, host.name, nic.name, failed=True)


def _end(name: str) -> None:
    """End a lab that may have been ended by somebody else meanwhile."""
    with contextlib.suppress(TestbedError):
        build.down(name)
