"""How a run of suites tells `testbed test` what comes of it: a line of JSON for each event.

::

    {"event": "collected", "total"}
    {"event": "test", "id", "outcome": passed|failed|skipped, "when", "seconds", "text", "flake", "exit",
     "bundle"}
    {"event": "pause", "id", "lab", "node", "text"}     node: one of the lab's

A test that failed is run once more, which only labels it: when it passes now, it is a flake, and has failed.
"""

from __future__ import annotations

import json
import os
import signal
import termios
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.runner import runtestprotocol

if TYPE_CHECKING:
    from testbed.testing.lab import LiveLab

FLAKE = "testbed_flake"
BUNDLE = "testbed_bundle"  # of :mod:`testbed.pytest_plugin.evidence`
_NAME = "testbed-report"


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `testbed test` asks for."""
    add = parser.getgroup("testbed", "labs of hypervisor hosts").addoption
    add("--testbed-report", type=int, default=-1, metavar="FD", help="write events to this descriptor")
    add("--testbed-shard", default="1/1", metavar="I/N", help="every N-th test, from the I-th")
    add("--testbed-retry", action="store_true", help="run a failed test once more, to label it")
    add("--testbed-pause", action="store_true", help="wait for a line of input after a failure")


def pytest_configure(config: pytest.Config) -> None:
    """Tell from one process: with xdist that is the one that has the workers. All end with `testbed test`."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell in the background leaves it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    descriptor = config.getoption("--testbed-report")
    if descriptor >= 0:
        from testbed.namespaces import kill_with_parent

        kill_with_parent()  # then all labs of the run are garbage
    if descriptor >= 0 and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Reporter(descriptor), _NAME)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what other shards run."""
    shard, _, shards = config.getoption("--testbed-shard").partition("/")
    items[:] = items[int(shard) - 1 :: int(shards)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run it, and once more if it has failed; what is told is the first time."""
    if not item.config.getoption("--testbed-retry"):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    if any(each.failed and not hasattr(each, "testbed_error") for each in reports):
        if hasattr(item, "_initrequest"):
            item._initrequest()  # noqa: SLF001 - fixtures anew, as pytest's own retrying plugins do it
        again = runtestprotocol(item, log=False, nextitem=nextitem)
        if not any(each.failed for each in again):
            for each in reports:
                each.user_properties.append((FLAKE, "it passed when it was run again"))
    for each in reports:
        item.ihook.pytest_runtest_logreport(report=each)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


class Reporter:
    """Writes events to a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._total = 0

    def _tell(self, **fields: Any) -> None:
        os.write(self._descriptor, json.dumps(fields).encode() + b"\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Tests of a run without workers."""
        if session.items:
            self._tell(event="collected", total=len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: object, ids: Sequence[str]) -> None:
        """Tests of a run with workers, all of which have found the same."""
        if not self._total:
            self._total = len(ids)
            self._tell(event="collected", total=self._total)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A suite that cannot even be read has failed."""
        if report.failed:
            self._tell(
                event="test", id=report.nodeid, outcome="failed", when="collect", text=report.longreprtext
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A phase of a test: its call, or what went wrong before or after it."""
        if report.when != "call" and report.passed:
            return
        self._tell(
            event="test",
            id=report.nodeid,
            outcome=report.outcome,
            when=report.when,
            seconds=round(report.duration, 3),
            text=_text(report),
            flake=any(name == FLAKE for name, _ in report.user_properties),
            bundle=next((str(value) for name, value in report.user_properties if name == BUNDLE), ""),
            exit=getattr(report, "testbed_exit", 0),
        )

    def pytest_exception_interact(self, node: pytest.Item, report: pytest.TestReport) -> None:
        """A failure, before anything of the test is taken down."""
        lab: LiveLab | None = getattr(node, "funcargs", {}).get("lab")
        if lab is None or not node.config.getoption("--testbed-pause") or report.when == "teardown":
            return
        capture: Any = node.config.pluginmanager.getplugin("capturemanager")
        capture.suspend_global_capture(in_=True)
        try:
            termios.tcflush(0, termios.TCIFLUSH)  # what was typed before is no answer
            self._tell(
                event="pause", id=node.nodeid, lab=lab.name, node=lab.lab.node_names()[0], text=_text(report)
            )
            os.read(0, 1 << 12)
        finally:
            capture.resume_global_capture()


def _text(report: pytest.TestReport) -> str:
    """Why it was skipped or has failed."""
    if error := getattr(report, "testbed_error", ""):
        return str(error)
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return report.longreprtext
