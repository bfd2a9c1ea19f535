"""Faults of a cable, their words, and memory shared with ``bpf/faults.c``: ``struct direction``, twice."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from testbed.errors import BadInput

Way: TypeAlias = Literal["to-host", "from-host"]
WAYS: tuple[Way, ...] = ("to-host", "from-host")
_BLACK_HOLE = 1
_ONE = 1 << 32
# generator, flags, loss, corruption, duplication, interface of the wire, of the port, counters
_DIRECTION = struct.Struct("=QIIIIII4Q")
_SETTINGS = struct.Struct("=QIIIIII")
_COUNTERS = ("passed", "lost", "corrupted", "duplicated")
_GOLDEN = 0x9E3779B97F4A7C15  # spreads small seeds over all bits


class Faults(Struct, frozen=True, forbid_unknown_fields=True):
    """What a direction of a cable does to frames.

    Parts are from 0 to 1; rate: bits per second, 0: no limit; delay, jitter: seconds. ``seed`` begins
    its chances anew. ``jitter`` keeps the order; what ``reordering`` takes is not delayed.
    """

    loss: float = 0.0
    corruption: float = 0.0
    duplication: float = 0.0
    black_hole: bool = False
    rate: int = 0
    delay: float = 0.0
    jitter: float = 0.0
    reordering: float = 0.0
    seed: int = 1

    @property
    def in_programs(self) -> bool:
        """Whether the cable's programs have anything to do with it."""
        parts = (self.loss, self.corruption, self.duplication, self.delay, self.jitter, self.reordering)
        return self.black_hole or any(parts)

    @property
    def held(self) -> bool:
        """Whether frames are held back on their way."""
        return bool(self.delay or self.jitter)


class FaultMemory:
    """The faults of a cable in its programs.

    descriptor: of the eBPF map, not needed any longer once this exists. port: the index of the cable's
    interface; wires: those of the devices, by way, through which frames that are held go.
    """

    def __init__(self, descriptor: int, port: int = 0, wires: Sequence[int] = (0, 0)) -> None:
        self._memory = mmap.mmap(descriptor, 2 * _DIRECTION.size)
        self._port = port
        self._wires = dict(zip(WAYS, wires, strict=True))
        for way in WAYS:
            self.write(way, Faults())

    def write(self, way: Way, faults: Faults) -> None:
        """From the next frame on; chances begin anew."""
        parts = (
            int(min(part, 1.0) * (_ONE - 1)) for part in (faults.loss, faults.corruption, faults.duplication)
        )
        state = faults.seed * _GOLDEN % (1 << 64) or 1
        flags = _BLACK_HOLE if faults.black_hole else 0
        wire = self._wires[way] if faults.held else 0
        at = WAYS.index(way) * _DIRECTION.size
        _SETTINGS.pack_into(self._memory, at, state, flags, *parts, wire, self._port)

    def counters(self, way: Way) -> dict[str, int]:
        """Frames of a direction since the cable can be faulty."""
        counters = _DIRECTION.unpack_from(self._memory, WAYS.index(way) * _DIRECTION.size)[7:]
        return dict(zip(_COUNTERS, counters, strict=True))

    def close(self) -> None:
        """Let go of the memory; the cable goes on as it is."""
        self._memory.close()


# ---- words ------------------------------------------------------------------------------------


def part(text: str) -> float:
    """A part of frames, "1%" or "0.01". Raises BadInput."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise BadInput(f"{text!r} is no part of frames; write it like 1% or 0.01")
    return value


def bits_per_second(text: str) -> int:
    """A rate, "200mbit", "1gbit" or "none" (0). Raises BadInput."""
    if text == "none":
        return 0
    for unit, factor in (("kbit", 1000), ("mbit", 10**6), ("gbit", 10**9)):
        number = text.removesuffix(unit)
        if number != text and number.isdecimal() and int(number):
            return int(number) * factor
    raise BadInput(f"{text!r} is no rate; write it like 200mbit, 1gbit or none")


def seconds(text: str) -> float:
    """A time, "5ms", "200us" or "1s", at most 10 s. Raises BadInput."""
    for unit, factor in (("ms", 1e-3), ("us", 1e-6), ("s", 1.0)):
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdecimal() and float(number) * factor <= 10:
            return float(number) * factor
    raise BadInput(f"{text!r} is no time up to 10s; write it like 5ms or 200us")


def described(faults: Faults) -> str:
    """What it does, in the words in which it is set; "" for a good cable."""
    words = [f"rate={faults.rate / 1e6:g}mbit"] if faults.rate else []
    times = (("delay", faults.delay), ("jitter", faults.jitter))
    words += [f"{word}={1000 * value:g}ms" for word, value in times if value]
    parts = ("loss", "corruption", "duplication", "reordering")
    words += [f"{word}={100 * value:g}%" for word in parts if (value := getattr(faults, word))]
    return " ".join([*words, *(["black-hole=on"] if faults.black_hole else [])])


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise BadInput(f"{text!r} is neither on nor off; write one of them")
    return text == "on"


def _seed(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1 << 32:
        raise BadInput(f"{text!r} is no seed; use a number from 1 on")
    return int(text)


WORDS: dict[str, Callable[[str], float | bool]] = {
    "loss": part,
    "corruption": part,
    "duplication": part,
    "black-hole": _switch,
    "rate": bits_per_second,
    "delay": seconds,
    "jitter": seconds,
    "reordering": part,
    "seed": _seed,
}


def changed(faults: Faults, settings: Mapping[str, str]) -> Faults:
    """Faults with some of the :data:`WORDS` set. Raises BadInput, also for what makes no sense together."""
    fields: dict[str, Any] = {key: getattr(faults, key) for key in Faults.__struct_fields__}
    for key, text in settings.items():
        if key not in WORDS:
            raise BadInput(f"{key!r} can't be set: use {', '.join(WORDS)}")
        fields[key.replace("-", "_")] = WORDS[key](text)
    found = Faults(**fields)
    if found.jitter > found.delay:
        raise BadInput("jitter is more than the delay that it varies; set a longer delay, or jitter=0ms")
    if found.reordering and not found.delay:
        raise BadInput("reordering is of what is delayed; set a delay such as delay=5ms, or reordering=0%")
    return found
