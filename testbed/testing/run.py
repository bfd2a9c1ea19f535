"""A run of suites: pytest in a process of its own, and nothing of its labs left behind, however it ends."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from msgspec import Struct

from testbed import suites
from testbed.errors import BadInput, LabError, MachineLacks, TestbedError
from testbed.lab import build, garbage, store
from testbed.signals import undisturbed
from testbed.suites import Suite
from testbed.testing.results import Results

END_SECONDS = 40.0  # for pytest and its workers to take their labs down
_WORKERS_AFTER = 10.0  # seconds after which a worker that waits for something is interrupted, too
_NEEDED = ("pytest", "xdist", "zstandard")
_TOLD_LINES = 40
_NO_TESTS = 5  # pytest's exit code: a shard may be empty
_ERRORS = {2: BadInput, 4: MachineLacks}

Event = dict[str, Any]


class Order(Struct, frozen=True):
    """What is to be run. file or running: a topology, or a running lab. shard: "1/3".

    evidence: where a bundle of each failed test goes. only: one test, of the one suite.
    """

    suites: tuple[Suite, ...]
    file: Path | None = None
    running: str = ""
    settings: tuple[str, ...] = ()
    engine: str = "auto"
    workers: int = 1
    plant: str = ""
    junit: Path | None = None
    shard: str = "1/1"
    pause: bool = False
    evidence: Path | None = None
    only: str = ""


def require() -> None:
    """Raise MachineLacks unless the extra `test` is there."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise MachineLacks(
            f"suites run on pytest, pytest-xdist and zstandard, {missing[0]} is missing: "
            f"pip install 'testbed[test]'"
        )


def run(order: Order, tell: Callable[[Event, Results], None]) -> Results:
    """The results; ``tell`` is called for each event (:mod:`testbed.pytest_plugin.report`).

    Raises TestbedError when a lab could not be built, LabError when pytest itself failed.
    """
    began = time.monotonic()
    garbage.collect(unfinished_only=True)
    name = f"test-{secrets.token_hex(3)}"
    results = Results()
    failed: list[TestbedError] = []
    reading, writing = os.pipe()
    with store.scratch("test") as scratch, (scratch / "log").open("w+") as log, os.fdopen(reading) as events:
        try:
            process = _start(order, name, writing, log, scratch)
        finally:
            os.close(writing)
        with _ended(process, name):
            for line in events:
                event = json.loads(line)
                if event["event"] == "test":
                    results.add(event)
                    if event.get("exit") and event["when"] == "setup":
                        failed.append(_ERRORS.get(event["exit"], LabError)(event["text"]))
                tell(event, results)
            code = process.wait()
        if failed:
            raise failed[0]
        if code not in (0, 1, _NO_TESTS) or (code == 1 and results.ok):
            log.seek(0)
            said = "".join(log.readlines()[-_TOLD_LINES:])
            raise LabError(f"pytest ended with code {code}; its last lines:\n{said}")
    results.seconds = round(time.monotonic() - began, 2)
    return results


def _start(order: Order, name: str, report: int, log: IO[str], scratch: Path) -> subprocess.Popen[bytes]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # what else is installed must not change what a suite says
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "pytest", f"--basetemp={scratch}/pytest", *_words(order, name, report)],
        env=env,
        pass_fds=[report],
        stdout=log,
        stderr=log,
        stdin=None if order.pause else subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches us alone, and it once
    )


def _words(order: Order, name: str, report: int) -> Iterator[str]:
    yield from ("-c", os.devnull, "--rootdir", str(Path(suites.__file__).parent), "--import-mode=importlib")
    yield from ("-p", "testbed.pytest_plugin", "-p", "testbed.pytest_plugin.report", "-p", "no:cacheprovider")
    yield from ("--tb=short", "--testbed-report", str(report), "--testbed-run", name)
    yield from ("--testbed-engine", order.engine, "--testbed-shard", order.shard)
    if order.workers > 1:
        yield from ("-p", "xdist", "-n", str(order.workers), "--dist", "worksteal")
    if order.junit:
        yield from ("--junitxml", str(order.junit.absolute()), "-o", "junit_suite_name=testbed")
    if order.plant:
        yield from ("--testbed-plant", order.plant)
    elif not order.pause:
        yield "--testbed-retry"
    if order.pause:
        yield "--testbed-pause"
    if order.running:
        yield from ("--testbed-lab", order.running)
    else:
        yield from ("--testbed-topology", str(order.file))
    for setting in order.settings:
        yield from ("--testbed-set", setting)
    if order.evidence:
        yield from (
            "-p",
            "testbed.pytest_plugin.evidence",
            "--testbed-evidence",
            str(order.evidence.absolute()),
        )
    only = f"::{order.only}" if order.only else ""
    yield from (f"{suite.file}{only}" for suite in order.suites)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes], name: str) -> Iterator[None]:
    """At the end of the block pytest is not there any more, and no lab of its is."""
    try:
        yield
    finally:
        with undisturbed():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(_WORKERS_AFTER)
                except subprocess.TimeoutExpired:
                    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                        os.killpg(process.pid, signal.SIGINT)
                        process.wait(END_SECONDS - _WORKERS_AFTER)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its session: workers that did not end
            process.wait()
            for record in store.load_all():
                if record.name.startswith(f"{name}-"):
                    build.down(record.name)
