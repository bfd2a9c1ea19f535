"""The lab's supervisor: PID 1 of the lab's PID namespace; its network namespace is the fabric.

``python -m testbed.engines.namespaces.supervisor DIRECTORY LEASE`` prints the supervisor's process
id and returns. LEASE is the reading end of a pipe: should its writer die before ``commit``, the
supervisor ends, and with it everything of the lab. Killing it is how a lab ends: the kernel then
kills all processes of the PID namespace, and with the last of them go their namespaces and links.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from pathlib import Path

import msgspec

from testbed import namespaces
from testbed.channel import Message, Reply, Server, listen
from testbed.engines.base import NodeSpec
from testbed.engines.namespaces import mounts, node
from testbed.errors import LabError
from testbed.processes import name_process

SOCKET = "supervisor.sock"
LOGS = "logs"
FABRIC = "fabric"


class Supervisor:
    """Requests: ``start`` (specs), ``stop`` (names), ``open`` (name; answers with a pidfd), ``commit``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, directory: Path, lease: int) -> None:
        self._loop = loop
        self._directory = directory
        self._lease = lease
        self._pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self._pids = {FABRIC: os.getpid()}
        loop.add_reader(lease, self._abandoned)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)

    def handle(self, message: Message, _: list[int]) -> Reply:
        """Answer one request."""
        match message["op"]:
            case "start":
                self._start(msgspec.convert(message["nodes"], list[NodeSpec]))
            case "stop":
                self._stop(message["names"])
            case "open":
                return self._open(message["name"])
            case "commit":
                if self._lease >= 0:
                    self._loop.remove_reader(self._lease)
                    os.close(self._lease)
                    self._lease = -1
            case other:
                raise LabError(f"unknown request {other!r}")
        return Reply()

    def _start(self, specs: list[NodeSpec]) -> None:
        logs = self._directory / LOGS
        starting = [node.spawn(spec, logs / f"{spec.name}.log", self._pid_namespace) for spec in specs]
        for one in starting:
            self._pids[one.name] = one.pid
        problems = [f"{one.name}: {problem}" for one in starting if (problem := one.wait())]
        if problems:
            raise LabError("; ".join(problems))

    def _stop(self, names: list[str]) -> None:
        for name in names:
            if name != FABRIC and (pid := self._pids.pop(name, None)):
                os.kill(pid, signal.SIGKILL)

    def _open(self, name: str) -> Reply:
        pid = self._pids.get(name)
        if pid is None:
            raise LabError(f"{name} does not run")
        pidfd = os.pidfd_open(pid)
        self._loop.call_soon(os.close, pidfd)  # after the reply has carried it away
        return Reply({}, [pidfd])

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._pids = {name: known for name, known in self._pids.items() if known != pid}

    def _abandoned(self) -> None:
        print("the process that built this lab died before it was complete", file=sys.stderr, flush=True)
        os._exit(1)


def _serve(directory: Path, lease: int) -> None:
    mounts.make_private()
    mounts.mount_proc()
    mounts.mount_sys()
    socket.sethostname(FABRIC)
    name_process("tb-supervisor")
    gc.freeze()  # what is loaded now stays shared with every node
    loop = asyncio.new_event_loop()
    Server(loop, listen(directory / SOCKET), Supervisor(loop, directory, lease).handle)
    loop.run_forever()


def main(directory: Path, lease: int) -> None:
    """Become two: the one returns with the other's pid printed, the other is the supervisor."""
    namespaces.unshare(
        namespaces.CLONE_NEWPID
        | namespaces.CLONE_NEWNS
        | namespaces.CLONE_NEWNET
        | namespaces.CLONE_NEWUTS
        | namespaces.CLONE_NEWIPC
    )
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(directory / LOGS / f"{FABRIC}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.chdir("/")
    _serve(directory, lease)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
