"""What VMs are told to run when their network is there (``exec:``): all VMs side by side."""

from __future__ import annotations

import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from typing import IO, NamedTuple

from testbed.errors import LabError
from testbed.lab import execute
from testbed.lab.lab import Lab
from testbed.topology.plan import VmPlan

SECONDS = 60.0  # for all commands of all VMs together
_LAST_LINES = 5


class _Running(NamedTuple):
    vm: VmPlan
    pid: int
    pidfd: int
    output: IO[bytes]


def run(lab: Lab, vms: Iterable[VmPlan]) -> None:
    """Run each VM's commands in their order. Raises LabError with the first one that fails, or is late."""
    deadline = time.monotonic() + SECONDS
    running = [_start(lab, vm) for vm in vms if vm.exec]
    try:
        for each in running:
            _wait(each, deadline)
    finally:
        for each in running:
            _end(each)


def _start(lab: Lab, vm: VmPlan) -> _Running:
    lab.node(vm.name)  # opened here, for what the child opens is lost
    output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _end
    pid = os.fork()
    if pid == 0:
        _child(lab, vm, output)
    return _Running(vm, pid, os.pidfd_open(pid), output)


def _child(lab: Lab, vm: VmPlan, output: IO[bytes]) -> None:
    """Never returns. Its exit code is that of the command that failed, which its output names."""
    code = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output.fileno(), 1), (output.fileno(), 2)):
            os.dup2(source, target)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        for command in vm.exec:
            code = execute.run(lab, vm.name, command, with_us=True)
            if code != 0:
                os.write(2, f"\n{_shown(command)}: exit code {code}".encode())
                break
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _wait(running: _Running, deadline: float) -> None:
    name = running.vm.name
    if not select.select([running.pidfd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        raise LabError(f"{name}: exec: not done after {SECONDS:.0f} s; {_tail(running.output)}")
    _, status = os.waitpid(running.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise LabError(f"{name}: exec: {_tail(running.output)}")


def _end(running: _Running) -> None:
    """Whatever is still running of it ends; a command that nobody reaps would keep its VM from ending."""
    if not select.select([running.pidfd], [], [], 0)[0]:
        os.kill(running.pid, execute.KILL)
        os.waitpid(running.pid, 0)
    os.close(running.pidfd)
    running.output.close()


def _tail(output: IO[bytes]) -> str:
    output.seek(0)
    lines = output.read().decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()][-_LAST_LINES:]
    return "its last words: " + (" | ".join(said) or "none")


def _shown(command: Iterable[str]) -> str:
    return " ".join(command)
