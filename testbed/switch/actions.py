"""What the switch does with a packet once the pipeline has decided: ready-made per flow.

An action is called with the packet's end offset in the worker's buffer (see
:mod:`testbed.switch.buffer` for the layout). The pipeline makes it for the first packet of a
flow; for the rest, looking it up and calling it is all there is.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from testbed.packets import icmp_error, nvgre
from testbed.packets.malformed import MalformedFrame
from testbed.packets.translate import replace_addresses
from testbed.switch.buffer import (
    INNER,
    NEEDS_CSUM,
    READ,
    VNET,
    VNET_HEADER,
    WIRE,
    WIRE_IPV6,
    Action,
    FrameBuffer,
)
from testbed.switch.drops import Drop, DropCounts, count
from testbed.switch.pipeline import NIC, PORT
from testbed.switch.port import Port, PortQueue
from testbed.switch.uplink import Uplink

_unpack_vnet = VNET_HEADER.unpack_from
_pack_vnet = VNET_HEADER.pack_into
_pack_u16 = struct.Struct("!H").pack_into
_pack_length = struct.Struct("!H6sH").pack_into  # an IPv4 header from its length to its checksum

_OUTER = nvgre.OUTER_IPV4
_LENGTH_AT = WIRE + nvgre.LENGTH_AT
_IP_START = WIRE + 14

_OUTER_IPV6 = nvgre.OUTER_IPV6
_PAYLOAD_LENGTH_AT = WIRE_IPV6 + nvgre.PAYLOAD_LENGTH_AT
_IPV6_START = WIRE_IPV6 + 14
_IPV6_HEADER = 40

_SOURCE_MAC = INNER + 6
_MACS_END = INNER + 12  # the inner MACs are written with the outer header
_DATA_OFFSET = INNER + 12  # of a TCP header that starts with the frame: its length, in 4-byte words << 4


class Oversize:
    """A packet that the PA network would have to fragment: dropped, and the VM is told the MTU it has.

    mtu: bytes of the longest IP packet that the VM may send. gateway: MAC and CA of who tells it.
    """

    __slots__ = ("_buffer", "_count", "_gateway", "_mtu", "_port")

    def __init__(
        self, buffer: FrameBuffer, drop: Action, port: Port | None, mtu: int, gateway: tuple[bytes, bytes]
    ) -> None:
        self._buffer = buffer
        self._count = drop
        self._port = port
        self._mtu = mtu
        self._gateway = gateway

    def __call__(self, end: int) -> None:
        """Drop the packet that ends at ``end`` and answer it."""
        self._count(end)
        if (port := self._port) is None:
            return
        frame = self._buffer.view[INNER:end]
        if answer := icmp_error.too_big(frame, self._mtu, port.mac, *self._gateway):
            port.send(answer)  # a VM that takes none is no loss that a counter should show


class _Encapsulation:
    """What encapsulation over both families shares. ``oversize``: what becomes of what is too long."""

    __slots__ = (
        "_base",
        "_between",
        "_data",
        "_drops",
        "_header",
        "_mtu",
        "_oversize",
        "_segment",
        "_uplink",
        "_view",
        "_vsid",
    )

    def __init__(
        self,
        buffer: FrameBuffer,
        outer: bytes,
        macs: bytes,
        uplink: Uplink,
        drops: DropCounts,
        vsid: int,
        oversize: Action,
    ) -> None:
        self._data = buffer.data
        self._view = buffer.view
        self._header = outer + macs
        self._base = nvgre.header_sum(outer)
        self._between = outer[nvgre.LENGTH_AT + 2 : nvgre.CHECKSUM_AT]
        self._mtu = uplink.mtu
        self._segment = uplink.mtu - len(outer) + 14  # bytes of inner frame
        self._uplink = uplink
        self._drops = drops
        self._vsid = vsid
        self._oversize = oversize


class Encapsulate(_Encapsulation):
    """From a VM to a NIC, with an IPv4 outer header in front and the inner MACs of the lookup record.

    RFC 7637 section 4.4: the sender does not fragment. Longer than the NIC's MTU must not be: the
    outer IP packet, or of a super-packet each that it will be cut into.
    """

    __slots__ = ()

    def __call__(self, end: int) -> None:
        """Encapsulate and send the packet that ends at ``end``."""
        data = self._data
        length = end - _IP_START
        uplink = self._uplink
        try:
            if data[READ] & NEEDS_CSUM:
                flags, gso_type, header, gso_size, start, offset = _unpack_vnet(data, READ)
                if (
                    not gso_type or start + gso_size + (data[_DATA_OFFSET + start] >> 2 & 60) > self._segment
                ) and length > self._mtu:
                    self._oversize(end)
                    return
                _pack_vnet(data, READ, flags, gso_type, header + _OUTER, gso_size, start + _OUTER, offset)
                if gso_type:
                    uplink.count_lso(end - INNER - start - (data[_DATA_OFFSET + start] >> 2 & 60), gso_size)
            elif length > self._mtu:
                self._oversize(end)
                return
            data[WIRE:_MACS_END] = self._header
            total = self._base + length
            _pack_length(data, _LENGTH_AT, length, self._between, (total & 0xFFFF) + (total >> 16) ^ 0xFFFF)
        except struct.error:  # more than IPv4 or the offload metadata can say
            count(self._drops, NIC, uplink.name, self._vsid, Drop.TX_OVERSIZE)
            return
        try:
            uplink.send(self._view[READ:end])
        except OSError as error:
            count(self._drops, NIC, uplink.name, self._vsid, uplink.refusal(error))
            return
        uplink.tx_packets += 1
        uplink.tx_bytes += end - WIRE


class EncapsulateIPv6(_Encapsulation):
    """The same over IPv6: 20 bytes more, so the vnet header moves to the buffer's start; no checksum."""

    __slots__ = ()

    def __call__(self, end: int) -> None:
        """Encapsulate and send the packet that ends at ``end``."""
        data = self._data
        length = end - _IPV6_START
        uplink = self._uplink
        flags, gso_type, header, gso_size, start, offset = _unpack_vnet(data, READ)
        if length > self._mtu:
            segment = start + gso_size + (data[_DATA_OFFSET + start] >> 2 & 60)
            if not flags & NEEDS_CSUM or not gso_type or segment > self._segment:
                self._oversize(end)
                return
        try:
            if flags & NEEDS_CSUM:
                if gso_type:
                    uplink.count_lso(end - INNER - start - (data[_DATA_OFFSET + start] >> 2 & 60), gso_size)
                header += _OUTER_IPV6
                start += _OUTER_IPV6
            _pack_vnet(data, 0, flags, gso_type, header, gso_size, start, offset)
            data[WIRE_IPV6:_MACS_END] = self._header
            _pack_u16(data, _PAYLOAD_LENGTH_AT, length - _IPV6_HEADER)
        except struct.error:  # more than IPv6 or the offload metadata can say
            count(self._drops, NIC, uplink.name, self._vsid, Drop.TX_OVERSIZE)
            return
        try:
            uplink.send(self._view[:end])
        except OSError as error:
            count(self._drops, NIC, uplink.name, self._vsid, uplink.refusal(error))
            return
        uplink.tx_packets += 1
        uplink.tx_bytes += end - WIRE_IPV6


