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
_u16 = struct.Struct("!H").pack_into
_pair = struct.Struct("!HH").pack_into
_FIN_PSH, _CWR = 0x09, 0x80
_TCP, _TCP_CHECKSUM = 6, 16
_ID, _CHECKSUM, _SEQUENCE, _FLAGS = 4, 10, 4, 13  # where they are in an IPv4 and in a TCP header


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


class _Heads:
    """Headers of segments with one length of payload: what is the same in them, and how to fill in the rest.

    One packing writes a whole head: the fields that differ, and the constant bytes between them.
    """

    def __init__(self, cut: _Cut, length: int) -> None:
        head = bytearray(VNET) + cut.template
        self.size = len(head)
        size = len(cut.template) + length
        self.headers = [
            (VNET + at, *numbered)
            for at in (cut.outer, cut.inner)
            if at and (numbered := _length(head, VNET + at, size - at))
        ]
        inner, tcp = VNET + cut.inner, VNET + cut.tcp
        ipv4 = head[inner] >> 4 == 4
        pseudo = head[inner + 12 : inner + 20] if ipv4 else head[inner + 8 : inner + 40]
        _u16(head, tcp + _TCP_CHECKSUM, ones_sum(pseudo, _TCP + size - cut.tcp))
        VNET_HEADER.pack_into(head, 0, NEEDS_CSUM, 0, 0, 0, cut.tcp, _TCP_CHECKSUM)
        self._constant: list[bytes] = []
        form, at = "!", 0
        fields = [(at + offset, "H", 2) for at, *_ in self.headers for offset in (_ID, _CHECKSUM)]
        for place, kind, width in (*fields, (tcp + _SEQUENCE, "I", 4), (tcp + _FLAGS, "B", 1)):
            self._constant.append(bytes(head[at:place]))
            form += f"{place - at}s{kind}"
            at = place + width
        self._constant.append(bytes(head[at:]))
        self._pack = struct.Struct(form + f"{len(head) - at}s").pack_into

    def write(self, to: bytearray, place: int, number: int, sequence: int, flags: int) -> None:
        """The head of segment ``number``."""
        parts = self._constant
        if len(self.headers) == 2:
            (_, first, rest), (_, first_inner, rest_inner) = self.headers
            outer, inner = _numbered(first, number), _numbered(first_inner, number)
            self._pack(
                to, place,
                parts[0], outer, parts[1], _folded(rest + outer),
                parts[2], inner, parts[3], _folded(rest_inner + inner),
                parts[4], sequence, parts[5], flags, parts[6],
            )  # fmt: skip
            return
        values: list[bytes | int] = []
        for position, (_, first, rest) in enumerate(self.headers):
            identification = _numbered(first, number)
            values += (
                parts[2 * position],
                identification,
                parts[2 * position + 1],
                _folded(rest + identification),
            )
        self._pack(to, place, *values, parts[-3], sequence, parts[-2], flags, parts[-1])


class Segmenter:
    """Cuts the super-packet in a worker's buffer. Its frames' checksums are left to the kernel's software."""

    def __init__(self, buffer: FrameBuffer) -> None:
        self._data = buffer.data
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
        self._sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]

    def send(self, uplink: Uplink, header: bytes, end: int) -> tuple[int, int]:
        """Send the super-packet that ends at ``end`` as frames; how many were sent, and how many were not.

        header: outer headers and inner MACs, or nothing; its IPv4 length and checksum are filled in.
        """
        cut = self._cut(header, end)
        starts = range(cut.payload, max(end, cut.payload + 1), cut.mss)
        last, sent = len(starts) - 1, 0
        full = _Heads(cut, min(cut.mss, end - cut.payload))
        for begin in range(0, last + 1, FRAMES):
            some = starts[begin : begin + FRAMES]
            for slot, at in enumerate(some):
                number = begin + slot
                if number < last:
                    self._frame(cut, full, number, slot, at, cut.mss, cut.flags & ~_FIN_PSH)
                else:
                    heads = _Heads(cut, end - at) if end - at != cut.mss and number else full
                    self._frame(cut, heads, number, slot, at, end - at, cut.flags)
            done = self._flush(uplink, len(some))
            sent += done
            if done < len(some):
                break
        return sent, last + 1 - sent

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

    def _frame(
        self, cut: _Cut, heads: _Heads, number: int, slot: int, at: int, length: int, flags: int
    ) -> None:
        """One frame's head, and where its two parts are."""
        sequence = cut.sequence + number * cut.mss & 0xFFFFFFFF
        heads.write(self._heads, slot * _HEAD, number, sequence, flags & ~_CWR if number else flags)
        _IOVEC.pack_into(
            self._iovecs, slot * 32, self._head_addresses[slot], heads.size, self._base + at, length
        )

    def _flush(self, uplink: Uplink, count: int) -> int:
        """How many frames the NIC took."""
        uplink.flush()  # what came before
        at, left = self._messages_at, count
        while left and (done := self._sendmmsg(uplink.fileno(), at, left, 0)) > 0:
            at += done * _MESSAGE.size
            left -= done
        return count - left


def _length(head: bytearray, at: int, size: int) -> tuple[int, int] | None:
    """Write the length of an IP packet of ``size`` bytes into its header at ``at``.

    Of IPv4 the identification, and the sum of all else in the header; of IPv6, which has neither, None.
    """
    if head[at] >> 4 == 6:
        _u16(head, at + 4, size - 40)
        return None
    identification = int.from_bytes(head[at + _ID : at + _ID + 2], "big")
    _pair(head, at + 2, size, 0)
    _u16(head, at + _CHECKSUM, 0)
    return identification, ones_sum(head[at : at + 4 * (head[at] & 15)])


def _numbered(first: int, number: int) -> int:
    """The identification of a segment: the lower 15 bits count."""
    return first & 0x8000 | first + number & 0x7FFF


def _folded(total: int) -> int:
    """The checksum that a sum of 16-bit words becomes."""
    return (total & 0xFFFF) + (total >> 16) ^ 0xFFFF
