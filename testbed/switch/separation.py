"""A packet that the kernel has joined though NDIS would not have: cut up again, see the coalescing module."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.packets import nvgre
from testbed.packets.malformed import MalformedFrame
from testbed.switch.buffer import READ, VNET, VNET_HEADER, WIRE, FrameBuffer
from testbed.switch.coalescing import FIN, PSH, SHORTEST, joinable
from testbed.switch.segmentation import ALL_IDS, Cut, Segments, cut_of
from testbed.switch.uplink import Uplink


def separated(uplink: Uplink, buffer: FrameBuffer, end: int) -> Iterator[int]:
    """Put each packet that NDIS would have made of a joined one into the buffer, and say where it ends.

    Where FIN alone was too much, all frames but the last stay joined, and are counted so.
    """
    data = buffer.data
    flags, kind, _, mss, start, offset = VNET_HEADER.unpack_from(data, READ)
    frame, tcp = bytes(buffer.view[WIRE:end]), WIRE + start
    size, outer = start + (data[tcp + 12] >> 2 & 60), _outer(frame)
    if start - outer < SHORTEST or size < start + 20 or size > len(frame):
        yield end
        return
    cut = cut_of(frame[:size], outer, start - outer, mss, size, len(frame), ALL_IDS)
    segments, first = Segments(cut), 0
    if segments.frames > 2 and joinable(data, tcp, start, besides=FIN):
        first = segments.frames - 1
        uplink.rx_rsc_packets += 1
        uplink.rx_rsc_segments += first
        # the kernel says how much of the whole packet was in one piece; more than is left would be refused
        vnet = VNET_HEADER.pack(flags, kind, size, mss, start, offset)
        yield buffer.restore(WIRE, vnet, _without_last(cut, frame))
    for number in range(first, segments.frames):
        head = bytearray(segments.size)
        at, length = segments.write(head, 0, number)
        yield buffer.restore(WIRE, bytes(head[:VNET]), bytes(head[VNET:]) + frame[at : at + length])


def _without_last(cut: Cut, frame: bytes) -> bytes:
    """All segments but the last one as one packet."""
    length = (cut.frames - 1) * cut.mss
    end = cut.payload + length
    segments = Segments(cut._replace(end=end, mss=length, flags=cut.flags & ~(FIN | PSH)))
    head = bytearray(segments.size)
    segments.write(head, 0, 0)
    return bytes(head[VNET:]) + frame[cut.payload : end]


def _outer(frame: bytes) -> int:
    """Bytes of the outer headers of an NVGRE frame; 0: it is none."""
    try:
        return nvgre.parse(frame).header
    except MalformedFrame:
        return 0
