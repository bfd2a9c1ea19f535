"""What a test may not leave on the machine, found without the product's help.

Tests run side by side, so only what carries this test's own marks counts: processes that descend
from this one (it is their subreaper: orphans come back to it), whatever names the test's folder
(command line, environment, working directory, mounts, containers), descriptors of this process.
The root network namespace is nobody's: it must not change at all.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETTLE_SECONDS = 10.0  # the kernel ends namespaces in its own time
_NAMES = "/run/netns"
_PR_SET_CHILD_SUBREAPER = 36
# what the kernel or a clock changes by itself
_VOLATILE = {"valid_life_time", "preferred_life_time", "operstate", "flags", "stats64", "tentative"}


@dataclass(frozen=True)
class Snapshot:
    """What was there before a test. children: live descendants of this process."""

    children: frozenset[int]
    namespaces: frozenset[str]
    root_network: str
    named_namespaces: frozenset[str]


def become_subreaper() -> None:
    """From now on orphaned descendants of this process become its children."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER)")


def snapshot() -> Snapshot:
    """The state of now."""
    return Snapshot(frozenset(_descendants()), _own_namespaces(), root_network(), _named_namespaces())


def leaks(before: Snapshot, folder: Path) -> list[str]:
    """What has been left since ``before`` by a test whose files are under ``folder``; waits for it to go."""
    return settled(lambda: _leaks(before, folder))


def settled(find: Callable[[], list[str]], seconds: float = SETTLE_SECONDS) -> list[str]:
    """What is still found after so many seconds; nothing as soon as nothing is."""
    end = time.monotonic() + seconds
    while (found := find()) and time.monotonic() < end:
        time.sleep(0.05)  # a poll with a deadline
    return found


def _leaks(before: Snapshot, folder: Path) -> list[str]:
    found = [f"process {pid} is left: {describe(pid)}" for pid in sorted(_descendants() - before.children)]
    found += _traces(folder, before.children)
    found += [f"container {name} is left" for name in containers(folder)]
    found += [
        f"namespace {name} is held by a descriptor of this process"
        for name in _own_namespaces() - before.namespaces
    ]
    found += [
        f"namespace {name} has a name in {_NAMES}" for name in _named_namespaces() - before.named_namespaces
    ]
    if (now := root_network()) != before.root_network:
        found.append(f"the root network namespace has changed:\n{before.root_network}\n->\n{now}")
    return found


# ---- processes ----------------------------------------------------------------------------


def _descendants() -> set[int]:
    """Live processes below this one, in all PID namespaces below; reaps orphans that have ended."""
    parents: dict[int, int] = {}
    ended = []
    for pid in _processes():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] == "Z":
            ended.append((pid, int(fields[1])))
        else:
            parents[pid] = int(fields[1])
    for pid, parent in ended:
        if parent == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    below: set[int] = set()
    grown = {os.getpid()}
    while grown:
        grown = {pid for pid, parent in parents.items() if parent in grown}
        below |= grown
    return below


def _processes() -> Iterator[int]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            yield int(entry.name)


def describe(pid: int) -> str:
    """A process in words."""
    try:
        words = (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        )
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()} ({words})"
    except OSError:
        return "has ended"


def _traces(folder: Path, known: frozenset[int]) -> list[str]:
    """Processes and mounts, of anybody, that name the folder."""
    mark = os.fsencode(folder)
    found = []
    mounts_seen: set[str] = set()
    for pid in _processes():
        if pid == os.getpid() or pid in known:
            continue
        try:
            mounts = os.readlink(f"/proc/{pid}/ns/mnt")
            found += [
                f"process {pid} names {folder} in its {place}: {describe(pid)}"
                for place in ("cmdline", "environ")
                if mark in Path(f"/proc/{pid}/{place}").read_bytes()
            ]
            if os.readlink(f"/proc/{pid}/cwd").startswith(str(folder)):
                found.append(f"process {pid} is in {folder}: {describe(pid)}")
            if mounts not in mounts_seen:
                mounts_seen.add(mounts)
                if mark in Path(f"/proc/{pid}/mountinfo").read_bytes():
                    found.append(f"a mount of process {pid} names {folder}: {describe(pid)}")
        except OSError:
            continue  # it has ended
    if mark in Path("/proc/self/mountinfo").read_bytes():
        found.append(f"a mount names {folder}")
    return found


# ---- networks -----------------------------------------------------------------------------


def root_network() -> str:
    """Links and addresses of the network namespace that the tests run in."""
    listed = subprocess.run(["ip", "-j", "address"], capture_output=True, check=True, timeout=20).stdout
    links = [
        {
            **{key: value for key, value in link.items() if key not in _VOLATILE and key != "addr_info"},
            "addresses": sorted(
                f"{entry['local']}/{entry['prefixlen']}" for entry in link["addr_info"] if "local" in entry
            ),
        }
        for link in json.loads(listed)
        if link
    ]
    return "\n".join(json.dumps(link, sort_keys=True) for link in links)


def _named_namespaces() -> frozenset[str]:
    with contextlib.suppress(FileNotFoundError):
        return frozenset(os.listdir(_NAMES))
    return frozenset()


def _own_namespaces() -> frozenset[str]:
    """Namespaces that descriptors of this process hold."""
    found = set()
    for entry in os.scandir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(entry.path)
            if target.startswith(("net:[", "mnt:[", "pid:[")):
                found.add(target)
    return frozenset(found)


# ---- containers ---------------------------------------------------------------------------


def containers(folder: Path) -> list[str]:
    """Names of the containers, running or not, whose label says that they belong below ``folder``."""
    return [
        entry["Names"][0]
        for entry in _labelled()
        if Path(entry["Labels"]["testbed.state"]).is_relative_to(folder)
    ]


def remove_containers(folder: Path) -> None:
    """Remove them, so that one failing test does not fail the next."""
    if client := _docker():
        for name in containers(folder):
            client.remove_container(name, force=True, v=True)


def docker_objects() -> dict[str, set[str]]:
    """All containers, networks and volumes of the Docker Engine, by kind; nothing where there is none."""
    client = _docker()
    if client is None:
        return {}
    return {
        "container": {each["Names"][0] for each in client.containers(all=True)},
        "docker network": {each["Name"] for each in client.networks()},
        "docker volume": {each["Name"] for each in client.volumes()["Volumes"] or ()},
    }


def _labelled() -> list[dict[str, Any]]:
    client = _docker()
    if client is None:
        return []
    found: list[dict[str, Any]] = client.containers(all=True, filters={"label": "testbed.state"})
    return found


@functools.cache
def _docker() -> Any:
    """A client, or None where there is no Docker Engine."""
    import docker

    if not Path("/var/run/docker.sock").exists():
        return None
    try:
        return docker.APIClient("unix:///var/run/docker.sock", version="auto", timeout=30)
    except docker.errors.DockerException:
        return None
