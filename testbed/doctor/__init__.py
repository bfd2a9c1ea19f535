"""What this machine has and lacks for labs. Everything is tried, in a network namespace of its own.

Nothing stays: links and queues end with the unnamed namespace, the state folder is tried with a
file that never gets a name. The one thing not tried is to load a module that would put devices
into the root network namespace.
"""

from __future__ import annotations

from testbed.doctor import kernel, machine
from testbed.doctor.finding import Finding

__all__ = ["Finding", "examine"]


def examine() -> list[Finding]:
    """Try everything; takes about half a second. Needs root to find more than that it is missing."""
    return [
        *machine.rights(),
        *kernel.features(),
        *machine.libraries(),
        *machine.programs(),
        *machine.engines(),
        *machine.resources(),
    ]
