"""By which queue of its NIC a guest's kernel has got a packet."""

from __future__ import annotations

import select

from testbed.namespaces import in_netns
from testbed.switch.uplink import Uplink

SECONDS = 5.0


class GuestQueues:
    """Listens on a TAP device with packet sockets, each of which gets the frames of one queue."""

    def __init__(self, netns: int, interface: str, count: int) -> None:
        with in_netns(netns):
            self._sockets = Uplink(interface, bytes(6), queues=count)
        # A fan-out's members are numbered from 0, the queues of received frames from 1.
        self._queues = {
            queue.socket.fileno(): ((queue.number - 1) % count, queue.socket)
            for queue in self._sockets.queues
        }

    def of(self, payload: bytes) -> int:
        """The queue of the first frame from now on that ends with ``payload``; -1: none has come."""
        while ready := select.select([*self._queues], [], [], SECONDS)[0]:
            number, sock = self._queues[ready[0]]
            if sock.recv(1 << 17).endswith(payload):
                return number
        return -1

    def __enter__(self) -> GuestQueues:
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.close()
