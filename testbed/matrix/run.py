"""Cells of a matrix, each `testbed test` in a process of its own with a state folder of its own.

A cell that is not done at its deadline is ended. However the run ends, no lab and no process of it is left,
and what has been found is kept.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from testbed.lab import garbage
from testbed.lab.garbage import CLEAR_SECONDS
from testbed.matrix.budget import Budget
from testbed.matrix.cells import Cell
from testbed.namespaces import kill_with_parent
from testbed.signals import deferred, undisturbed
from testbed.testing.run import END_SECONDS

Outcome = Literal["passed", "failed", "skipped", "error", "timeout"]
_TOLD = 4000  # bytes of what a cell said, if it could not do its work


class CellResult(Struct):
    """What came of a cell. exit: its code. text: why it could not be run. told: as `testbed test -f json`."""

    cell: Cell
    outcome: Outcome
    seconds: float
    exit: int
    text: str = ""
    told: dict[str, Any] = {}

    def count(self, outcome: str) -> int:
        """How many of its tests ended so."""
        return sum(each["outcome"] == outcome for each in self.told.get("tests", []))


class _Running(Struct):
    cell: Cell
    process: subprocess.Popen[bytes]
    pidfd: int
    state: Path
    began: float
    is_late: bool = False
    is_killed: bool = False

    @property
    def deadline(self) -> float:
        """When it gets the next signal."""
        grace = (END_SECONDS + CLEAR_SECONDS) * (self.is_late + self.is_killed)
        return self.began + self.cell.seconds + grace


def run(
    cells: Sequence[Cell], budget: Budget, base: Path, folder: Path, tell: Callable[[CellResult], None]
) -> list[CellResult]:
    """The results, as cells end; ``tell`` is called for each.

    ``base`` gets a state folder of each cell for as long as it runs, ``folder`` a folder with its results.
    """
    waiting, running, results = list(cells), list[_Running](), list[CellResult]()
    try:
        while waiting or running:
            while cell := budget.next(waiting, [each.cell for each in running]):
                waiting.remove(cell)
                with deferred():
                    running.append(_start(cell, base / str(len(results) + len(running)), folder))
            for each in _ended(running):
                running.remove(each)
                results.append(_finish(each, folder))
                tell(results[-1])
    finally:
        with undisturbed():
            _end_all(running)
    return results


def _start(cell: Cell, state: Path, folder: Path) -> _Running:
    place = folder / cell.name
    place.mkdir(parents=True, exist_ok=True)
    words = ["test", str(cell.file), "-n", "1", "-f", "json", "--engine", cell.engine]
    words += ["--evidence", str(place.absolute()), "--junit", str((place / "junit.xml").absolute())]
    for suite in cell.suites:
        words += ["--suite", suite]
    for name, value in cell.settings:
        words += ["--set", f"{name}={value}"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("TESTBED_")}
    with (place / "results.json").open("wb") as out, (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "testbed", *words],
            env={**env, "TESTBED_STATE_DIR": str(state)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches us alone; we end cells, and it once
            preexec_fn=kill_with_parent,  # noqa: PLW1509 - there is one thread
        )
    return _Running(cell, process, os.pidfd_open(process.pid), state, time.monotonic())


def _ended(running: list[_Running]) -> list[_Running]:
    """Wait until cells end, or deadlines pass; those that have ended."""
    poll = select.poll()
    for each in running:
        poll.register(each.pidfd, select.POLLIN)
    patience = min(each.deadline for each in running) - time.monotonic()
    ready = {descriptor for descriptor, _ in poll.poll(max(0.0, patience) * 1000)}
    for each in running:
        if each.pidfd not in ready and time.monotonic() >= each.deadline:
            _press(each)
    return [each for each in running if each.pidfd in ready]


def _press(each: _Running) -> None:
    """First a signal at which it takes its labs down; if that does not help, the end.

    SIGTERM, since who is started in the background by a shell ignores SIGINT.
    """
    if not each.is_late:
        each.is_late = True
        each.process.send_signal(signal.SIGTERM)
    else:
        each.is_killed = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(each.process.pid, signal.SIGKILL)


def _reap(each: _Running) -> int:
    code = each.process.wait()
    os.close(each.pidfd)
    garbage.clear(each.state)  # it may have been killed
    shutil.rmtree(each.state, ignore_errors=True)
    return code


def _end_all(running: list[_Running]) -> None:
    for each in running:
        each.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + END_SECONDS + CLEAR_SECONDS
    for each in running:
        try:
            each.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.process.pid, signal.SIGKILL)
        _reap(each)


def _finish(each: _Running, folder: Path) -> CellResult:
    with deferred():
        code = _reap(each)
    seconds = round(time.monotonic() - each.began, 2)
    place = folder / each.cell.name
    if each.is_late:
        text = f"it was not done after {each.cell.seconds} s, its deadline; its lab was taken down"
        return CellResult(each.cell, "timeout", seconds, code, text)
    with contextlib.suppress(msgspec.DecodeError):
        told = msgspec.json.decode((place / "results.json").read_bytes())
        return CellResult(each.cell, _outcome(code, told), seconds, code, told=told)
    text = (place / "log").read_bytes()[-_TOLD:].decode(errors="replace").strip()
    return CellResult(
        each.cell, "error", seconds, code, text or f"it ended with code {code} and said nothing"
    )


def _outcome(code: int, told: dict[str, Any]) -> Outcome:
    if code:
        return "failed"
    tests = told["tests"]
    return "skipped" if all(each["outcome"] == "skipped" for each in tests) else "passed"


def exit_code(results: Sequence[CellResult]) -> int:
    """1 if any check failed or was not done in time; else that of the first cell that could not be run."""
    if any(each.outcome in ("failed", "timeout") for each in results):
        return 1
    return next(
        (each.exit if each.exit in (2, 3, 4) else 3 for each in results if each.outcome == "error"), 0
    )
