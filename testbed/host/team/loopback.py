"""Loopback messages on the cables of a team: the switch's port sends them back (``testbed/nic/bpf/echo.c``).

They come from an address of their own, the NIC's with the bit of local administration turned over, so that
no switch learns anything from them. The same socket hears the slow protocols (LACP).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

from testbed.socketfilter import JUMP_EQUAL, LD_HALF, RETURN, open_at

ETHERTYPE = 0x88B5  # for local experiments (IEEE 802)
SLOW_PROTOCOLS = 0x8809  # IEEE 802.3 annex 57A
MAGIC = 0x7E57BED5
_TO_SWITCH = b"\x02\x7e\x57\xbe\xd5\x00"
_SHORTEST = 60
_BODY = struct.Struct("!HIId")  # type, magic, number, time of sending
_FILTER = (
    (LD_HALF, 0, 0, 12),
    (JUMP_EQUAL, 1, 0, ETHERTYPE),
    (JUMP_EQUAL, 0, 1, SLOW_PROTOCOLS),
    (RETURN, 0, 0, 1 << 16),
    (RETURN, 0, 0, 0),
)
_BATCH = 32


class LoopbackSocket:
    """On one NIC. ``answered(seconds)``: a message came back; ``slow(frame)``: a frame of a slow protocol."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        nic: str,
        mac: bytes,
        answered: Callable[[float], None],
        slow: Callable[[bytes], None],
    ) -> None:
        self._loop, self._answered, self._slow = loop, answered, slow
        self.mac = bytes((mac[0] ^ 2,)) + mac[1:]
        self._number = 0
        self._pending = False
        self._socket = open_at(nic, _FILTER)
        loop.add_reader(self._socket, self._receive)

    def ask(self) -> bool:
        """Send a message; whether the one before has come back."""
        came_back = not self._pending
        self._number += 1
        self._pending = True
        body = _BODY.pack(ETHERTYPE, MAGIC, self._number & 0xFFFFFFFF, self._loop.time())
        self.send((_TO_SWITCH + self.mac + body).ljust(_SHORTEST, b"\0"))
        return came_back

    def send(self, frame: bytes) -> bool:
        """Whether a frame has left."""
        try:
            self._socket.send(frame)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Leave the NIC."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _receive(self) -> None:
        for _ in range(_BATCH):
            try:
                frame = self._socket.recv(1 << 16)
            except OSError:
                return
            if frame[12:14] == b"\x88\x09":
                self._slow(frame)
            elif frame[:6] == self.mac and len(frame) >= 12 + _BODY.size:
                _, magic, number, sent = _BODY.unpack_from(frame, 12)
                if magic == MAGIC and number == self._number & 0xFFFFFFFF:
                    self._pending = False
                    self._answered(max(0.0, self._loop.time() - sent))
