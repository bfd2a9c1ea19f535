"""The cables of a host's NICs, as far as they are faulty: settings, programs' memory, user-space wire."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import msgspec

from testbed.channel import Channel, Message, pair
from testbed.errors import BadInput
from testbed.nic.faults import WAYS, FaultMemory, Faults, Way


class Cables:
    """By the names of their NICs. A cable has programs once it has had a fault that needs them."""

    def __init__(self) -> None:
        self._faults: dict[tuple[str, Way], Faults] = {}
        self._memories: dict[str, FaultMemory] = {}
        self._lines: dict[tuple[str, Way], int] = {}  # descriptors of TAP devices that no wire reads yet
        self._in_wire: set[tuple[str, Way]] = set()
        self._wire: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def install(self, message: Message, descriptors: Sequence[int]) -> None:
        """The programs of a cable are there: descriptors of their memory and of a TAP device for each way."""
        name = message["name"]
        self.remove(name)
        self._memories[name] = FaultMemory(descriptors[0], message["port"], message["wires"])
        for way, descriptor in zip(WAYS, descriptors[1:], strict=True):
            self._lines[name, way] = os.dup(descriptor)

    def set(self, name: str, way: Way, faults: Faults) -> None:
        """Make a direction faulty; its rate is kept here for whoever asks. Raises BadInput."""
        memory = self._memories.get(name)
        if memory is None and faults.in_programs:
            raise BadInput(f"the cable of {name} has no programs: they are installed first")
        if faults.held or (name, way) in self._in_wire:
            self._hold(name, way, faults)
        if memory is not None:
            memory.write(way, faults)
        self._faults[name, way] = faults

    def describe(self, names: Sequence[str]) -> list[Message]:
        """What is set of each NIC's cable, and what has happened on it."""
        held = self._wire.call("counters")[0]["counters"] if self._wire else {}
        return [
            {
                "nic": name,
                "has_programs": name in self._memories,
                "ways": {
                    way: {
                        **msgspec.to_builtins(self._faults.get((name, way), Faults())),
                        "counters": {
                            **(self._memories[name].counters(way) if name in self._memories else {}),
                            **held.get(f"{name} {way}", {}),
                        },
                    }
                    for way in WAYS
                },
            }
            for name in names
        ]

    def remove(self, name: str) -> None:
        """A NIC is gone, or gets another cable."""
        if memory := self._memories.pop(name, None):
            memory.close()
        for way in WAYS:
            self._faults.pop((name, way), None)
            if (descriptor := self._lines.pop((name, way), None)) is not None:
                os.close(descriptor)
            if self._wire and (name, way) in self._in_wire:
                self._wire.call("remove", name=f"{name} {way}")
                self._in_wire.discard((name, way))

    def processes(self) -> list[Message]:
        """The process of the wire, if there is one."""
        return [{"pid": self._process.pid, "role": "wire"}] if self._process else []

    def close(self) -> None:
        """The host ends, and with it the wire."""
        if self._wire and self._process:
            self._wire.close()
            self._process.wait(5)

    def _hold(self, name: str, way: Way, faults: Faults) -> None:
        wire = self._wire or self._start()
        if (descriptor := self._lines.pop((name, way), None)) is not None:
            wire.call("add", [descriptor], name=f"{name} {way}")
            os.close(descriptor)
            self._in_wire.add((name, way))
        settings = {key: getattr(faults, key) for key in ("delay", "jitter", "reordering", "seed")}
        wire.call("set", name=f"{name} {way}", **settings)

    def _start(self) -> Channel:
        ours, theirs = pair()
        descriptor = theirs.socket.fileno()
        command = [sys.executable, "-m", "testbed.nic.wire", str(descriptor)]
        self._process = subprocess.Popen(command, pass_fds=[descriptor], stdin=subprocess.DEVNULL)
        theirs.close()
        self._wire = ours
        return ours
