"""What a VM's adapter takes over for the VM's own stack; supported and enabled are two things, as of a NIC.

``lso``, ``tx-checksum``: what the guest may leave to it. ``rx-checksum``: the guest is handed packets whose
checksums are open or vouched for; without it each has a complete one, for the guest to verify. ``rsc``: the
guest is handed super-packets. Since those have open checksums, ``lso`` needs ``tx-checksum`` to be in use,
and ``rsc`` needs ``rx-checksum``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias, cast, get_args

from msgspec import Struct

from testbed.errors import BadInput

GuestTask: TypeAlias = Literal["lso", "tx-checksum", "rx-checksum", "rsc"]
GUEST_TASKS: tuple[GuestTask, ...] = get_args(GuestTask)


class GuestTasks(NamedTuple):
    """The tasks in use."""

    lso: bool
    tx_checksum: bool
    rx_checksum: bool
    rsc: bool


class GuestOffloads(Struct, frozen=True):
    """An adapter's tasks by name, in the order of GUEST_TASKS. Everything enabled is supported."""

    supported: tuple[GuestTask, ...] = GUEST_TASKS
    enabled: tuple[GuestTask, ...] = GUEST_TASKS

    @property
    def in_use(self) -> GuestTasks:
        """What is enabled and has what it needs."""
        return _in_use(self.enabled)

    @property
    def possible(self) -> GuestTasks:
        """What would be in use if all that is supported was enabled."""
        return _in_use(self.supported)

    def changed(self, wanted: Mapping[str, bool]) -> GuestOffloads:
        """With some tasks switched. Raises BadInput: unknown, not supported."""
        for task, on in wanted.items():
            if task not in GUEST_TASKS:
                raise BadInput(f"unknown offload {task!r} of a VM's adapter: one of {', '.join(GUEST_TASKS)}")
            if on and task not in self.supported:
                raise BadInput(f"the adapter does not support {task}: say `supports: {{{task}: on}}`")
        enabled = (task for task in GUEST_TASKS if wanted.get(task, task in self.enabled))
        return GuestOffloads(self.supported, tuple(enabled))


def _in_use(tasks: tuple[GuestTask, ...]) -> GuestTasks:
    sends, receives = "tx-checksum" in tasks, "rx-checksum" in tasks
    return GuestTasks(sends and "lso" in tasks, sends, receives, receives and "rsc" in tasks)


def of_vnic(supports: Mapping[GuestTask, bool], offloads: Mapping[GuestTask, bool]) -> GuestOffloads:
    """An adapter that supports and has enabled everything but what is said. Raises BadInput."""
    able = tuple(task for task in GUEST_TASKS if supports.get(task, True))
    return GuestOffloads(able, able).changed(cast("Mapping[str, bool]", offloads))
