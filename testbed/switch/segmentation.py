"""A super-packet cut by the switch: one packet, many frames.

It is large send offload for a NIC that does not do it (:class:`Segmenter`), and the opposite of receive
coalescing where a VM or NDIS wants none (:mod:`testbed.switch.reception`, :mod:`testbed.switch.coalescing`).

Each frame gets complete headers of its own in front of a piece of the payload, which stays where it is;
to a NIC all frames go out by one system call. What the segments of a TCP packet are: NDIS, "Offloading the
Segmentation of Large TCP Packets": FIN and PSH on the last one only, CWR on the first; the IP
identification counts up in its lower 15 bits, of the outer header likewise; all but the last are full.
Where frames were joined it counts in all 16 bits, as the kernel does that has cut or joined them.
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


LSO_IDS, ALL_IDS = 0x7FFF, 0xFFFF  # which bits of an IP identification count up


class Cut(NamedTuple):
    """What a super-packet's segments share. Offsets count from the first outer header."""

    template: bytes  # all headers
    outer: int  # where the outer IP header starts; 0: there is none
    inner: int
    tcp: int
    payload: int  # where it starts in the buffer
    end: int  # ... and where it ends
    mss: int
    sequence: int
    flags: int
    counting: int = LSO_IDS

    @property
    def frames(self) -> int:
        """How many segments there are; at least one."""
        return max(1, -(-(self.end - self.payload) // self.mss))


class _Heads:
    """Headers of segments with one length of payload: what is the same in them, and how to fill in the rest.

    One packing writes a whole head: the fields that differ, and the constant bytes between them.
    """

    def __init__(self, cut: Cut, length: int) -> None:
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
        self._counting = cut.counting
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
        parts, counting = self._constant, self._counting
        if len(self.headers) == 2:
            (_, first, rest), (_, first_inner, rest_inner) = self.headers
            outer, inner = _numbered(first, number, counting), _numbered(first_inner, number, counting)
            self._pack(
                to, place,
                parts[0], outer, parts[1], _folded(rest + outer),
                parts[2], inner, parts[3], _folded(rest_inner + inner),
                parts[4], sequence, parts[5], flags, parts[6],
            )  # fmt: skip
            return
        values: list[bytes | int] = []
        for position, (_, first, rest) in enumerate(self.headers):
            identification = _numbered(first, number, counting)
            values += (
                parts[2 * position],
                identification,
                parts[2 * position + 1],
                _folded(rest + identification),
            )
        self._pack(to, place, *values, parts[-3], sequence, parts[-2], flags, parts[-1])


class Segments:
    """The segments of a super-packet, by number. frames: how many; size: bytes of vnet header and headers."""

    def __init__(self, cut: Cut) -> None:
        self.frames = cut.frames
        self.size = VNET + len(cut.template)
        self._final, self._mss = self.frames - 1, cut.mss
        self._payload, self._end, self._sequence = cut.payload, cut.end, cut.sequence
        # flags of the first one, of those in the middle and of the last one of several
        self._first_flags, self._last_flags = cut.flags & ~_FIN_PSH, cut.flags & ~_CWR
        self._middle_flags = cut.flags & ~_FIN_PSH & ~_CWR
        length = cut.end - cut.payload
        rest = length - self._final * cut.mss
        self._full = _Heads(cut, min(cut.mss, length))
        self._last = _Heads(cut, rest) if self._final and rest != cut.mss else self._full
        if not self._final:
            self._last_flags = cut.flags

    def write(self, to: bytearray, place: int, number: int) -> tuple[int, int]:
        """A segment's vnet header and headers at ``place``, the checksum open; where its data are.

        Returns (start of the payload in the buffer, its length).
        """
        mss = self._mss
        done = number * mss
        at = self._payload + done
        sequence = self._sequence + done & 0xFFFFFFFF
        if number < self._final:
            flags = self._middle_flags if number else self._first_flags
            self._full.write(to, place, number, sequence, flags)
            return at, mss
        self._last.write(to, place, number, sequence, self._last_flags)
        return at, self._end - at


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
        segments = Segments(_of_vm(self._data, header, end))
        sent, count, size = 0, segments.frames, segments.size
        heads, addresses, base, pack = self._heads, self._head_addresses, self._base, _IOVEC.pack_into
        for begin in range(0, count, FRAMES):
            some = min(FRAMES, count - begin)
            for slot in range(some):
                at, length = segments.write(heads, slot * _HEAD, begin + slot)
                pack(self._iovecs, slot * 32, addresses[slot], size, base + at, length)
            done = self._flush(uplink, some)
            sent += done
            if done < some:
                break
        return sent, count - sent

    def _flush(self, uplink: Uplink, count: int) -> int:
        """How many frames the NIC took."""
        uplink.flush()  # what came before
        at, left = self._messages_at, count
        while left and (done := self._sendmmsg(uplink.fileno(), at, left, 0)) > 0:
            at += done * _MESSAGE.size
            left -= done
        return count - left


def _of_vm(data: bytearray, header: bytes, end: int) -> Cut:
    """Of a packet as a VM has handed it over, with the outer headers and inner MACs that it will have."""
    _, _, _, gso_size, start, _ = VNET_HEADER.unpack_from(data, READ)
    payload = INNER + start + (data[INNER + start + 12] >> 2 & 60)
    inner = data[INNER:payload]
    inner[: len(header[-12:])] = header[-12:]
    return cut_of(header[:-12] + inner, len(header[:-12]), start, gso_size, payload, end)


def cut_of(
    template: bytes, outer: int, start: int, mss: int, payload: int, end: int, counting: int = LSO_IDS
) -> Cut:
    """How to cut a packet. template: all headers, the first ``outer`` bytes of which are outer ones.

    start: of the TCP header, from the inner Ethernet header on. payload, end: in the buffer.
    """
    at = outer + 12
    while int.from_bytes(template[at : at + 2], "big") in TAGS:
        at += 4
    tcp = outer + start
    return Cut(
        template=template,
        outer=14 if outer else 0,
        inner=at + 2,
        tcp=tcp,
        payload=payload,
        end=end,
        mss=mss,
        sequence=int.from_bytes(template[tcp + 4 : tcp + 8], "big"),
        flags=template[tcp + 13],
        counting=counting,
    )


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


def _numbered(first: int, number: int, counting: int) -> int:
    """The identification of a segment: the bits of ``counting`` count."""
    return first & ~counting | first + number & counting


def _folded(total: int) -> int:
    """The checksum that a sum of 16-bit words becomes."""
    return (total & 0xFFFF) + (total >> 16) ^ 0xFFFF
