"""The fingerprint of this machine and of this testbed."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

import testbed
from testbed.results.model import Fingerprint, Setting

_SOURCE = Path(testbed.__file__).parent.parent
_GIT_SECONDS = 10.0


def fingerprint(
    topology: str, topology_hash: str, settings: dict[str, Setting], packages: Iterable[str] = ()
) -> Fingerprint:
    """The environment as it is now. packages: distributions that take part, whose versions are told."""
    commit = _commit()
    return Fingerprint(
        kernel=platform.release(),
        architecture=platform.machine(),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        python=platform.python_version(),
        version=testbed.__version__,
        commit=commit.name,
        commit_time=commit.time,
        modified=commit.modified,
        topology=topology,
        topology_hash=topology_hash,
        settings=settings,
        tools={name: importlib.metadata.version(name) for name in packages},
    )


def digest(plan: Struct) -> str:
    """A hash over what a Plan decides.

    Its name does not count, nor what is at its default: so a key that a newer version adds leaves the
    hashes of the labs that don't use it as they are.
    """
    chosen = _chosen(plan)
    chosen.pop("name", None)
    return hashlib.sha256(msgspec.json.encode(chosen, order="sorted")).hexdigest()[:16]


def _chosen(value: Any) -> Any:
    if isinstance(value, Struct):
        return {
            field.name: _chosen(now)
            for field in msgspec.structs.fields(value)
            if (now := getattr(value, field.name)) != _default(field)
        }
    if isinstance(value, dict):
        return {str(key): _chosen(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_chosen(each) for each in value]
    return value


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _cpu() -> str:
    """The model's name; where the kernel tells none, the architecture."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model") and value.strip():
                return value.strip()
    return platform.machine()


class _Commit(NamedTuple):
    name: str = ""
    time: float = 0.0
    modified: bool = False


def _commit() -> _Commit:
    """Of the checkout that runs; nothing where it is none, or where git is not installed."""
    if not (_SOURCE / ".git").exists():
        return _Commit()
    try:
        name, seconds = _git("log", "-1", "--format=%H %ct").split()
        return _Commit(name, float(seconds), bool(_git("status", "--porcelain", "--untracked-files=no")))
    except (OSError, ValueError, subprocess.SubprocessError):
        return _Commit()


def _git(*words: str) -> str:
    # the checkout is often another user's than root, who runs labs
    command = ["git", "-c", f"safe.directory={_SOURCE}", "-C", str(_SOURCE), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True)
    return done.stdout.strip()
