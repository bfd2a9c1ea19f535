"""How many cells run at once: a job each, and the memory that their labs are expected to take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from testbed.errors import MachineLacks
from testbed.matrix.cells import Cell

# MiB (PSS) as measured on 2host and 4host, rounded up
_RUN = 110  # `testbed test` and pytest
_VMM = 55
_HOST = {"namespaces": 14, "docker": 26}
_VM = {"namespaces": 2, "docker": 6}
_LABS = 2  # at once: the one that tests share, and one of a test that changes its own
_SHARE = 0.8  # of the memory that is free when the run begins


class Budget(Struct, frozen=True):
    """jobs: cells at once. mib: for all of them together."""

    jobs: int
    mib: int

    def check(self, cells: list[Cell]) -> None:
        """Raise MachineLacks for a cell that can't be run within it."""
        for cell in cells:
            if (needed := memory(cell)) > self.mib:
                raise MachineLacks(
                    f"{cell.name} is expected to take {needed} MiB, and the budget is {self.mib}: "
                    f"free memory, raise --memory, or make its topology smaller"
                )

    def next(self, waiting: list[Cell], running: list[Cell]) -> Cell | None:
        """The one to start now: the largest that fits."""
        if len(running) >= self.jobs:
            return None
        left = self.mib - sum(map(memory, running))
        fitting = [cell for cell in waiting if memory(cell) <= left]
        return max(fitting, key=weight(), default=None)


def weight() -> Callable[[Cell], tuple[int, int]]:
    """A key by which cells that take long come first, so that none of them is the last one alone."""
    return lambda cell: (len(cell.plan.hosts) * (len(cell.suites) or 99), memory(cell))


def memory(cell: Cell) -> int:
    """MiB that a cell is expected to take."""
    engine = cell.engine if cell.engine in _HOST else "docker"
    lab = len(cell.plan.hosts) * _HOST[engine] + len(cell.plan.vms) * _VM[engine]
    return _RUN + _LABS * (lab + (_VMM if cell.plan.vmm else 0))


def available() -> int:
    """MiB that a run may take on this machine now."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(int(line.split()[1]) / 1024 * _SHARE)
    return 1024
