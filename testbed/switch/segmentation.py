"""Large send offload done by the switch, for a NIC that does not do it: one super-packet, many frames.

Each frame gets complete headers of its own in front of a piece of the payload, which stays where it is;
all frames go out by one system call. What the segments of a TCP packet are: NDIS, "Offloading the
Segmentation of Large TCP Packets": FIN and PSH on the last one only, CWR on the first; the IP
identification counts up in its lower 15 bits, of the outer header likewise; all but the last are full.
"""

from __future__ import annotations

import ctypes
import struct
from typing import NamedTuple

from testbed.packets.checksum import ones_sum
from testbed.packets.ethernet import TAGS
from testbed.switch.buffer import INNER, NEEDS_CSUM, READ, SIZE, VNET, VNET_HEADER, FrameBuffer
from testbed.switch.uplink import Uplink

FRAMES = 64  # that one system call sends
_HEAD = 256  # bytes for a vnet header and all headers of a frame
_IOVEC, _MESSAGE = struct.Struct("=QQQQ"), struct.Struct("=QQQQQQQII")  # two of a frame; struct mmsghdr
_u16, _u32 = struct.Struct("!H").pack_into, struct.Struct("!I").pack_into
_pair = struct.Struct("!HH").pack_into
_FIN_PSH, _CWR = 0x09, 0x80
_TCP, _TCP_CHECKSUM = 6, 16


class _Cut(NamedTuple):
    """What a super-packet's segments share. Offsets count from the first outer header."""

    template: bytes  # all headers
    outer: int  # where the outer IP header starts; 0: there is none
    inner: int
    tcp: int
    payload: int  # where it starts in the buffer
    mss: int
    sequence: int
    flags: int


