"""What is on the machine as a whole, whoever made it: for runs that have the machine to themselves.

:mod:`support.machine` finds what carries a test's own marks, beside others at work; this finds the rest.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support import machine

Kinds = dict[str, frozenset[str]]  # what there is, by kind

_FOLDERS = ("/run", "/dev/shm", "/sys/fs/bpf", "/run/netns")
_BPF = {"x86_64": 321, "aarch64": 280}  # number of bpf(2)
_PROG_GET_NEXT_ID, _LINK_GET_NEXT_ID = 11, 31  # linux/bpf.h
_libc = ctypes.CDLL(None, use_errno=True)


def snapshot() -> Kinds:
    """What is there now."""
    found = {"namespace": set(_namespaces()), "mount": set(_mounts())}
    found["link"] = set(machine.root_network().splitlines())
    for folder in (*_FOLDERS, tempfile.gettempdir()):
        with contextlib.suppress(FileNotFoundError):
            found[f"in {folder}"] = set(os.listdir(folder))
    found["eBPF program"] = set(_ids(_PROG_GET_NEXT_ID))
    found["eBPF link"] = set(_ids(_LINK_GET_NEXT_ID))
    found |= machine.docker_objects()
    return {kind: frozenset(names) for kind, names in found.items()}


def added(before: Kinds, now: Kinds) -> list[str]:
    """What is there and was not, a line for each."""
    return [f"{kind}: {name} is left" for kind in now for name in sorted(now[kind] - before[kind])]


def _namespaces() -> Iterator[str]:
    """Network and PID namespaces that a process is in or has open."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            yield from (os.readlink(entry / "ns" / kind) for kind in ("net", "pid"))
            for each in (entry / "fd").iterdir():
                with contextlib.suppress(OSError):
                    target = os.readlink(each)
                    if target.startswith(("net:[", "pid:[")):
                        yield target


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        yield f"{before.split()[4]} ({after.split()[0]})"


def _ids(command: int) -> Iterator[str]:
    """Ids of what is loaded into the kernel: bpf(2), BPF_..._GET_NEXT_ID."""
    attribute = (ctypes.c_uint32 * 32)()  # union bpf_attr: start_id, next_id, open_flags
    number = _BPF[platform.machine()]
    while _libc.syscall(number, command, ctypes.byref(attribute), ctypes.sizeof(attribute)) == 0:
        attribute[0] = attribute[1]
        yield str(attribute[0])
    if (error := ctypes.get_errno()) != errno.ENOENT:  # that there is no more
        raise OSError(error, f"bpf({command}): {os.strerror(error)}")
