"""What a VM's adapter does not take over on the receive side, the switch does before it hands a packet over.

An adapter without ``rsc`` is given no super-packets: they are cut into the frames that they stand for. One
without ``rx-checksum`` verifies by itself, so that each packet needs a complete checksum and nobody's word
for it. An adapter with both has no such action in its flows. Super-packets come from the wire, where a NIC
has joined frames, and from other VMs of the host, which hand theirs over as they are.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from testbed.packets.checksum import ones_sum
from testbed.switch.buffer import INNER, NEEDS_CSUM, READ, VNET, VNET_HEADER, Action, FrameBuffer
from testbed.switch.drops import Drop, DropCounts, count
from testbed.switch.pipeline import PORT
from testbed.switch.port import Port, PortQueue
from testbed.switch.segmentation import ALL_IDS, LSO_IDS, Segments, cut_of

_NO_OFFLOAD = bytes(VNET)
_UDP_CHECKSUM, _TCP_CHECKSUM = 6, 16  # where they are in their headers
_pack_u16 = struct.Struct("!H").pack_into


class Layout(NamedTuple):
    """Where in the buffer a packet is. ``macs``: in place of the frame's own, or nothing."""

    frame: int  # where the frame starts that the VM gets
    origin: int  # from where the offsets of the vnet header count
    macs: bytes = b""


class SoftwareReceive:
    """In front of an action that hands a packet to a VM: the VM gets only what its adapter takes."""

    __slots__ = ("_buffer", "_data", "_deliver", "_drops", "_layout", "_opens", "_port", "_queue", "_supers")

    def __init__(
        self,
        buffer: FrameBuffer,
        deliver: Action,
        port: Port,
        queue: PortQueue,
        drops: DropCounts,
        layout: Layout,
    ) -> None:
        self._buffer = buffer
        self._data = buffer.data
        self._deliver = deliver
        self._port = port
        self._queue = queue
        self._drops = drops
        self._layout = layout
        self._supers = port.rsc
        self._opens = port.rx_checksum

    def __call__(self, end: int) -> None:
        """Hand over the packet that ends at ``end``, in pieces if need be."""
        data = self._data
        if not data[READ] & NEEDS_CSUM:
            if not self._opens:
                data[READ] = 0  # nobody vouches for the checksum
        elif data[READ + 1]:
            if not self._supers:
                self._cut(end)
                return
        elif not self._opens:
            self._complete(end)
            return
        self._deliver(end)

    def _complete(self, end: int) -> None:
        """Hand over a packet whose checksum is open, with a complete one."""
        data, layout = self._data, self._layout
        _, _, _, _, start, offset = VNET_HEADER.unpack_from(data, READ)
        start += layout.origin
        place = start + offset
        if start < layout.frame or place + 2 > end:
            self._drop(Drop.MALFORMED)
            return
        kept, vnet = data[place : place + 2], bytes(self._buffer.vnet)
        _pack_u16(data, place, _checksum(ones_sum(self._buffer.view[start:end]), offset))
        self._buffer.vnet[:] = _NO_OFFLOAD
        self._port.to_vm_software_checksums += 1
        self._deliver(end)
        data[place : place + 2] = kept  # another VM may get the packet too
        self._buffer.vnet[:] = vnet

    def _cut(self, end: int) -> None:
        """Hand over the frames that a super-packet stands for."""
        segments, tcp = self._segments(end)
        if segments is None:
            self._drop(Drop.MALFORMED)
            return
        port, queue, view = self._port, self._queue, self._buffer.view
        for number in range(segments.frames):
            head = bytearray(segments.size)
            at, length = segments.write(head, 0, number)
            data = view[at : at + length]
            if not self._opens:
                open_sum = ones_sum(head[VNET + tcp :]) + ones_sum(data)  # headers are of even length
                _pack_u16(head, VNET + tcp + _TCP_CHECKSUM, _checksum(open_sum, _TCP_CHECKSUM))
                head[:VNET] = _NO_OFFLOAD
                port.to_vm_software_checksums += 1
            try:
                os.writev(queue.descriptor, [head, data])
            except OSError:
                self._drop(Drop.PORT_REFUSED, segments.frames - number)
                return
            queue.to_vm_packets += 1
            queue.to_vm_bytes += len(head) - VNET + length
            port.to_vm_software_segments += 1

    def _segments(self, end: int) -> tuple[Segments | None, int]:
        """Of the super-packet that ends at ``end``; where the TCP header is in its frames."""
        data, layout = self._data, self._layout
        _, _, _, mss, start, _ = VNET_HEADER.unpack_from(data, READ)
        tcp = layout.origin + start
        if tcp < layout.frame + 14 or tcp + 20 > end or not mss:
            return None, 0
        payload = tcp + (data[tcp + 12] >> 2 & 60)
        headers = data[layout.frame : payload]
        headers[: len(layout.macs)] = layout.macs
        tcp -= layout.frame
        counting = LSO_IDS if layout.origin == INNER else ALL_IDS
        return Segments(cut_of(bytes(headers), 0, tcp, mss, payload, end, counting)), tcp

    def _drop(self, reason: Drop, packets: int = 1) -> None:
        count(self._drops, PORT, self._port.name, self._port.vsid, reason, packets)


def _checksum(total: int, offset: int) -> int:
    """The checksum that a sum, of the pseudo-header too, becomes. UDP has no 0 (RFC 768)."""
    value = (total % 0xFFFF or 0xFFFF) ^ 0xFFFF
    return value or (0xFFFF if offset == _UDP_CHECKSUM else 0)
