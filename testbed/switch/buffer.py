"""The one packet buffer of a worker, laid out so that no payload byte is ever copied in Python.

::

    0        10       20       30                 72            84
    |        |        | vnet   | (outer IPv4, 42) | inner MACs  | rest of the frame ...   from a VM
    | (vnet) | (outer IPv6, 62)                   | inner MACs  | rest of the frame ...   ... over IPv6
    |        |        | vnet   | received frame ...                                      from a NIC

A VM's packet is read around the gap for the outer headers. Those over IPv4 fit behind the vnet header
as it was read; for those over IPv6 it is copied to the start. An NVGRE frame is decapsulated by
writing a new vnet header over its last 10 outer bytes. ``end`` everywhere is the offset behind
the last byte.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeAlias

from testbed.packets import ethernet
from testbed.packets.malformed import MalformedFrame
from testbed.packets.nvgre import OUTER_IPV4, OUTER_IPV6

VNET = 10  # bytes of struct virtio_net_hdr (linux/virtio_net.h)
INNER = VNET + OUTER_IPV6  # where a VM's frame starts
WIRE = INNER - OUTER_IPV4  # where a received frame, or the outer header over IPv4, starts
WIRE_IPV6 = INNER - OUTER_IPV6  # where the outer header over IPv6 starts
READ = WIRE - VNET  # where the vnet header is read to
SIZE = 1 << 17

# flags, gso_type (u8); hdr_len, gso_size, csum_start, csum_offset (u16, this machine's byte order)
VNET_HEADER = struct.Struct("=BBHHHH")
NEEDS_CSUM = 1
GSO_NONE = 0

Action: TypeAlias = Callable[[int], None]
Flows: TypeAlias = "dict[tuple[object, ...] | None, Action]"  # no key is None: asking for it finds nothing


class FrameBuffer:
    """The buffer and the views that the hot path uses."""

    __slots__ = ("data", "from_vm", "from_wire", "view", "vnet")

    def __init__(self) -> None:
        self.data = bytearray(SIZE)
        self.view = memoryview(self.data)
        self.vnet = self.view[READ:WIRE]
        self.from_vm = [self.vnet, self.view[INNER:]]  # for readv on a TAP queue
        self.from_wire = self.view[READ:]  # for recv_into on a packet socket

    def store(self, start: int, end: int) -> tuple[bytes, bytes]:
        """Copies of the vnet header and of the frame, for a packet that has to wait."""
        return bytes(self.vnet), bytes(self.view[start:end])

    def restore(self, start: int, vnet: bytes, frame: bytes) -> int:
        """Put a stored packet back; its end."""
        end = start + len(frame)
        self.vnet[:] = vnet
        self.view[start:end] = frame
        return end

    def untag(self, end: int) -> int:
        """Take all VLAN tags out of a VM's frame; its new end (RFC 7637 section 3.3: none goes inside)."""
        data, view, at = self.data, self.view, INNER + 12
        while at + 2 <= end and data[at] << 8 | data[at + 1] in ethernet.TAGS:
            at += 4
        if at + 2 > end:
            raise MalformedFrame("VLAN tag truncated")
        gone = at - INNER - 12
        flags, gso_type, header, gso_size, start, offset = VNET_HEADER.unpack_from(data, READ)
        if flags & NEEDS_CSUM:
            if start < gone + ethernet.HEADER:
                raise MalformedFrame("a checksum that covers VLAN tags")
            VNET_HEADER.pack_into(
                data, READ, flags, gso_type, max(header - gone, 0), gso_size, start - gone, offset
            )
        view[INNER + 12 : end - gone] = view[at:end]
        return end - gone
