"""Processes named so that a recycled process id can't be mistaken for the one meant."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from msgspec import Struct

_PR_SET_NAME = 15  # linux/prctl.h


def name_process(name: str) -> None:
    """Set the name that process listings show for the calling process (15 characters)."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


class ProcessId(Struct, frozen=True):
    """A process: its id and its start time in clock ticks since boot (proc(5), field 22)."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The process that has this id now. Raises ProcessLookupError."""
        start = _start_time(pid)
        if start is None:
            raise ProcessLookupError(pid)
        return cls(pid, start)

    @classmethod
    def own(cls) -> ProcessId:
        """The calling process."""
        return cls.of(os.getpid())

    def alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        return _start_time(self.pid) == self.start_time

    def open(self) -> int | None:
        """A pidfd of it, or None when it has ended."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if self.alive():  # the id was still its own after the descriptor was made
            return pidfd
        os.close(pidfd)
        return None


def _start_time(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def pss_bytes(pid: int) -> int:
    """Proportional set size of a process (smaps_rollup), 0 when it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def in_pid_namespace_of(pid: int) -> dict[int, int]:
    """Processes in the PID namespace of ``pid``: id inside it -> id here."""
    namespace = os.readlink(f"/proc/{pid}/ns/pid")
    found = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            if os.readlink(f"/proc/{entry.name}/ns/pid") != namespace:
                continue
            for line in Path(f"/proc/{entry.name}/status").read_text().splitlines():
                if line.startswith("NSpid:"):
                    found[int(line.split()[-1])] = int(entry.name)
        except OSError:
            continue
    return found
