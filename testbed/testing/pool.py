"""The labs of a test process: each is built when a test first asks for it, and ended with the process.

Tests that only read share a lab; a test that says ``exclusive=True`` has one of its own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec import Struct

from testbed.engines.select import choose
from testbed.errors import BadInput, LabError, MachineLacks, TestbedError
from testbed.lab import build
from testbed.lab.lab import Lab
from testbed.signals import undisturbed
from testbed.testing.lab import LiveLab
from testbed.topology import plan_from_file
from testbed.topology.management import VMM
from testbed.topology.schema import Topology
from testbed.vmm import files

KEPT = 2  # shared labs at once; of more, the one that was asked for first ends, rather one with a change


class Order(NamedTuple):
    """A lab as a test asks for it. running: the name of one that is there; else it is built from ``file``.

    change: makes the topology of what the file says.
    """

    file: Path
    variables: tuple[tuple[str, str], ...] = ()
    engine: str = "auto"
    plant: str = ""
    running: str = ""
    change: Callable[[Topology], Topology] | None = None


class Defaults(Struct, frozen=True):
    """What the command line says: for tests whose marker names no file. run: the run's part of lab names."""

    file: Path | None
    variables: Mapping[str, str]
    engine: str
    plant: str
    running: str
    run: str


class Pool:
    """Labs by their orders."""

    def __init__(self, defaults: Defaults) -> None:
        self._defaults = defaults
        self._labs: dict[Order, LiveLab] = {}
        self._open: list[LiveLab] = []
        self._failed: dict[Order, TestbedError] = {}

    def order(self, marker: pytest.Mark | None, folder: Path, root: Path) -> Order:
        """What a test's marker asks for, or the command line. Raises BadInput."""
        own = self._defaults
        words = dict(marker.kwargs) if marker else {}
        words.pop("exclusive", None)
        change = words.pop("change", None)
        engine = str(words.pop("engine", own.engine))
        variables = {name: str(value) for name, value in words.items()}
        if marker and marker.args:
            file = find(str(marker.args[0]), folder, root)
            return Order(file, tuple(sorted(variables.items())), engine, own.plant, change=change)
        if own.running:
            if change:
                pytest.skip(f"{own.running} would have to be another lab: give `testbed test` a file")
            return Order(Path(), running=own.running)
        if own.file is None:
            raise BadInput("which topology? say @pytest.mark.topology('FILE') above the test")
        settings = tuple(sorted({**own.variables, **variables}.items()))
        return Order(own.file, settings, engine, own.plant, change=change)

    def shared(self, order: Order) -> LiveLab:
        """The lab of an order, built if it is not there. Raises TestbedError, and the same one again."""
        if error := self._failed.get(order):
            raise error
        if order not in self._labs:
            while len(self._labs) >= KEPT:
                first = next((each for each in self._labs if each.change), next(iter(self._labs)))
                self._end(self._labs.pop(first))
            try:
                self._labs[order] = self._made(order, exclusive=False)
            except TestbedError as error:
                self._failed[order] = error
                raise
        return self._labs[order]

    @contextlib.contextmanager
    def exclusive(self, order: Order) -> Iterator[LiveLab]:
        """A lab for one test. Raises TestbedError."""
        if order.running:
            pytest.skip(f"it changes the lab, and {order.running} is yours: give `testbed test` a file")
        lab = self._made(order, exclusive=True)
        try:
            yield lab
        finally:
            self._end(lab)

    def close(self) -> None:
        """End all labs; one that was running before lives on. Raises LabError when one does not end."""
        with undisturbed():
            errors = []
            while self._labs:
                try:
                    self._end(self._labs.popitem()[1])
                except LabError as error:
                    errors.append(error)
            if errors:
                raise errors[0]

    def secrets(self) -> list[str]:
        """What must not be told of the labs: the tokens of their VMMs."""
        found = []
        for lab in self._open:
            vmm = lab.lab.folder(VMM)
            for file in (vmm / files.ADMIN_TOKEN, *(vmm / files.HOST_TOKENS).glob("*")):
                with contextlib.suppress(OSError):
                    found.append(file.read_text().strip())
        return found

    def _made(self, order: Order, *, exclusive: bool) -> LiveLab:
        if order.running:
            lab = Lab.open(order.running)
            self._open.append(LiveLab(lab, exclusive=False))
            return self._open[-1]
        if os.geteuid() != 0:
            raise MachineLacks("network namespaces and NICs can be made by root only: use sudo")
        plan = plan_from_file(order.file, dict(order.variables), change=order.change or (lambda as_is: as_is))
        engine, _ = choose(order.engine, lambda _: None)
        name = f"{self._defaults.run or 'test'}-{secrets.token_hex(4)}"
        lab = build.up(plan, engine, name, str(order.file), lambda _: None, plant=order.plant, lasting=False)
        self._open.append(LiveLab(lab, exclusive=exclusive, variables=dict(order.variables)))
        return self._open[-1]

    def _end(self, live: LiveLab) -> None:
        self._open.remove(live)
        live.lab.close()
        if live.name == self._defaults.running:
            return
        with undisturbed(), contextlib.suppress(BadInput):  # somebody else was first
            build.down(live.name)


def find(name: str, folder: Path, root: Path) -> Path:
    """A topology file: beside the test, below pytest's root folder, or one that ships. Raises BadInput."""
    for place in (folder / name, root / name):
        if place.is_file():
            return place
    shipped = shipped_topology(name)
    if shipped.is_file():
        return shipped
    raise BadInput(f"no topology file {name!r}: not in {folder}, not in {root}, and none that ships")


def shipped_topology(name: str) -> Path:
    """Where the topology that ships under a name is, such as "4host.yaml" or "4host", if there is one."""
    from testbed.conformance.labs import shipped

    return shipped(name.removesuffix(".yaml"))
