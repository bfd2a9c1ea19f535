"""Where nodes live: the interface of an engine.

An engine starts and ends nodes and opens them; it knows nothing of links or addresses.
Everything else (wiring, exec, check) works on the namespace handles that an engine opens,
so it is the same for every engine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct

Role = Literal["host", "vm", "vmm", "fabric"]
DISKS = "/run/shared-disk"  # where a VM finds its shared disk
STATEFUL = ("host", "vmm")  # roles whose nodes have a folder of their own


class NodeSpec(Struct, frozen=True):
    """A node to start. state_dir: folder of the node's own files (its control socket).

    announce: a VM that tells the network of its addresses. disk: a file that the VM has at DISKS/NAME.
    """

    name: str
    role: Role
    state_dir: str
    image: str | None = None
    command: tuple[str, ...] | None = None
    announce: bool = False
    disk: str | None = None


class LabRef(Struct, frozen=True):
    """What an engine needs to know of a lab. id: 12 random hex digits, part of every label."""

    id: str
    name: str
    directory: Path


class Node:
    """An opened node: a pidfd of its first process, and that process's id as seen from here."""

    def __init__(self, name: str, pidfd: int, pid: int, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.pidfd = pidfd
        self.pid = pid
        self.env = env  # environment for commands in the node; None: the caller's own

    def close(self) -> None:
        """Close the handle; the node lives on."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Engine(Protocol):
    """The engine of a lab. Every call has a deadline; errors are LabError or MachineLacks."""

    name: str

    def start(self, lab: LabRef, nodes: Sequence[NodeSpec]) -> None:
        """Start nodes of a lab, all at once. May be called again on a running lab to add nodes."""

    def stop(self, lab: LabRef, names: Sequence[str]) -> None:
        """End some nodes; unknown names are no error."""

    def destroy(self, lab: LabRef) -> None:
        """End everything of the lab. Idempotent; works on what a dead ``up`` left."""

    def open(self, lab: LabRef, name: str) -> Node:
        """Open a running node. Raises LabError when it does not run (with its last log lines)."""

    def close(self) -> None:
        """Give up what this process has open of labs; they live on, and can be opened again."""

    def commit(self, lab: LabRef) -> None:
        """The lab is complete: from now on it outlives the process that started it."""

    def alive(self, lab: LabRef) -> bool:
        """Whether anything of the lab is running."""

    def logs(self, lab: LabRef, name: str, follow: bool) -> Iterator[bytes]:
        """A node's log in pieces, oldest first; with ``follow`` until the node ends."""
