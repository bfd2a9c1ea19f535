"""Fixtures of all tests: command lines with state folders of their own, and the search for leftovers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import machine
from support.cli import FOUR_HOSTS, Cli
from support.labs import Lab, tear_down

ENGINES = ("namespaces", "docker")


def pytest_configure() -> None:
    machine.become_subreaper()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell that runs us in the background says so
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=ENGINES, scope="session")
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Both engines; docker is passed over where none answers, unless it is required. Its image is built."""
    name: str = request.param
    if name == "docker":
        from testbed.engines.docker.client import available

        answers, why = available()
        if not answers:
            assert "TESTBED_REQUIRE_DOCKER" not in os.environ, why
            pytest.skip(why)
        Cli(tmp_path_factory.mktemp("image")).ok("image", "build", seconds=280.0)
    return name


@contextmanager
def _nothing_left(folder: Path) -> Iterator[None]:
    """Fails if anything is left on the machine at the end of the block."""
    before = machine.snapshot()
    yield
    left = machine.leaks(before, folder)
    machine.remove_containers(folder)
    assert not left, "\n".join(left)


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test of whole labs or of namespaces that leaves anything behind fails."""
    if not {"e2e", "netns"} & {mark.name for mark in request.node.iter_markers()}:
        yield
        return
    folder: Path = request.getfixturevalue("tmp_path")
    with _nothing_left(folder):
        yield


@contextmanager
def _command_line(state: Path, engine: str) -> Iterator[Cli]:
    """A command line; fails if its state folder is not empty at the end of the block."""
    cli = Cli(state, engine)
    try:
        yield cli
    finally:
        left = tear_down(cli)
    assert not left, "\n".join(left)


@pytest.fixture
def cli(tmp_path: Path, leaves_nothing: None) -> Iterator[Cli]:
    """A command line for one test that needs one engine only: namespaces."""
    with _command_line(tmp_path / "state", "namespaces") as made:
        yield made


@pytest.fixture
def each_cli(tmp_path: Path, leaves_nothing: None, engine: str) -> Iterator[Cli]:
    """A command line for one test, once with every engine."""
    with _command_line(tmp_path / "state", engine) as made:
        yield made


@pytest.fixture(scope="session")
def shared_lab(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Lab]:
    """A running 4host for tests that leave it as they find it."""
    folder = tmp_path_factory.mktemp("shared")
    with _nothing_left(folder), _command_line(folder / "state", engine) as cli:
        lab = _up(cli, FOUR_HOSTS)
        yield lab
        _down(lab)


@pytest.fixture(scope="module")
def module_lab(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """``with module_lab(file, *options, may_drop=()) as lab``: one for a whole module, in namespaces."""

    @contextmanager
    def up(file: Path, *options: object, may_drop: tuple[str, ...] = ()) -> Iterator[Lab]:
        folder = tmp_path_factory.mktemp("module")
        with _nothing_left(folder), _command_line(folder / "state", "namespaces") as cli:
            lab = _up(cli, file, *options, may_drop=may_drop)
            yield lab
            _down(lab, may_drop)

    return up


@pytest.fixture
def lab(shared_lab: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The shared 4host; after each test it must be without faults."""
    yield shared_lab
    marks = request.node.iter_markers("may_drop")
    faults = shared_lab.faults(reason for mark in marks for reason in mark.args)
    shared_lab.boot()
    assert not faults, "\n".join(faults)


@contextmanager
def _running(cli: Cli, file: Path, *options: object, may_drop: tuple[str, ...] = ()) -> Iterator[Lab]:
    lab = _up(cli, file, *options, may_drop=may_drop)
    try:
        yield lab
    except BaseException:
        cli.run("down", lab.name)
        raise
    _down(lab, may_drop)


def _up(cli: Cli, file: Path, *options: object, may_drop: tuple[str, ...] = ()) -> Lab:
    lab = Lab(cli, cli.up(file, *options)["name"])
    faults = lab.boot(may_drop)
    assert not faults, "\n".join(faults)
    return lab


def _down(lab: Lab, may_drop: tuple[str, ...] = ()) -> None:
    faults = lab.faults(may_drop)
    lab.cli.ok("down", lab.name)
    assert not faults, "\n".join(faults)


@pytest.fixture
def running() -> Callable[..., Any]:
    """``with running(cli, file, *options, may_drop=()) as lab``: up, the test, the lab's faults, down."""
    return _running