class Segmenter:
    """Cuts the super-packet in a worker's buffer. ``completes``: checksums too, else the NIC does that."""

    def __init__(self, buffer: FrameBuffer) -> None:
        self._data = buffer.data
        self._view = buffer.view
        self._base = ctypes.addressof((ctypes.c_char * SIZE).from_buffer(buffer.data))
        self._heads = bytearray(FRAMES * _HEAD)
        heads = ctypes.addressof((ctypes.c_char * len(self._heads)).from_buffer(self._heads))
        self._head_addresses = [heads + position * _HEAD for position in range(FRAMES)]
        self._iovecs = bytearray(FRAMES * _IOVEC.size)
        iovecs = ctypes.addressof((ctypes.c_char * len(self._iovecs)).from_buffer(self._iovecs))
        self._messages = bytearray(FRAMES * _MESSAGE.size)
        messages = (ctypes.c_char * len(self._messages)).from_buffer(self._messages)
        self._messages_at = ctypes.addressof(messages)
        for position in range(FRAMES):
            vector = iovecs + position * _IOVEC.size
            _MESSAGE.pack_into(self._messages, position * _MESSAGE.size, 0, 0, vector, 2, 0, 0, 0, 0, 0)
        self._sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
        self._head = bytearray()
        self._outer: tuple[int, int] | None = None
        self._inner: tuple[int, int] | None = None
        self._tcp_sum = 0
        self._sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]

    def send(self, uplink: Uplink, header: bytes, end: int, *, completes: bool) -> tuple[int, int]:
        """Send the super-packet that ends at ``end`` as frames; how many were sent, and how many were not.

        header: outer headers and inner MACs, or nothing; its IPv4 length and checksum are filled in.
        """
        cut = self._cut(header, end)
        payload, count = cut.payload, 0
        pieces = range(payload, end, cut.mss) if payload < end else range(payload, payload + 1)
        last = len(pieces) - 1
        self._cut_headers(cut, min(cut.mss, end - payload), completes=completes)
        sent = 0
        for number, at in enumerate(pieces):
            length = cut.mss if number < last else end - at
            if number == last and number:
                self._cut_headers(cut, length, completes=completes)
            self._frame(cut, number, count, at, length, last=number == last, completes=completes)
            count += 1
            if count == FRAMES or number == last:
                done = self._flush(uplink, count)
                sent += done
                if done < count:
                    break
                count = 0
        return sent, len(pieces) - sent

    def _cut(self, header: bytes, end: int) -> _Cut:
        data = self._data
        _, _, _, gso_size, start, _ = VNET_HEADER.unpack_from(data, READ)
        payload = INNER + start + (data[INNER + start + 12] >> 2 & 60)
        inner = data[INNER:payload]
        inner[: len(header[-12:])] = header[-12:]
        outer = header[:-12]
        at = 12
        while int.from_bytes(inner[at : at + 2], "big") in TAGS:
            at += 4
        return _Cut(
            template=outer + inner,
            outer=14 if outer else 0,
            inner=len(outer) + at + 2,
            tcp=len(outer) + start,
            payload=payload,
            mss=gso_size,
            sequence=int.from_bytes(inner[start + 4 : start + 8], "big"),
            flags=inner[start + 13],
        )

    def _cut_headers(self, cut: _Cut, length: int, *, completes: bool) -> None:
        """Headers of all segments with ``length`` bytes of payload, but for what differs in each."""
        head = self._head = bytearray(VNET) + cut.template
        size = len(cut.template) + length
        self._outer = _length(head, VNET + cut.outer, size - cut.outer) if cut.outer else None
        inner, tcp = VNET + cut.inner, VNET + cut.tcp
        self._inner = _length(head, inner, size - cut.inner)
        pseudo = head[inner + 12 : inner + 20] if self._inner else head[inner + 8 : inner + 40]
        partial = ones_sum(pseudo, _TCP + size - cut.tcp)
        if completes:
            head[tcp + _TCP_CHECKSUM : tcp + _TCP_CHECKSUM + 2] = bytes(2)
            head[tcp + 4 : tcp + 8] = bytes(4)
            head[tcp + 13] = 0
            self._tcp_sum = ones_sum(head[tcp:], partial)
        else:
            _u16(head, tcp + _TCP_CHECKSUM, partial)
            VNET_HEADER.pack_into(head, 0, NEEDS_CSUM, 0, 0, 0, cut.tcp, _TCP_CHECKSUM)

    def _frame(
        self, cut: _Cut, number: int, slot: int, at: int, length: int, *, last: bool, completes: bool
    ) -> None:
        """One frame's headers, and where its two parts are."""
        heads, head = self._heads, self._head
        place = slot * _HEAD
        heads[place : place + len(head)] = head
        place += VNET
        if self._outer:
            _number(heads, place + cut.outer, number, *self._outer)
        if self._inner:
            _number(heads, place + cut.inner, number, *self._inner)
        flags = cut.flags
        if not last:
            flags &= ~_FIN_PSH
        if number:
            flags &= ~_CWR
        tcp = place + cut.tcp
        sequence = cut.sequence + number * cut.mss & 0xFFFFFFFF
        _u32(heads, tcp + 4, sequence)
        heads[tcp + 13] = flags
        if completes:
            total = self._tcp_sum + (sequence >> 16) + (sequence & 0xFFFF) + flags
            _u16(heads, tcp + _TCP_CHECKSUM, ones_sum(self._view[at : at + length], total) ^ 0xFFFF)
        _IOVEC.pack_into(
            self._iovecs,
            slot * _IOVEC.size,
            self._head_addresses[slot],
            len(head),
            self._base + at,
            length,
        )

    def _flush(self, uplink: Uplink, count: int) -> int:
        """How many frames the NIC took."""
        at, left = self._messages_at, count
        while left:
            done = self._sendmmsg(uplink.fileno(), at, left, 0)
            if done <= 0:
                break
            at += done * _MESSAGE.size
            left -= done
        return count - left


def _length(head: bytearray, at: int, size: int) -> tuple[int, int] | None:
    """Write the length of an IP packet of ``size`` bytes into its header at ``at``.

    Of IPv4 the identification and the sum of all else in the header, for :func:`_number`.
    """
    if head[at] >> 4 == 6:
        _u16(head, at + 4, size - 40)
        return None
    identification = int.from_bytes(head[at + 4 : at + 6], "big")
    _pair(head, at + 2, size, 0)
    _u16(head, at + 10, 0)
    return identification, ones_sum(head[at : at + 4 * (head[at] & 15)])


def _number(heads: bytearray, at: int, number: int, first: int, rest: int) -> None:
    """Identification and checksum of an IPv4 header."""
    identification = first & 0x8000 | first + number & 0x7FFF
    _u16(heads, at + 4, identification)
    total = rest + identification
    _u16(heads, at + 10, ((total & 0xFFFF) + (total >> 16)) ^ 0xFFFF)


def complete_checksum(buffer: FrameBuffer, end: int) -> None:
    """Complete the open checksum of the packet in the buffer, which then needs nothing of the NIC."""
    _, _, _, _, start, offset = VNET_HEADER.unpack_from(buffer.data, READ)
    at = INNER + start + offset
    value = ones_sum(buffer.view[INNER + start : end]) ^ 0xFFFF
    _u16(buffer.data, at, value or 0xFFFF if offset == 6 else value)  # 0 is "none" in UDP (RFC 768)
    buffer.vnet[:] = bytes(VNET)