class Decapsulate:
    """From a NIC to a VM: the outer header goes, offsets of the offload metadata move back.

    ``queue``: the port's queue for this flow. ``outer``: the length of the outer header, 42 or 62.
    """

    __slots__ = ("_data", "_drops", "_outer", "_port", "_queue", "_start", "_view")

    def __init__(
        self, buffer: FrameBuffer, port: Port, queue: PortQueue, drops: DropCounts, outer: int = _OUTER
    ) -> None:
        self._data = buffer.data
        self._view = buffer.view
        self._port = port
        self._queue = queue
        self._drops = drops
        self._outer = outer
        self._start = WIRE + outer - VNET  # of the new vnet header

    def __call__(self, end: int) -> None:
        """Decapsulate the packet that ends at ``end`` and hand it over."""
        data = self._data
        at = self._start
        flags, gso_type, header, gso_size, start, offset = _unpack_vnet(data, READ)
        queue = self._queue
        if flags & NEEDS_CSUM:
            outer = self._outer
            header = header - outer if header > outer else 0
            try:
                _pack_vnet(data, at, flags, gso_type, header, gso_size, start - outer, offset)
            except struct.error:  # the checksum to complete is one of the outer headers
                port = self._port
                count(self._drops, PORT, port.name, port.vsid, Drop.MALFORMED)
                return
        else:
            _pack_vnet(data, at, flags, 0, 0, 0, 0, 0)
        try:
            os.write(queue.descriptor, self._view[at:end])
        except OSError:
            port = self._port
            count(self._drops, PORT, port.name, port.vsid, Drop.PORT_REFUSED)
            return
        queue.to_vm_packets += 1
        queue.to_vm_bytes += end - at - VNET


