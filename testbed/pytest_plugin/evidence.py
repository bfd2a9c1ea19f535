"""Keep evidence: packets while a test has a lab, and a bundle when it fails (docs/repro.md).

``-p testbed.pytest_plugin.evidence --testbed-evidence DIR``; `testbed test` does it by itself.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from testbed.pytest_plugin.report import BUNDLE

if TYPE_CHECKING:
    from testbed.evidence.ring import Recorder
    from testbed.testing.lab import LiveLab

QUIET = ("throughput",)  # suites that measure: a capture would be measured, too
_RECORDER: pytest.StashKey[Recorder] = pytest.StashKey()
_SAVED: pytest.StashKey[bool] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where bundles go."""
    group = parser.getgroup("testbed", "labs of hypervisor hosts")
    group.addoption("--testbed-evidence", default="", metavar="DIR", help="a bundle of each failed test")


def _folder(item: pytest.Item) -> Path | None:
    name = item.config.getoption("--testbed-evidence")
    return Path(name) if name else None


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """Record from the moment at which a test has its lab, until just before it is given back."""
    result = yield
    item = request.node
    if fixturedef.argname != "lab" or not isinstance(item, pytest.Item) or not _folder(item):
        return result
    if item.path.stem not in QUIET and hasattr(result, "lab"):
        from testbed.errors import TestbedError
        from testbed.evidence.ring import Recorder

        try:
            recorder = Recorder(result.lab)
        except (TestbedError, OSError) as error:  # the test is what counts
            item.add_report_section("setup", "evidence", f"nothing is recorded: {error}")
        else:
            item.stash[_RECORDER] = recorder
            fixturedef.addfinalizer(recorder.stop)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The first failure of a test is kept, while its lab is as it was then."""
    report = yield
    lab: LiveLab | None = getattr(item, "funcargs", {}).get("lab")
    folder = _folder(item)
    if not report.failed or folder is None or lab is None or item.stash.get(_SAVED, False):
        return report
    from testbed.errors import TestbedError

    item.stash[_SAVED] = True
    try:
        path = _save(item, folder, lab, report.longreprtext)
    except (TestbedError, OSError) as error:
        report.sections.append(("evidence", f"it could not be kept: {error}"))
    else:
        report.user_properties.append((BUNDLE, str(path)))
    return report


def _save(item: pytest.Item, folder: Path, lab: LiveLab, text: str) -> Path:
    from testbed import suites
    from testbed.evidence import collect
    from testbed.pytest_plugin import pool_of

    is_suite = item.path.parent == Path(suites.__file__).parent
    test = collect.Test(
        suite=item.path.stem.replace("_", "-") if is_suite else "",
        name=item.nodeid.partition("::")[2],
        file=item.path.name,
        text=text,
        variables=lab.variables,
    )
    hidden = pool_of(item.config).secrets()
    return collect.save(folder, lab.lab, test, item.stash.get(_RECORDER, None), hidden)
