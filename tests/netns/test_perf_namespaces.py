"""testbed.namespaces: entering, returning, and functions that run in a namespace."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed import namespaces
from testbed.errors import LabError, MachineLacks
from testbed.namespaces import in_netns, netns_of, new_netns, run_in_netns, start_in_netns

pytestmark = pytest.mark.netns


def _own() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


def _fds() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def _children() -> str:
    return Path("/proc/thread-self/children").read_text()


def _bury(pid: int) -> None:
    """Wait for an orphan that came back to this process, the tests' subreaper."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


@pytest.fixture
def netns() -> Iterator[int]:
    """A namespace; the test must leave no descriptor and no child, and be back in its own namespace."""
    own, fds, children = _own(), _fds(), _children()
    fd = new_netns()
    yield fd
    os.close(fd)
    assert (_own(), _fds(), _children()) == (own, fds, children)


def test_a_new_namespace_has_lo_only_and_the_caller_stays(netns: int) -> None:
    assert os.fstat(netns).st_ino != _own()
    with in_netns(netns):
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
        with pytest.raises(OSError, match="unreachable"):
            socket.create_connection(("127.0.0.1", 9), timeout=1)


def test_in_netns_enters_and_returns(netns: int) -> None:
    own = _own()
    with in_netns(netns):
        assert _own() == os.fstat(netns).st_ino
    assert _own() == own


def test_in_netns_returns_after_an_exception(netns: int) -> None:
    own = _own()
    with pytest.raises(KeyError), in_netns(netns):
        raise KeyError
    assert _own() == own


def test_in_netns_of_something_else_raises(netns: int) -> None:
    own = _own()
    with Path("/dev/null").open() as file, pytest.raises(OSError, match="setns"), in_netns(file.fileno()):
        pytest.fail("entered")
    assert _own() == own


def _return_nowhere() -> None:
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    namespaces._return_to(-1)


def test_a_failing_return_ends_the_process(netns: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LabError, match="killed by SIGABRT"):
        run_in_netns(netns, _return_nowhere, timeout=10)
    assert "cannot return to the own network namespace" in capfd.readouterr().err


def test_result_comes_from_inside(netns: int) -> None:
    assert run_in_netns(netns, _own, timeout=10) == os.fstat(netns).st_ino


def _bytes(count: int, letter: str) -> str:
    return letter * count


def test_a_result_larger_than_a_pipe_and_arguments(netns: int) -> None:
    assert run_in_netns(netns, _bytes, 3_000_000, "x", timeout=10) == "x" * 3_000_000


def _divide() -> float:
    return 1 / 0


def _lacking() -> None:
    raise MachineLacks("nothing is here")


def _exit() -> None:
    raise SystemExit(0)


def _kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _leave() -> None:
    os._exit(7)


def _lambda() -> Callable[[], None]:
    return lambda: None


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (_divide, LabError, "^_divide: ZeroDivisionError: division by zero$"),
        (_lacking, MachineLacks, "^nothing is here$"),
        (_exit, LabError, "^_exit: SystemExit: 0$"),
        (_kill_itself, LabError, "^_kill_itself: killed by SIGKILL without a result$"),
        (_leave, LabError, "^_leave: ended with exit code 7 without a result$"),
        (_lambda, LabError, "^_lambda: .*pickle"),
    ],
)
def test_what_goes_wrong_is_told(
    netns: int, function: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run_in_netns(netns, function, timeout=10)


def test_a_child_that_was_reaped_elsewhere(netns: int) -> None:
    with start_in_netns(netns, _kill_itself) as call:
        os.waitpid(call.pid, 0)
        with pytest.raises(LabError, match=r"^_kill_itself: ended without a result$"):
            call.result(5)


def test_a_namespace_that_cannot_be_entered_is_told(netns: int) -> None:
    with Path("/dev/null").open() as file, pytest.raises(LabError, match=r"_own: OSError.*setns"):
        run_in_netns(file.fileno(), _own, timeout=10)


def test_deadline(netns: int) -> None:
    begin = time.monotonic()
    with pytest.raises(LabError, match=r"^nap: no result within 0\.2 s; it was stopped$"):
        run_in_netns(netns, time.sleep, 60, timeout=0.2, name="nap")
    assert time.monotonic() - begin < 5


def test_leaving_the_block_ends_the_child(netns: int) -> None:
    with start_in_netns(netns, time.sleep, 60) as call:
        assert not call.ended()
        pid = call.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def _leave_a_child_behind(pipe: int) -> int:
    pid = os.fork()
    if pid == 0:
        os.write(pipe, b"1")
        time.sleep(60)
        os._exit(0)
    return pid


def test_a_grandchild_does_not_hold_up_the_result(netns: int) -> None:
    reader, writer = os.pipe()
    try:
        pid = run_in_netns(netns, _leave_a_child_behind, writer, timeout=5)
        os.kill(pid, signal.SIGKILL)
        _bury(pid)
    finally:
        os.close(reader)
        os.close(writer)


def _report_and_sleep(pipe: int) -> None:
    os.write(pipe, b"1")
    time.sleep(0.2)


def test_ctrl_c_is_the_parents_affair(netns: int) -> None:
    reader, writer = os.pipe()
    try:
        with start_in_netns(netns, _report_and_sleep, writer) as call:
            assert select.select([reader], [], [], 5)[0]
            os.kill(call.pid, signal.SIGINT)
            call.result(5)
    finally:
        os.close(reader)
        os.close(writer)


_PARENT = """
import os, time
from testbed.namespaces import new_netns, start_in_netns
call = start_in_netns(new_netns(), time.sleep, 60)
print(call.pid, flush=True)
time.sleep(60)
"""


def test_the_childs_end_follows_the_parents_death(netns: int) -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        child = os.pidfd_open(pid)
        parent.kill()
    try:
        assert select.select([child], [], [], 5)[0]
        _bury(pid)
    finally:
        os.close(child)


def test_netns_of_a_process(netns: int) -> None:
    with start_in_netns(netns, time.sleep, 60) as call:
        deadline = time.monotonic() + 5
        while True:
            fd = netns_of(call.pid, call._pidfd)
            inode = os.fstat(fd).st_ino
            os.close(fd)
            if inode == os.fstat(netns).st_ino or time.monotonic() > deadline:
                break
        assert inode == os.fstat(netns).st_ino


def test_netns_of_an_ended_process(netns: int) -> None:
    with start_in_netns(netns, os.getpid) as call:
        ended = os.dup(call._pidfd)
        pid = call.pid
        assert call.result(5) == pid
    try:
        with pytest.raises(LabError, match="has ended"):
            netns_of(pid)
        with pytest.raises(LabError, match="has ended"):
            netns_of(os.getpid(), ended)  # the pid has another owner now
    finally:
        os.close(ended)
