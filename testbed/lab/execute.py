"""Run a command in a node: same stdin, stdout and stderr, its exit code ours.

The child enters the node's namespaces through its pidfd, so it is the same for every engine, and
nothing stands between the caller's file descriptors and the command's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from testbed import namespaces

if TYPE_CHECKING:
    from testbed.engines.base import Node
    from testbed.lab.lab import Lab

_NODE_NAMESPACES = (
    namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWNET
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWPID
)
KILL = signal.SIGUSR1
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # a shell's exit codes


def run(lab: Lab, node_name: str, command: Sequence[str]) -> int:
    """Run ``command`` in a node; its exit code, 128 + n when signal n ended it.

    Must be called from a single-threaded process: it moves into the node's namespaces for good.
    """
    node = lab.node(node_name)
    return enter(node.pidfd, command, environment(node))


def enter(pidfd: int, command: Sequence[str], env: dict[str, str], *, with_us: bool = False) -> int:
    """The same in the node of ``pidfd``.

    ``with_us``: the command is killed when this process ends, and by :data:`KILL`; then it is reaped here.
    The node's PID namespace, and with it the lab, could not end before someone has reaped it.
    """
    namespaces.setns(pidfd, _NODE_NAMESPACES)
    os.chdir("/")
    sys.stdout.flush()
    sys.stderr.flush()
    passed_on = {signal.SIGTERM, signal.SIGHUP} | ({KILL} if with_us else set())
    with _blocked({*passed_on, signal.SIGCHLD}) as before:
        pid = os.fork()  # only a child is in the PID namespace
        if pid == 0:
            if with_us:
                namespaces.kill_with_parent()
            _exec(command, env, before)
        code = os.waitstatus_to_exitcode(_reap(pid, passed_on))
    return 128 - code if code < 0 else code


def _exec(command: Sequence[str], env: dict[str, str], unblocked: set[int]) -> None:
    code = NOT_FOUND
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        os.execvpe(command[0], list(command), env)
    except FileNotFoundError:
        print(f"testbed: {command[0]}: not found in the node", file=sys.stderr)
    except OSError as error:
        print(f"testbed: {command[0]}: {error.strerror}", file=sys.stderr)
        code = NOT_EXECUTABLE
    finally:
        sys.stderr.flush()
        os._exit(code)


@contextlib.contextmanager
def _blocked(signals: set[signal.Signals]) -> Iterator[set[int]]:
    """Signals wait to be asked for, so that none comes just before a wait that it should end.

    Ctrl-C reaches the command by the terminal. Yields the mask from before.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield before
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reap(pid: int, passed_on: set[signal.Signals]) -> int:
    """The status of a command that has ended; until then signals that are sent to us alone are passed on."""
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        number = signal.sigwait({*passed_on, signal.SIGCHLD})
        if number != signal.SIGCHLD:
            os.kill(pid, signal.SIGKILL if number == KILL else number)


def environment(node: Node) -> dict[str, str]:
    """The container's own environment, or this process's with the interpreter's folder on the path."""
    if node.env is not None:
        return {**node.env, "TERM": os.environ.get("TERM", "dumb")}
    own = dict(os.environ)
    folder = str(Path(sys.executable).parent)
    own["PATH"] = f"{folder}:{own.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}"
    return own
