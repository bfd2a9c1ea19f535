"""Run a command in a node: same stdin, stdout and stderr, its exit code ours.

The child enters the node's namespaces through its pidfd, so it is the same for every engine, and
nothing stands between the caller's file descriptors and the command's.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from testbed import namespaces
from testbed.signals import Handler, handled

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


def run(lab: Lab, node_name: str, command: Sequence[str], *, with_us: bool = False) -> int:
    """Run ``command`` in a node; its exit code, 128 + n when signal n ended it.

    Must be called from a single-threaded process: it moves into the node's namespaces for good.
    ``with_us``: as of :func:`enter`.
    """
    node = lab.node(node_name)
    return enter(node.pidfd, command, environment(node), with_us=with_us)


def enter(pidfd: int, command: Sequence[str], env: dict[str, str], *, with_us: bool = False) -> int:
    """The same in the node of ``pidfd``.

    ``with_us``: the command is killed when this process ends, and by :data:`KILL`; then it is reaped here.
    The node's PID namespace, and with it the lab, could not end before someone has reaped it.
    """
    namespaces.setns(pidfd, _NODE_NAMESPACES)
    os.chdir("/")
    sys.stdout.flush()
    sys.stderr.flush()
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {KILL})  # until it can be passed on
    reader, writer = os.pipe()
    pid = os.fork()  # only a child is in the PID namespace
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)  # nothing of the command happens before signals are passed on to it
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        if with_us:
            namespaces.kill_with_parent()
        _exec(command, env)
    os.close(reader)
    with _forwarding(pid, kills=with_us):
        os.close(writer)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        status = _ended(pid)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _ended(pid: int) -> int:
    """The wait status of the child.

    A signal that comes just before waitpid() would be handled only after it: a Python handler runs between
    two steps of the program. So the wait is for the child or for a signal, whichever comes first.
    """
    child = os.pidfd_open(pid)
    signals, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(child, select.POLLIN)
    poll.register(signals, select.POLLIN)
    try:
        while child not in dict(poll.poll()):
            os.read(signals, 4096)  # the handler itself has passed it on by now
        return os.waitpid(pid, 0)[1]
    finally:
        signal.set_wakeup_fd(before)
        for descriptor in (child, signals, wakes):
            os.close(descriptor)


def _exec(command: Sequence[str], env: dict[str, str]) -> None:
    code = NOT_FOUND
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(command[0], list(command), env)
    except FileNotFoundError:
        print(f"testbed: {command[0]}: not found in the node", file=sys.stderr)
    except OSError as error:
        print(f"testbed: {command[0]}: {error.strerror}", file=sys.stderr)
        code = NOT_EXECUTABLE
    finally:
        sys.stderr.flush()
        os._exit(code)


def _forwarding(pid: int, *, kills: bool) -> AbstractContextManager[None]:
    """Ctrl-C reaches the command by the terminal; what is sent to us alone is passed on."""

    def pass_on(number: int, _: object) -> None:
        os.kill(pid, number)

    handlers: dict[signal.Signals, Handler] = {
        signal.SIGINT: signal.SIG_IGN,
        signal.SIGTERM: pass_on,
        signal.SIGHUP: pass_on,
    }
    if kills:
        handlers[KILL] = lambda *_: os.kill(pid, signal.SIGKILL)
    return handled(handlers)


def environment(node: Node) -> dict[str, str]:
    """The container's own environment, or this process's with the interpreter's folder on the path."""
    if node.env is not None:
        return {**node.env, "TERM": os.environ.get("TERM", "dumb")}
    own = dict(os.environ)
    folder = str(Path(sys.executable).parent)
    own["PATH"] = f"{folder}:{own.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}"
    return own
