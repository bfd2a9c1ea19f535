"""The pytest plugin ``testbed``: labs, VMs, hosts and captures as fixtures (docs/testing.md).

pytest loads this module in every run where the product is installed, so it imports nothing of it before a
test asks for a lab. ``-p no:testbed`` leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from testbed.testing.host import Host
    from testbed.testing.lab import LiveLab
    from testbed.testing.pool import Pool
    from testbed.testing.vm import Vm
    from testbed.testing.watch import Watch

_POOL: pytest.StashKey[Pool] = pytest.StashKey()
_MARKER = (
    "topology(file, engine='auto', exclusive=False, change=None, **variables): the lab of a test. exclusive: "
    "for this test alone, which changes it; change: makes another topology (testbed.topology.schema) of what "
    "the file says; variables: those of the topology's template"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options by which `testbed test` says what to test."""
    group = parser.getgroup("testbed", "labs of hypervisor hosts")
    add = group.addoption
    add("--testbed-topology", metavar="FILE", help="for tests whose marker names no topology")
    add("--testbed-lab", metavar="NAME", default="", help="a running lab, for the same tests")
    add(
        "--testbed-set", metavar="NAME=VALUE", action="append", default=[], help="a variable of that topology"
    )
    add("--testbed-engine", metavar="ENGINE", default="auto", help="auto, docker, namespaces")
    add("--testbed-plant", metavar="FAULT", default="", help="a fault in the switch of every host")
    add("--testbed-run", metavar="NAME", default="", help="what the names of the labs begin with")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the labs of this process."""
    if pool := config.stash.get(_POOL, None):
        pool.close()


def pool_of(config: pytest.Config) -> Pool:
    """The labs of this process."""
    if _POOL not in config.stash:
        from testbed.testing.pool import Defaults, Pool

        option = config.getoption
        file = option("--testbed-topology")
        config.stash[_POOL] = Pool(
            Defaults(
                file=Path(file) if file else None,
                variables=dict(each.split("=", 1) for each in option("--testbed-set")),
                engine=option("--testbed-engine"),
                plant=option("--testbed-plant"),
                running=option("--testbed-lab"),
                run=option("--testbed-run"),
            )
        )
    return config.stash[_POOL]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure's text holds no token of a lab; what the product could not do keeps its exit code."""
    report = yield
    pool = item.config.stash.get(_POOL, None)
    if pool is None or call.excinfo is None:
        return report
    from testbed.errors import TestbedError

    if report.failed and isinstance(call.excinfo.value, TestbedError):
        report.testbed_exit = call.excinfo.value.exit_code  # type: ignore[attr-defined]
        if report.when == "setup":
            report.testbed_error = str(call.excinfo.value)  # type: ignore[attr-defined]
    if report.failed and (known := [each for each in pool.secrets() if each in str(report.longrepr)]):
        text = str(report.longrepr)
        for each in known:
            text = text.replace(each, "(a token)")
        report.longrepr = text
    return report


# ---- fixtures -----------------------------------------------------------------------------


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[LiveLab]:
    """The running lab that the marker ``topology`` asks for; shared unless it says ``exclusive=True``."""
    pool = pool_of(request.config)
    marker = request.node.get_closest_marker("topology")
    order = pool.order(marker, request.path.parent, request.config.rootpath)
    if marker and marker.kwargs.get("exclusive"):
        with pool.exclusive(order) as made:
            yield made
    else:
        yield pool.shared(order)


@pytest.fixture
def vm(lab: LiveLab) -> Callable[[str], Vm]:
    """``vm("blue1")``: a VM of the lab."""
    return lab.vm


@pytest.fixture
def host(lab: LiveLab) -> Callable[[str], Host]:
    """``host("host1")``: a host of the lab."""
    return lab.host


@pytest.fixture
def capture(lab: LiveLab) -> Callable[..., Watch]:
    """Frames at points of the lab, for a ``with`` block: points as of `testbed capture`."""
    return lab.capture


@pytest.fixture
def until() -> Callable[..., Any]:
    """``until(condition, "what was waited for", seconds=10)``: poll with a deadline."""
    from testbed.testing.waiting import until as wait_until

    return wait_until
