"""Loopback messages on the cables of a team: the switch's port sends them back (``testbed/nic/bpf/echo.c``).

They come from an address of their own, the NIC's with the bit of local administration turned over, so that
no switch learns anything from them. The same socket hears the slow protocols (LACP).
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import Callable

ETHERTYPE = 0x88B5  # for local experiments (IEEE 802)
SLOW_PROTOCOLS = 0x8809  # IEEE 802.3 annex 57A
MAGIC = 0x7E57BED5
_TO_SWITCH = b"\x02\x7e\x57\xbe\xd5\x00"
_SHORTEST = 60
_BODY = struct.Struct("!HIId")  # type, magic, number, time of sending
_SOL_PACKET, _PACKET_IGNORE_OUTGOING, _SO_ATTACH_FILTER = 263, 23, 26
_ETH_P_ALL = 3
_LD_HALF, _JUMP_EQUAL, _RETURN = 0x28, 0x15, 0x06
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
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self._open(nic)
        except BaseException:
            self._socket.close()
            raise
        loop.add_reader(self._socket, self._receive)

    def _open(self, nic: str) -> None:
        program = (
            (_LD_HALF, 0, 0, 12),
            (_JUMP_EQUAL, 1, 0, ETHERTYPE),
            (_JUMP_EQUAL, 0, 1, SLOW_PROTOCOLS),
            (_RETURN, 0, 0, 1 << 16),
            (_RETURN, 0, 0, 0),
        )
        code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
        kept = ctypes.create_string_buffer(code, len(code))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._socket.setblocking(False)
        self._socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(kept))
        )
        self._socket.bind((nic, _ETH_P_ALL))

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
