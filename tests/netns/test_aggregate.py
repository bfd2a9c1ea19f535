"""The aggregate in eBPF does what its model in Python says, on random frames."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from support import bpf
from support.frames import GRE, TCP, UDP, encapsulated, ethernet, ipv4, ipv6, ports
from testbed.nic.aggregate import MEMBERS, SIZE, Aggregate, choose, hash_of
from testbed.nic.bpf import loader

pytestmark = pytest.mark.netns
SHOT, REDIRECT = 2, 7
LOOPBACK = 1  # the interface by which BPF_PROG_TEST_RUN gives frames to a program
MAC_A, MAC_B = bytes.fromhex("00155d000001"), bytes.fromhex("00155d000002")
INDEXES = (11, 12, 13, 14, 15, 16, 17, LOOPBACK)
PAS = {4: ("192.168.7.1", "192.168.7.2"), 6: ("fd00:7::1", "fd00:7::2")}


class Switch:
    """Loaded programs and their memory."""

    def __init__(self) -> None:
        names = ("aggregate_tx", "aggregate_rx", "aggregate_ears")
        memory, self.programs = loader.load_with_map("aggregate", "aggregate", *names)
        self.transmit, self.receive, self.ears = self.programs
        self.aggregate = Aggregate(memory, 3, 4, INDEXES)
        os.close(memory)

    def check(self, frame: bytes) -> int:
        """The member from both, which is returned."""
        ran = bpf.run(self.transmit, frame)
        assert (ran.verdict, ran.frame) == (REDIRECT, frame)
        active = self.aggregate.active()
        assert ran.cb[:3] == (choose(frame, active), hash_of(frame), len(active)), frame.hex()
        return ran.cb[0]

    def close(self) -> None:
        self.aggregate.close()
        for program in self.programs:
            os.close(program)


@pytest.fixture
def switch() -> Iterator[Switch]:
    made = Switch()
    yield made
    made.close()


def packet(version: int, protocol: int, payload: bytes, addresses: tuple[str, str]) -> bytes:
    if version == 6:
        return ethernet(MAC_B, MAC_A, 0x86DD, ipv6(*addresses, protocol, payload))
    return ethernet(MAC_B, MAC_A, 0x0800, ipv4(*addresses, protocol, payload))


def nvgre(version: int, flow: int, vsid: int = 5001) -> bytes:
    inner = packet(4, UDP, ports(flow, 80) + bytes(16), ("10.0.0.5", "10.0.0.6"))
    return encapsulated(inner, vsid, *PAS[version], MAC_B, flow_id=flow)


def random_frame(dice: random.Random) -> bytes:
    """Broken ones too: cut, with options, of other types, with some bytes changed, with a tag."""
    version = dice.choice((4, 6))
    protocol = dice.choice((TCP, UDP, 1, GRE))
    host = dice.randrange(1, 255)
    addresses = (f"10.0.{host}.5", f"10.0.0.{host}") if version == 4 else (f"fd00::{host:x}", "fd00::6")
    frame = packet(version, protocol, dice.randbytes(dice.randrange(30)), addresses)
    if dice.random() < 0.5:
        frame = nvgre(version, dice.randrange(256), dice.randrange(1 << 24))
    if dice.random() < 0.2:
        frame = frame[:12] + dice.choice((b"\x81\0", b"\x88\xa8")) + dice.randbytes(2) + frame[12:]
    cut = dice.choice((len(frame), len(frame), dice.randrange(34, len(frame) + 1)))
    changed = bytearray(frame[:cut].ljust(54, b"\0"))  # the kernel runs nothing on less than an IP header
    for _ in range(dice.choice((0, 0, 1, 3))):
        changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("seed", [1, 2])
def test_any_frame_takes_the_member_of_the_rule(switch: Switch, seed: int) -> None:
    dice = random.Random(seed)
    seen: Counter[int] = Counter()
    for _ in range(3000):
        switch.aggregate.write(dice.sample(INDEXES, dice.randrange(1, MEMBERS + 1)))
        seen[switch.check(random_frame(dice))] += 1
    assert set(seen) == set(INDEXES)
    counters = switch.aggregate.counters()
    assert {member: counters[member]["sent"] for member in INDEXES} == seen


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_flows_of_a_host_pair_spread(switch: Switch, version: int, count: int) -> None:
    """256 flows: each member has its part within four standard deviations of a fair choice."""
    switch.aggregate.write(INDEXES[:count])
    for vsid in (5001, 5002, 0xFFFFFE):
        taken = Counter(switch.check(nvgre(version, flow, vsid)) for flow in range(256))
        spread = 4 * (256 * (1 / count) * (1 - 1 / count)) ** 0.5
        assert len(taken) == count
        assert all(abs(frames - 256 / count) <= spread for frames in taken.values()), taken


def test_what_the_hash_goes_by(switch: Switch) -> None:
    switch.aggregate.write(INDEXES)

    def values(frames: list[bytes]) -> int:
        for frame in frames:
            switch.check(frame)
        return len({hash_of(frame) for frame in frames})

    tcp = [packet(4, TCP, ports(port, 80) + bytes(16), ("10.0.0.5", "10.0.0.6")) for port in range(50)]
    assert values(tcp) == 50
    assert values([frame[:20] + b"\x20\0" + frame[22:] for frame in tcp]) == 1  # fragments
    assert values([packet(4, 1, bytes([byte] * 8), ("10.0.0.5", "10.0.0.6")) for byte in range(50)]) == 1
    assert values([nvgre(4, 7)[:-4] + bytes([byte] * 4) for byte in range(50)]) == 1
    assert values([nvgre(4, 7, vsid) for vsid in range(5000, 5050)]) == 50
    other_gre = [nvgre(4, flow).replace(b"\x20\0\x65\x58", b"\x30\0\x65\x58") for flow in range(50)]
    assert values(other_gre) == 1  # with a sequence number it is no NVGRE
    arp = [ethernet(b"\xff" * 6, MAC_A[:5] + bytes([byte]), 0x0806, bytes(28)) for byte in range(50)]
    assert values(arp) == 50


def test_nobody_to_send_by(switch: Switch) -> None:
    for _ in range(3):
        assert bpf.run(switch.transmit, nvgre(4, 1)).verdict == SHOT
    assert choose(nvgre(4, 1), []) is None
    assert switch.aggregate.drops() == {"no-member": 3, "stranger": 0}


def test_an_inactive_member_takes_nothing_but_slow_protocols(switch: Switch) -> None:
    slow = ethernet(bytes.fromhex("0180c2000002"), MAC_A, 0x8809, bytes(110))
    switch.aggregate.write(INDEXES[:3])
    assert bpf.run(switch.receive, nvgre(4, 1)).verdict == SHOT
    assert bpf.run(switch.receive, slow).verdict == REDIRECT
    switch.aggregate.write([LOOPBACK])
    assert bpf.run(switch.receive, nvgre(4, 1)).verdict == REDIRECT
    assert bpf.run(switch.receive, slow).verdict == REDIRECT
    counters = switch.aggregate.counters()[LOOPBACK]
    assert counters == {"sent": 0, "received": 1, "inactive": 1, "slow": 2}
    assert bpf.run(switch.ears, slow).verdict == SHOT


def test_no_member_takes_frames_of_another_interface(switch: Switch) -> None:
    memory, programs = loader.load_with_map("aggregate", "aggregate", "aggregate_rx")
    aggregate = Aggregate(memory, 3, 4, INDEXES[:2])
    aggregate.write(INDEXES[:2])
    assert bpf.run(programs[0], nvgre(4, 1)).verdict == SHOT
    assert aggregate.drops() == {"no-member": 0, "stranger": 1}
    aggregate.close()
    for descriptor in (memory, *programs):
        os.close(descriptor)


def test_the_memory_fits_a_page_and_eight_members() -> None:
    assert SIZE <= 4096
    with pytest.raises(ValueError, match="9 members are more than 8"):
        Aggregate(-1, 1, 2, range(9))
