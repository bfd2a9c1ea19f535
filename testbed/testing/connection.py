"""A TCP connection between two VMs that lives on while something happens to the network."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from testbed.namespaces import in_netns

if TYPE_CHECKING:
    from testbed.testing.vm import Vm

SECONDS = 15.0
_BLOCK = 1 << 16


class Connection:
    """Both ends, in the kernels of the two VMs."""

    def __init__(self, client: socket.socket, server: socket.socket, what: str) -> None:
        self._ends = client, server
        self._what = what
        for end in self._ends:
            end.setblocking(False)

    def exchange(self, size: int = 100_000, seconds: float = SECONDS) -> None:
        """So many bytes go each way. Raises AssertionError when they don't arrive as they were sent."""
        client, server = self._ends
        for one, other in ((client, server), (server, client)):
            data = os.urandom(size)
            got = _pump(one, other, data, seconds)
            assert len(got) == size, f"{self._what}: {len(got)} of {size} bytes came within {seconds:g} s"
            assert got == data, f"{self._what}: what came is not what was sent"


@contextlib.contextmanager
def connected(one: Vm, other: Vm, version: int = 4) -> Iterator[Connection]:
    """A connection from ``one``'s kernel to ``other``'s, for the ``with`` block."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with in_netns(other.netns):
        listener = socket.create_server((other.address(version), 0), family=family)
    with in_netns(one.netns):
        client = socket.socket(family, socket.SOCK_STREAM)
    with client:
        with listener:
            client.settimeout(SECONDS)
            listener.settimeout(SECONDS)
            client.connect(listener.getsockname()[:2])
            server, _ = listener.accept()
        with server:
            yield Connection(client, server, f"a connection of {one} to {other}")


def _pump(one: socket.socket, other: socket.socket, data: bytes, seconds: float) -> bytes:
    got, left = bytearray(), memoryview(data)
    deadline = time.monotonic() + seconds
    while len(got) < len(data) and (now := time.monotonic()) < deadline:
        readable, writable, _ = select.select([other], [one] if left else [], [], deadline - now)
        if writable:
            left = left[one.send(left[:_BLOCK]) :]
        if readable:
            some = other.recv(1 << 20)
            if not some:
                break
            got += some
    return bytes(got)
