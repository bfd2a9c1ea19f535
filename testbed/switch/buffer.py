"""The one packet buffer of a worker, laid out so that no payload byte is ever copied in Python.

::

    0        10                    52            64
    | vnet 10 | outer headers 42    | inner MACs  | rest of the inner frame ...      from a VM
    | vnet 10 | received frame ...                                                    from a NIC

A VM's packet is read around the gap for the outer headers; an NVGRE frame is decapsulated by
writing a new vnet header over the last 10 outer bytes. ``end`` everywhere is the offset behind
the last byte.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeAlias

from testbed.packets.nvgre import OUTER

VNET = 10  # struct virtio_net_hdr (linux/virtio_net.h)
WIRE = VNET  # where a received frame, or the outer header, starts
INNER = VNET + OUTER  # where a VM's frame starts
SIZE = 1 << 17

# flags, gso_type (u8); hdr_len, gso_size, csum_start, csum_offset (u16, this machine's byte order)
VNET_HEADER = struct.Struct("=BBHHHH")
NEEDS_CSUM = 1
GSO_NONE = 0

Action: TypeAlias = Callable[[int], None]
Flows: TypeAlias = dict[tuple[object, ...], Action]


class FrameBuffer:
    """The buffer and the views that the hot path uses."""

    __slots__ = ("data", "from_vm", "view", "vnet")

    def __init__(self) -> None:
        self.data = bytearray(SIZE)
        self.view = memoryview(self.data)
        self.vnet = self.view[:VNET]
        self.from_vm = [self.vnet, self.view[INNER:]]  # for readv on a TAP queue

    def store(self, start: int, end: int) -> tuple[bytes, bytes]:
        """Copies of the vnet header and of the frame, for a packet that has to wait."""
        return bytes(self.vnet), bytes(self.view[start:end])

    def restore(self, start: int, vnet: bytes, frame: bytes) -> int:
        """Put a stored packet back; its end."""
        end = start + len(frame)
        self.vnet[:] = vnet
        self.view[start:end] = frame
        return end
