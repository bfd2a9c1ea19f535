"""The namespaces engine as the lab sees it: starts, asks and ends the lab's supervisor."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from testbed.channel import Channel, connect
from testbed.engines.base import LabRef, Node, NodeSpec
from testbed.engines.namespaces.supervisor import LOGS, SOCKET
from testbed.errors import BadInput, LabError
from testbed.processes import ProcessId

_PID_FILE = "supervisor.json"
_END_SECONDS = 10.0


class NamespacesEngine:
    """Nodes as namespaces below one supervisor per lab."""

    name = "namespaces"

    def __init__(self) -> None:
        self._channels: dict[str, Channel] = {}
        self._leases: dict[str, int] = {}

    def start(self, lab: LabRef, nodes: Sequence[NodeSpec]) -> None:
        """Start nodes; the first call starts the supervisor, which is the fabric node."""
        if foreign := [node.name for node in nodes if node.image]:
            raise BadInput(
                f"{foreign[0]} has an `image:`, which needs --engine docker; take that or remove it"
            )
        if not (lab.directory / _PID_FILE).exists():
            self._start_supervisor(lab)
        wanted = [msgspec.to_builtins(node) for node in nodes if node.role != "fabric"]
        self._channel(lab).call("start", nodes=wanted)

    def stop(self, lab: LabRef, names: Sequence[str]) -> None:
        """End some nodes."""
        self._channel(lab).call("stop", names=list(names))

    def close(self) -> None:
        """Part from the supervisors."""
        while self._channels:
            self._channels.popitem()[1].close()

    def commit(self, lab: LabRef) -> None:
        """Let the lab outlive this process."""
        self._channel(lab).call("commit")
        if (lease := self._leases.pop(lab.id, -1)) >= 0:
            os.close(lease)

    def destroy(self, lab: LabRef) -> None:
        """Kill the supervisor and wait until the kernel has ended its PID namespace."""
        if channel := self._channels.pop(lab.id, None):
            channel.close()
        if (lease := self._leases.pop(lab.id, -1)) >= 0:
            os.close(lease)
        supervisor = _supervisor(lab)
        pidfd = supervisor.open() if supervisor else None
        if pidfd is None:
            return
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            if not select.select([pidfd], [], [], _END_SECONDS)[0]:
                raise LabError(f"the supervisor of {lab.name} did not end within {_END_SECONDS:.0f} s")
        finally:
            os.close(pidfd)

    def open(self, lab: LabRef, name: str) -> Node:
        """Open a node by its pidfd, which the supervisor hands over."""
        try:
            _, descriptors = self._channel(lab).call("open", name=name)
        except LabError as error:
            raise LabError(f"{error}{_tail(self._log(lab, name))}") from None
        return Node(name, descriptors[0], _pid_of(descriptors[0]))

    def alive(self, lab: LabRef) -> bool:
        """Whether the supervisor runs."""
        supervisor = _supervisor(lab)
        return supervisor is not None and supervisor.alive()

    def logs(self, lab: LabRef, name: str, follow: bool) -> Iterator[bytes]:
        """A node's output; ``follow`` goes on until the lab has ended."""
        with self._log(lab, name).open("rb") as file:
            while True:
                while chunk := file.read(1 << 16):
                    yield chunk
                if not follow or not self.alive(lab):
                    return
                time.sleep(0.1)  # following a plain file means asking again

    def _start_supervisor(self, lab: LabRef) -> None:
        (lab.directory / LOGS).mkdir(exist_ok=True)
        reading, writing = os.pipe()
        try:
            started = subprocess.run(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "testbed.engines.namespaces.supervisor",
                    lab.directory,
                    str(reading),
                ],
                pass_fds=[reading],
                capture_output=True,
                timeout=_END_SECONDS,
                check=False,
            )
        finally:
            os.close(reading)
        self._leases[lab.id] = writing
        if started.returncode != 0:
            raise LabError(f"the supervisor did not start: {started.stderr.decode(errors='replace').strip()}")
        pid = ProcessId.of(int(started.stdout))
        (lab.directory / _PID_FILE).write_bytes(msgspec.json.encode(pid))

    def _channel(self, lab: LabRef) -> Channel:
        if lab.id not in self._channels:
            if (lab.directory / _PID_FILE).exists() and not self.alive(lab):
                raise LabError(f"the supervisor of {lab.name} has died: run `testbed gc`")
            self._channels[lab.id] = connect(lab.directory / SOCKET)
        return self._channels[lab.id]

    @staticmethod
    def _log(lab: LabRef, name: str) -> Path:
        return lab.directory / LOGS / f"{name}.log"


def _supervisor(lab: LabRef) -> ProcessId | None:
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        return msgspec.json.decode((lab.directory / _PID_FILE).read_bytes(), type=ProcessId)
    return None


def _pid_of(pidfd: int) -> int:
    """The process id behind a pidfd as this PID namespace sees it (proc(5), fdinfo)."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise LabError("this kernel tells no process id of a pidfd")


def _tail(log: Path, lines: int = 5) -> str:
    with contextlib.suppress(OSError):
        text = log.read_text(errors="replace").strip().splitlines()[-lines:]
        if text:
            return "; its last words: " + " | ".join(text)
    return ""