class Deliver:
    """To a VM as it is: from a VM of this host (with new MACs) or from the wire (VSID 0).

    ``queue``: the port's queue for this flow.
    """

    __slots__ = ("_buffer", "_drops", "_macs", "_port", "_queue", "_start")

    def __init__(
        self, buffer: FrameBuffer, start: int, macs: bytes, port: Port, queue: PortQueue, drops: DropCounts
    ) -> None:
        self._buffer = buffer
        self._start = start
        self._macs = macs
        self._port = port
        self._queue = queue
        self._drops = drops

    def __call__(self, end: int) -> None:
        """Hand over the packet that ends at ``end``."""
        buffer, start, queue = self._buffer, self._start, self._queue
        if self._macs:
            buffer.data[start : start + 12] = self._macs
        try:
            os.writev(queue.descriptor, [buffer.vnet, buffer.view[start:end]])
        except OSError:
            port = self._port
            count(self._drops, PORT, port.name, port.vsid, Drop.PORT_REFUSED)
            return
        queue.to_vm_packets += 1
        queue.to_vm_bytes += end - start


class ToWire:
    """From a VM to a NIC, not encapsulated: VSID 0, or translated. ``mac``: in place of the source's."""

    __slots__ = ("_buffer", "_drops", "_mac", "_uplink", "_vsid")

    def __init__(
        self, buffer: FrameBuffer, uplink: Uplink, drops: DropCounts, vsid: int = 0, mac: bytes = b""
    ) -> None:
        self._buffer = buffer
        self._uplink = uplink
        self._drops = drops
        self._vsid = vsid
        self._mac = mac

    def __call__(self, end: int) -> None:
        """Send the packet that ends at ``end``."""
        buffer, uplink = self._buffer, self._uplink
        data = buffer.data
        if self._mac:
            data[_SOURCE_MAC:_MACS_END] = self._mac
        if data[READ + 1]:
            _, _, _, gso_size, at, _ = _unpack_vnet(data, READ)
            uplink.count_lso(end - INNER - at - (data[_DATA_OFFSET + at] >> 2 & 60), gso_size)
        try:
            uplink.send_parts([buffer.vnet, buffer.view[INNER:end]])
        except OSError as error:
            count(self._drops, NIC, uplink.name, self._vsid, uplink.refusal(error))
            return
        uplink.tx_packets += 1
        uplink.tx_bytes += end - INNER


class Translate:
    """Not encapsulated (rules Nat and None): other MACs and IP addresses, then ``send`` what came of it.

    start: where the frame lies in the buffer. Done twice (to two ports), the second changes nothing.
    """

    __slots__ = ("_buffer", "_destination", "_macs", "_malformed", "_send", "_source", "_start")

    def __init__(
        self,
        buffer: FrameBuffer,
        start: int,
        macs: bytes,
        addresses: tuple[bytes, bytes],
        send: Action,
        malformed: Action,
    ) -> None:
        self._buffer = buffer
        self._start = start
        self._macs = macs
        self._source, self._destination = addresses
        self._send = send
        self._malformed = malformed

    def __call__(self, end: int) -> None:
        """Translate and send the packet that ends at ``end``."""
        buffer = self._buffer
        frame = buffer.view[self._start : end]
        flags, _, _, _, start, offset = _unpack_vnet(buffer.vnet)
        try:
            replace_addresses(
                frame, self._source, self._destination, start + offset if flags & NEEDS_CSUM else -1
            )
        except MalformedFrame:
            self._malformed(end)
            return
        if self._macs:
            frame[:12] = self._macs
        self._send(end)


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
    """Count a named drop: at which stage, of which object (the port or NIC it came from), of which VSID."""

    __slots__ = ("_drops", "_name", "_reason", "_stage", "_vsid")

    def __init__(self, drops: DropCounts, stage: str, name: str, vsid: int, reason: str) -> None:
        self._drops = drops
        self._stage = stage
        self._name = name
        self._vsid = vsid
        self._reason = reason

    def __call__(self, end: int) -> None:
        """Count the drop."""
        count(self._drops, self._stage, self._name, self._vsid, self._reason)
