"""A point inside of a host's switch: its worker sends copies of packets (:mod:`testbed.switch.tap`)."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping

from testbed.capture import bpf, pcapng
from testbed.capture.bpf import Program
from testbed.capture.records import Record, super_packet
from testbed.capture.source import LARGEST, RECEIVE_BYTES, Reader
from testbed.switch.tap import HEADER

_SO_SNDBUFFORCE = 32


class SwitchSource(Reader):
    """``theirs`` is the descriptor for the worker: pass it on, then call ``passed``.

    ask: what the worker has seen at this point, and what it has lost because nobody read in time.
    """

    def __init__(
        self, number: int, name: str, program: Program, ask: Callable[[], Mapping[str, int]]
    ) -> None:
        super().__init__(number, name)
        self._ask = ask
        self._buffer = bytearray(LARGEST + HEADER.size)
        self._view = memoryview(self._buffer)
        self.socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.setblocking(False)
        self._theirs.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, RECEIVE_BYTES)
        bpf.attach(self.socket, bpf.shifted(program, HEADER.size))

    @property
    def theirs(self) -> int:
        """The worker's end."""
        return self._theirs.fileno()

    def passed(self) -> None:
        """The worker has its end."""
        self._theirs.close()

    def read(self, limit: int) -> Iterator[Record]:
        """Up to ``limit`` packets, as they came."""
        for _ in range(limit):
            before = time.time_ns()
            try:
                size = self.socket.recv_into(self._buffer)
            except BlockingIOError:
                self.read_until = before
                return
            except OSError as error:
                self.ended = error.strerror or "gone"
                return
            if not size:
                self.ended = "its host has ended"
                return
            yield self._record(size)

    def _record(self, size: int) -> Record:
        when, kept, length, outbound, vnet = HEADER.unpack_from(self._buffer)
        end = HEADER.size + kept
        data = bytes(self._view[HEADER.size : end])
        comments = tuple(bytes(self._view[end:size]).decode().splitlines())
        if vnet[1] and (comment := super_packet(vnet, data, length)):
            comments += (comment,)
        return Record(
            when, self.number, data, length, pcapng.OUTBOUND if outbound else pcapng.INBOUND, comments
        )

    def count(self) -> None:
        """Ask the worker, as long as its host lives."""
        told = self._ask()
        self.received, self.lost = told.get("seen", self.received), told.get("lost", self.lost)

    def close(self) -> None:
        """No more packets: the worker notices, and has its own pipeline back."""
        super().close()
        self._theirs.close()
