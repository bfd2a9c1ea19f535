"""What the switch does with a packet once the pipeline has decided: ready-made per flow.

An action is called with the packet's end offset in the worker's buffer (see
:mod:`testbed.switch.buffer` for the layout). The pipeline makes it for the first packet of a
flow; for the rest, looking it up and calling it is all there is.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from testbed.packets import nvgre
from testbed.switch.buffer import INNER, NEEDS_CSUM, VNET, VNET_HEADER, WIRE, Action, FrameBuffer
from testbed.switch.drops import Drop
from testbed.switch.port import Port
from testbed.switch.uplink import Uplink

DropCounts = dict[tuple[str, Drop], int]

_U16 = struct.Struct("!H")
_unpack_vnet = VNET_HEADER.unpack_from
_pack_vnet = VNET_HEADER.pack_into
_pack_u16 = _U16.pack_into

_OUTER = nvgre.OUTER
_LENGTH_AT = WIRE + nvgre.LENGTH_AT
_CHECKSUM_AT = WIRE + nvgre.CHECKSUM_AT
_OUTER_END = WIRE + _OUTER + 12  # behind the inner MACs, which are written with the outer header
_IP_START = WIRE + 14
_LONGEST = 0xFFFF  # an IPv4 total length; a VM that raises its own gso_max_size can exceed it
_DECAPSULATED = INNER - VNET  # where the vnet header of a decapsulated packet starts


class Encapsulate:
    """From a VM to a NIC, with an outer header in front and the inner MACs of the lookup record."""

    __slots__ = ("_base", "_data", "_drops", "_header", "_uplink", "_view")

    def __init__(
        self, buffer: FrameBuffer, outer: bytes, macs: bytes, uplink: Uplink, drops: DropCounts
    ) -> None:
        self._data = buffer.data
        self._view = buffer.view
        self._header = outer + macs
        self._base = nvgre.header_sum(outer)
        self._uplink = uplink
        self._drops = drops

    def __call__(self, end: int) -> None:
        """Encapsulate and send the packet that ends at ``end``."""
        data = self._data
        length = end - _IP_START
        uplink = self._uplink
        if length > _LONGEST:
            _count(self._drops, uplink.name, Drop.TX_OVERSIZE)
            return
        if data[0] & NEEDS_CSUM:
            flags, gso_type, header, gso_size, start, offset = _unpack_vnet(data, 0)
            try:
                _pack_vnet(data, 0, flags, gso_type, header + _OUTER, gso_size, start + _OUTER, offset)
            except struct.error:  # headers of 64 KB: they are as long as the VM says
                _count(self._drops, uplink.name, Drop.TX_OVERSIZE)
                return
        data[WIRE:_OUTER_END] = self._header
        total = self._base + length
        _pack_u16(data, _LENGTH_AT, length)
        _pack_u16(data, _CHECKSUM_AT, (total & 0xFFFF) + (total >> 16) ^ 0xFFFF)
        try:
            uplink.send(self._view[:end])
        except OSError as error:
            _count(self._drops, uplink.name, uplink.refusal(error))
            return
        uplink.tx_packets += 1
        uplink.tx_bytes += end - WIRE


class Decapsulate:
    """From a NIC to a VM: the outer header goes, offsets of the offload metadata move back."""

    __slots__ = ("_data", "_drops", "_port", "_view")

    def __init__(self, buffer: FrameBuffer, port: Port, drops: DropCounts) -> None:
        self._data = buffer.data
        self._view = buffer.view
        self._port = port
        self._drops = drops

    def __call__(self, end: int) -> None:
        """Decapsulate the packet that ends at ``end`` and hand it over."""
        data = self._data
        flags, gso_type, header, gso_size, start, offset = _unpack_vnet(data, 0)
        port = self._port
        if flags & NEEDS_CSUM:
            header = header - _OUTER if header > _OUTER else 0
            try:
                _pack_vnet(data, _DECAPSULATED, flags, gso_type, header, gso_size, start - _OUTER, offset)
            except struct.error:  # the checksum to complete is one of the outer headers
                _count(self._drops, port.name, Drop.MALFORMED)
                return
        else:
            _pack_vnet(data, _DECAPSULATED, flags, 0, 0, 0, 0, 0)
        try:
            os.write(port.descriptor, self._view[_DECAPSULATED:end])
        except OSError:
            _count(self._drops, port.name, Drop.PORT_REFUSED)
            return
        port.to_vm_packets += 1
        port.to_vm_bytes += end - INNER


class Deliver:
    """To a VM as it is: from a VM of this host (with new MACs) or from the wire (VSID 0)."""

    __slots__ = ("_buffer", "_drops", "_macs", "_port", "_start")

    def __init__(self, buffer: FrameBuffer, start: int, macs: bytes, port: Port, drops: DropCounts) -> None:
        self._buffer = buffer
        self._start = start
        self._macs = macs
        self._port = port
        self._drops = drops

    def __call__(self, end: int) -> None:
        """Hand over the packet that ends at ``end``."""
        buffer, start, port = self._buffer, self._start, self._port
        if self._macs:
            buffer.data[start : start + 12] = self._macs
        try:
            os.writev(port.descriptor, [buffer.vnet, buffer.view[start:end]])
        except OSError:
            _count(self._drops, port.name, Drop.PORT_REFUSED)
            return
        port.to_vm_packets += 1
        port.to_vm_bytes += end - start


class ToWire:
    """From a VM with VSID 0 to a NIC, not encapsulated."""

    __slots__ = ("_buffer", "_drops", "_uplink")

    def __init__(self, buffer: FrameBuffer, uplink: Uplink, drops: DropCounts) -> None:
        self._buffer = buffer
        self._uplink = uplink
        self._drops = drops

    def __call__(self, end: int) -> None:
        """Send the packet that ends at ``end``."""
        buffer, uplink = self._buffer, self._uplink
        try:
            uplink.send_parts([buffer.vnet, buffer.view[INNER:end]])
        except OSError as error:
            _count(self._drops, uplink.name, uplink.refusal(error))
            return
        uplink.tx_packets += 1
        uplink.tx_bytes += end - INNER


class Replicate:
    """One packet to several destinations, each of which may rewrite the buffer's headers."""

    __slots__ = ("_actions", "_buffer")

    def __init__(self, buffer: FrameBuffer, actions: Sequence[Action]) -> None:
        self._buffer = buffer
        self._actions = actions

    def __call__(self, end: int) -> None:
        """Do all actions with the packet that ends at ``end``."""
        vnet = bytes(self._buffer.vnet)
        for action in self._actions:
            self._buffer.vnet[:] = vnet
            action(end)


class Discard:
    """Count a named drop on the object (port or NIC) that the packet came from."""

    __slots__ = ("_drops", "_name", "_reason")

    def __init__(self, drops: DropCounts, name: str, reason: Drop) -> None:
        self._drops = drops
        self._name = name
        self._reason = reason

    def __call__(self, end: int) -> None:
        """Count the drop."""
        _count(self._drops, self._name, self._reason)


def _count(drops: DropCounts, name: str, reason: Drop) -> None:
    key = (name, reason)
    drops[key] = drops.get(key, 0) + 1
