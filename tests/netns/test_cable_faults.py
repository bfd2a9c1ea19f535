"""The faults of a cable in eBPF, against the same rules in Python, on random frames."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from support import bpf
from testbed.errors import BadInput
from testbed.nic.bpf import loader
from testbed.nic.faults import WAYS, FaultMemory, Faults, bits_per_second, changed, part, seconds

pytestmark = pytest.mark.netns
SHOT, UNSPEC = 2, 0xFFFFFFFF
GOLDEN = 0x9E3779B97F4A7C15


class Generator:
    """xorshift64 (Marsaglia 2003), of which the upper half counts."""

    def __init__(self, seed: int) -> None:
        self.state = seed * GOLDEN % 2**64

    def roll(self) -> int:
        self.state ^= self.state << 13 & 2**64 - 1
        self.state ^= self.state >> 7
        self.state ^= self.state << 17 & 2**64 - 1
        return self.state >> 32


def model(generator: Generator, faults: Faults, frame: bytes) -> bytes | None:
    """What comes of a frame; None: it is lost. Duplicates are no matter here."""
    loss, corruption, _, place = (generator.roll() for _ in range(4))
    if faults.black_hole or loss < int(faults.loss * (2**32 - 1)):
        return None
    if corruption < int(faults.corruption * (2**32 - 1)):
        at = 14 + place % (len(frame) - 14)
        return frame[:at] + bytes([frame[at] ^ 1 << (place >> 29)]) + frame[at + 1 :]
    return frame


@pytest.fixture
def cable() -> Iterator[tuple[FaultMemory, list[int]]]:
    descriptor, programs = loader.load_with_map("faults", "faults", "to_host", "from_host")
    memory = FaultMemory(descriptor)
    os.close(descriptor)
    yield memory, programs
    memory.close()
    for program in programs:
        os.close(program)


@pytest.mark.parametrize("seed", [1, 2, 12345])
def test_both_ways_do_what_the_rules_say(cable: tuple[FaultMemory, list[int]], seed: int) -> None:
    memory, programs = cable
    dice = random.Random(seed)
    settings = [Faults(loss=0.3, corruption=0.5, seed=seed), Faults(loss=0.1, corruption=0.9, seed=seed + 1)]
    generators = [Generator(each.seed) for each in settings]
    for way, faults in zip(WAYS, settings, strict=True):
        memory.write(way, faults)
    for _ in range(2000):
        which = dice.randrange(2)
        frame = dice.randbytes(12) + b"\x88\xb5" + dice.randbytes(dice.randrange(46, 1500))
        ran = bpf.run(programs[which], frame)
        expected = model(generators[which], settings[which], frame)
        assert (ran.verdict, ran.frame if expected else None) == (UNSPEC if expected else SHOT, expected)
    counters = [memory.counters(way) for way in WAYS]
    assert sum(each["lost"] + each["passed"] for each in counters) == 2000
    assert all(each["corrupted"] for each in counters)


def test_the_same_seed_is_the_same_run(cable: tuple[FaultMemory, list[int]]) -> None:
    memory, (to_host, _) = cable
    frame = bytes(12) + b"\x88\xb5" + bytes(100)
    runs = []
    for seed in (5, 5, 6):
        memory.write("to-host", Faults(loss=0.5, seed=seed))
        runs.append([bpf.run(to_host, frame).verdict for _ in range(200)])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_black_hole_takes_all_and_a_good_cable_nothing(cable: tuple[FaultMemory, list[int]]) -> None:
    memory, (to_host, from_host) = cable
    frame = bytes(12) + b"\x88\xb5" + bytes(100)
    memory.write("to-host", Faults(black_hole=True))
    assert {bpf.run(to_host, frame).verdict for _ in range(50)} == {SHOT}
    assert {bpf.run(from_host, frame).frame for _ in range(50)} == {frame}
    memory.write("to-host", Faults())
    assert {bpf.run(to_host, frame).frame for _ in range(50)} == {frame}


def test_words_for_parts_and_rates() -> None:
    assert [part(text) for text in ("1%", "0.01", "0", "100%")] == [0.01, 0.01, 0.0, 1.0]
    assert [bits_per_second(text) for text in ("200mbit", "1gbit", "56kbit", "none")] == [2e8, 1e9, 56e3, 0]
    for text in ("101%", "-1", "many", "nan%"):
        with pytest.raises(BadInput, match="write it like 1%"):
            part(text)
    for text in ("200", "0mbit", "fast", "1.5gbit"):
        with pytest.raises(BadInput, match="write it like 200mbit"):
            bits_per_second(text)


def test_words_for_times() -> None:
    found = [seconds(text) for text in ("5ms", "200us", "1s", "0.5ms", "0s")]
    assert found == pytest.approx([5e-3, 2e-4, 1, 5e-4, 0])
    for text in ("5", "11s", "-1ms", "ms", "1.2.3ms"):
        with pytest.raises(BadInput, match="write it like 5ms"):
            seconds(text)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"jitter": "1ms"}, "a longer delay, or jitter=0ms"),
        ({"reordering": "1%"}, "a delay such as delay=5ms"),
        ({"black-hole": "maybe"}, "neither on nor off"),
        ({"seed": "0"}, "a number from 1 on"),
        ({"colour": "red"}, "can't be set: use loss, "),
    ],
)
def test_what_makes_no_sense(settings: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        changed(Faults(), settings)


def test_what_is_not_named_stays() -> None:
    before = Faults(loss=0.5, delay=0.01, seed=4)
    after = changed(before, {"jitter": "2ms", "black-hole": "on"})
    assert after == Faults(loss=0.5, delay=0.01, jitter=0.002, black_hole=True, seed=4)
