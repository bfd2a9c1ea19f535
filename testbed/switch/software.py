"""What the host does itself for a NIC that does not offload it: segmentation and transmit checksums.

The switch segments. Checksums are left to the host's kernel, whose software completes them before a frame
enters the cable (``wire: frames``), at a tenth of what Python would take; here they are counted.
"""

from __future__ import annotations

from testbed.switch.buffer import INNER, NEEDS_CSUM, READ, VNET_HEADER, Action, FrameBuffer
from testbed.switch.drops import Drop, DropCounts, count
from testbed.switch.pipeline import NIC
from testbed.switch.segmentation import Segmenter
from testbed.switch.uplink import Uplink

_DATA_OFFSET = INNER + 12


class SoftwareOffload:
    """In front of an action that sends: it gets only what its NIC can do.

    header: outer headers and inner MACs of what is encapsulated, else nothing. limit: bytes of the
    longest frame that the VM may send. oversize: what becomes of one that is longer.
    """

    __slots__ = (
        "_completes",
        "_data",
        "_drops",
        "_header",
        "_limit",
        "_oversize",
        "_segmenter",
        "_segments",
        "_send",
        "_uplink",
        "_vsid",
    )

    def __init__(
        self,
        buffer: FrameBuffer,
        segmenter: Segmenter,
        send: Action,
        uplink: Uplink,
        drops: DropCounts,
        *,
        header: bytes,
        vsid: int,
        limit: int,
        oversize: Action,
    ) -> None:
        self._data = buffer.data
        self._segmenter = segmenter
        self._send = send
        self._uplink = uplink
        self._drops = drops
        self._header = header
        self._vsid = vsid
        self._limit = limit
        self._oversize = oversize
        tasks = uplink.nvgre if header else uplink.plain
        self._segments = not tasks.lso
        self._completes = not tasks.tx_checksum

    def __call__(self, end: int) -> None:
        """Send the packet that ends at ``end``, in pieces if need be."""
        data = self._data
        if data[READ] & NEEDS_CSUM:
            if data[READ + 1]:
                if self._segments:
                    self._cut(end)
                    return
            elif self._completes:
                self._uplink.tx_software_checksums += 1
        self._send(end)

    def _cut(self, end: int) -> None:
        uplink = self._uplink
        _, _, _, gso_size, start, _ = VNET_HEADER.unpack_from(self._data, READ)
        headers = start + (self._data[_DATA_OFFSET + start] >> 2 & 60)
        if headers + gso_size > self._limit and end - INNER > self._limit:
            self._oversize(end)
            return
        sent, refused = self._segmenter.send(uplink, self._header, end)
        per_frame = headers + len(self._header[:-12])
        uplink.tx_packets += sent
        uplink.tx_bytes += sent * per_frame + (end - INNER - headers if not refused else sent * gso_size)
        uplink.tx_software_segments += sent
        if self._completes:
            uplink.tx_software_checksums += sent
        if refused:
            count(self._drops, NIC, uplink.name, self._vsid, Drop.TX_REFUSED, refused)
