"""A user-space wire: a process that holds the frames of cables back, for those that have a delay.

``python -m testbed.nic.wire DESCRIPTOR``: of its end of a channel. Frames come out of TAP devices, one
for each direction of a cable, and go back into them when their time has come (``bpf/faults.c`` does the
rest). Orders: ``add`` (name, with the device's descriptor), ``set`` (name, delay, jitter, reordering, seed),
``remove`` (name), ``counters``. It ends with the channel.
"""

from __future__ import annotations

import heapq
import os
import random
import select
import socket
import sys
import time

from testbed.channel import Channel, Message
from testbed.processes import name_process

HELD_MAX = 10_000  # frames that a direction may hold; more are lost, as in a switch whose buffer is full
_BATCH = 64
_LONGEST = 65_600


class Line:
    """One direction of a cable. ``descriptor``: of its TAP device, without packet information."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        os.set_blocking(descriptor, False)
        self.set({"delay": 0.0, "jitter": 0.0, "reordering": 0.0, "seed": 1})
        self.held = 0
        self.counters = {"delayed": 0, "reordered": 0, "overrun": 0}
        self._last = 0.0

    def set(self, settings: Message) -> None:
        """delay, jitter: seconds; reordering: part of the frames. Chances begin anew."""
        self._delay, self._jitter = settings["delay"], settings["jitter"]
        self._reordering = settings["reordering"]
        self._dice = random.Random(settings["seed"])

    def due(self, now: float) -> float | None:
        """When a frame that comes now may go on; None: there is no room for it."""
        varied, overtakes = self._dice.uniform(-1, 1), self._dice.random() < self._reordering
        if self.held >= HELD_MAX:
            self.counters["overrun"] += 1
            return None
        if overtakes:
            self.counters["reordered"] += 1
            return now
        self.counters["delayed"] += 1
        self._last = max(self._last, now + self._delay + varied * self._jitter)
        return self._last


class Wires:
    """All lines of a host's cables."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lines: dict[str, Line] = {}
        self._by_descriptor: dict[int, Line] = {}
        self._held: list[tuple[float, int, Line, bytes]] = []
        self._sequence = 0

    def run(self) -> None:
        """The loop; returns when the channel is closed."""
        channel = self._channel.socket.fileno()
        while True:
            # select, for its time-outs are exact to a microsecond; those of epoll to a millisecond
            ready, _, _ = select.select([channel, *self._by_descriptor], [], [], self._patience())
            for descriptor in ready:
                if line := self._by_descriptor.get(descriptor):
                    self._take(line)
                elif descriptor == channel and not self._order():
                    return
            self._let_go()

    def _patience(self) -> float | None:
        return max(0.0, self._held[0][0] - time.monotonic()) if self._held else None

    def _take(self, line: Line) -> None:
        for _ in range(_BATCH):
            try:
                frame = os.read(line.descriptor, _LONGEST)
            except BlockingIOError:
                return
            except OSError:  # the cable is gone
                self._forget(line)
                return
            due = line.due(time.monotonic())
            if due is not None:
                line.held += 1
                self._sequence += 1
                heapq.heappush(self._held, (due, self._sequence, line, frame))

    def _forget(self, line: Line) -> None:
        if self._by_descriptor.pop(line.descriptor, None):
            os.close(line.descriptor)
            line.descriptor = -1

    def _let_go(self) -> None:
        now = time.monotonic()
        while self._held and self._held[0][0] <= now:
            _, _, line, frame = heapq.heappop(self._held)
            line.held -= 1
            try:
                os.write(line.descriptor, frame)
            except OSError:  # the cable is gone
                line.counters["overrun"] += 1

    def _order(self) -> bool:
        received = self._channel.receive()
        if received is None:
            return False
        message, descriptors = received
        answer: Message = {}
        if message["op"] == "add":
            line = Line(descriptors[0])
            self._lines[message["name"]] = self._by_descriptor[line.descriptor] = line
        elif message["op"] == "remove":
            self._forget(self._lines.pop(message["name"]))
        elif message["op"] == "set":
            self._lines[message["name"]].set(message)
        else:
            answer = {"counters": {name: line.counters for name, line in self._lines.items()}}
        self._channel.send(answer)
        return True


def main() -> None:
    """Run on the channel whose descriptor is the only argument."""
    name_process("tb-wire")
    Wires(Channel(socket.socket(fileno=int(sys.argv[1])))).run()


if __name__ == "__main__":
    main()
