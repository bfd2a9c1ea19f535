"""A node's first process: enters the node's namespaces, runs what the node is for, reaps orphans."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from testbed import namespaces
from testbed.engines.base import STATEFUL, NodeSpec
from testbed.engines.namespaces import mounts
from testbed.guest import announce
from testbed.host import main as host
from testbed.processes import name_process

_READY = b"ready"
_CANNOT_EXECUTE = 127  # as a shell says it


class Starting:
    """A forked node that has not reported yet. ``pid`` in the caller's PID namespace."""

    def __init__(self, name: str, pid: int, report: int) -> None:
        self.name = name
        self.pid = pid
        self._report = report

    def wait(self) -> str | None:
        """None when the node is up, else what went wrong."""
        with os.fdopen(self._report, "rb") as pipe:
            text = pipe.read()
        return None if text == _READY else text.decode(errors="replace") or "ended at once"


def spawn(spec: NodeSpec, log: Path, pid_namespace: int) -> Starting:
    """Fork a node's first process; it becomes PID 1 of a new PID namespace.

    ``pid_namespace``: descriptor of the caller's own one, to which later forks return.
    """
    reading, writing = os.pipe()
    namespaces.unshare(namespaces.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        _become(spec, log, writing)
    namespaces.setns(pid_namespace, namespaces.CLONE_NEWPID)
    os.close(writing)
    return Starting(spec.name, pid, reading)


def _become(spec: NodeSpec, log: Path, report: int) -> None:
    """In the child: never returns."""
    code = 1
    try:
        asyncio._set_running_loop(None)  # noqa: SLF001 - the loop of the process that forked is not ours
        _leave_parent(log, report)
        namespaces.unshare(
            namespaces.CLONE_NEWNET
            | namespaces.CLONE_NEWNS
            | namespaces.CLONE_NEWUTS
            | namespaces.CLONE_NEWIPC
        )
        socket.sethostname(spec.name)
        mounts.prepare_node(spec.state_dir if spec.role in STATEFUL else None, spec.disk)
        os.chdir("/")
        os.write(report, _READY)
        os.close(report)
        code = _init(spec)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(report, str(error).encode())
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _leave_parent(log: Path, report: int) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, report)
    os.closerange(report + 1, min(os.sysconf("SC_OPEN_MAX"), 65536))
    os.setsid()


def _init(spec: NodeSpec) -> int:
    """Run the node's program, if it has one, and reap until it ends or the node is told to end."""
    wanted = {signal.SIGCHLD, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    name_process(f"tb-{spec.role}-init")
    main_pid = _fork(lambda: _program(spec)) if _has_program(spec) else 0
    if spec.announce:
        _fork(_announce)
    while True:
        if signal.sigwait(wanted) == signal.SIGTERM:
            return 0
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == main_pid:
                return os.waitstatus_to_exitcode(status) & 0xFF


def _announce() -> int:
    name_process("tb-announce")
    return announce.main()


def _has_program(spec: NodeSpec) -> bool:
    return spec.role in STATEFUL or spec.command is not None


def _program(spec: NodeSpec) -> int:
    if spec.role == "host":
        return host.run(mounts.NODE_FOLDER)
    command = spec.command or ()
    if spec.role == "vmm":  # a fresh interpreter: what it imports is large, and nobody else's
        command = (sys.executable, "-P", "-m", "testbed.vmm.node", str(mounts.NODE_FOLDER))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return _CANNOT_EXECUTE


def _fork(function: Callable[[], int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, signal.SIGTERM})
        code = function()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
