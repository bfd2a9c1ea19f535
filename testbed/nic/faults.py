"""Faults of a cable: memory shared with ``bpf/faults.c``, whose ``struct direction`` is there twice."""

from __future__ import annotations

import mmap
import struct
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from testbed.errors import BadInput

Way: TypeAlias = Literal["to-host", "from-host"]
WAYS: tuple[Way, ...] = ("to-host", "from-host")
_BLACK_HOLE = 1
_ONE = 1 << 32
_DIRECTION = struct.Struct("=QIIII4Q")  # generator, flags, loss, corruption, duplication, counters
_SETTINGS = struct.Struct("=QIIII")
_COUNTERS = ("passed", "lost", "corrupted", "duplicated")
_GOLDEN = 0x9E3779B97F4A7C15  # spreads small seeds over all bits


class Faults(Struct, frozen=True, forbid_unknown_fields=True):
    """What a direction of a cable does to frames. Parts are from 0 to 1; ``seed`` begins its chances anew."""

    loss: float = 0.0
    corruption: float = 0.0
    duplication: float = 0.0
    black_hole: bool = False
    seed: int = 1


class FaultMemory:
    """The faults of a cable. ``descriptor``: of the eBPF map, not needed any longer once this exists."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, 2 * _DIRECTION.size)
        self._now = dict.fromkeys(WAYS, Faults())
        for way in WAYS:
            self.write(way, Faults())

    def write(self, way: Way, faults: Faults) -> None:
        """From the next frame on; chances begin anew."""
        parts = (
            int(min(part, 1.0) * (_ONE - 1)) for part in (faults.loss, faults.corruption, faults.duplication)
        )
        state = faults.seed * _GOLDEN % (1 << 64) or 1
        flags = _BLACK_HOLE if faults.black_hole else 0
        _SETTINGS.pack_into(self._memory, WAYS.index(way) * _DIRECTION.size, state, flags, *parts)
        self._now[way] = faults

    def describe(self, way: Way) -> dict[str, Any]:
        """Settings and counters of a direction."""
        counters = _DIRECTION.unpack_from(self._memory, WAYS.index(way) * _DIRECTION.size)[5:]
        now = self._now[way]
        return {
            "loss": now.loss,
            "corruption": now.corruption,
            "duplication": now.duplication,
            "black_hole": now.black_hole,
            "seed": now.seed,
            "counters": dict(zip(_COUNTERS, counters, strict=True)),
        }

    def now(self, way: Way) -> Faults:
        """The settings of a direction."""
        return self._now[way]

    def close(self) -> None:
        """Let go of the memory; the cable goes on as it is."""
        self._memory.close()


def part(text: str) -> float:
    """A part of frames, "1%" or "0.01". Raises BadInput."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise BadInput(f"{text!r} is no part of frames: write it like 1% or 0.01")
    return value


def bits_per_second(text: str) -> int:
    """A rate, "200mbit", "1gbit" or "none" (0). Raises BadInput."""
    if text == "none":
        return 0
    for unit, factor in (("kbit", 1000), ("mbit", 10**6), ("gbit", 10**9)):
        number = text.removesuffix(unit)
        if number != text and number.isdecimal() and int(number):
            return int(number) * factor
    raise BadInput(f"{text!r} is no rate: write it like 200mbit, 1gbit or none")
