"""The registers of a NIC's receive side: memory shared with ``bpf/cable.c``, written as a driver does.

The layout is ``struct registers`` of that file.
"""

from __future__ import annotations

import mmap
import struct

from testbed.nic.classifier import KINDS, Steering
from testbed.nic.offloads import Offloads

_QUEUES_SHIFT = 16
_RSS, _VMQ, _NVGRE_RSS, _NVGRE_VMQ, _RSC, _NVGRE_RSC = 1, 2, 4, 8, 16, 32
TABLE = 128  # entries at most; a power of two
FILTERS = 64
_HEAD = struct.Struct("=IIII40s128s")  # control, hash types, table mask, default queue, key, table
_FILTER = struct.Struct("=6sBBH6x")
_COUNTERS = struct.Struct("=6Q")
_FILTERS_AT = _HEAD.size
_COUNTERS_AT = _FILTERS_AT + FILTERS * _FILTER.size
SIZE = _COUNTERS_AT + _COUNTERS.size


class Registers:
    """One NIC's. ``descriptor``: of the eBPF map; it is not needed any longer once this exists."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, SIZE)

    def write(self, steering: Steering, offloads: Offloads, queues: int = 1) -> None:
        """Program the NIC, which has so many queues. In between a frame is on some queue that exists."""
        memory = self._memory
        filters = list(steering.filters.items())[:FILTERS]
        raw = b"".join(_FILTER.pack(mac, queue, 1, vlan) for (mac, vlan), queue in filters)
        memory[_FILTERS_AT:_COUNTERS_AT] = raw.ljust(FILTERS * _FILTER.size, b"\0")
        table = bytes(steering.table).ljust(TABLE, b"\0")
        mask = len(steering.table) - 1
        memory[: _HEAD.size] = _HEAD.pack(
            control(steering, offloads, queues),
            steering.hash_types,
            mask,
            steering.default_queue,
            steering.key,
            table,
        )

    def counters(self) -> dict[str, int]:
        """Frames by kind of hash, and those that no VMQ filter has matched."""
        *hashed, unmatched = _COUNTERS.unpack_from(self._memory, _COUNTERS_AT)
        names = (f"rx_hash_{kind.replace('-', '_')}" for kind in KINDS)
        named = dict(zip(names, hashed, strict=True))
        return {**named, "rx_vmq_unmatched": unmatched}

    def close(self) -> None:
        """Let go of the memory; the hardware goes on with what it has."""
        self._memory.close()


def control(steering: Steering, offloads: Offloads, queues: int = 1) -> int:
    """The control register."""
    switches = (
        (_RSS, steering.rss),
        (_VMQ, steering.vmq),
        (_NVGRE_RSS, steering.nvgre_rss),
        (_NVGRE_VMQ, steering.nvgre_vmq),
        (_RSC, offloads.plain.rsc),
        (_NVGRE_RSC, offloads.nvgre.rsc),
    )
    return sum(bit for bit, on in switches if on) | queues << _QUEUES_SHIFT
