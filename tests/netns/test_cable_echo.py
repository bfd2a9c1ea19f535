"""A switch's port gives loopback messages back, and nothing else, through the faults of both ways."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from support.aggregate_lab import AggregateLab, aggregate_lab
from support.frames import ethernet, mac
from testbed.namespaces import in_netns
from testbed.nic.faults import FaultMemory, Faults, Way
from testbed.wiring import tap
from testbed.wiring.hardware import attach_echo, attach_faults

pytestmark = pytest.mark.netns
ASKER, TARGET = mac("00:15:5d:00:00:01"), mac("00:15:5d:00:00:ee")
MAGIC = bytes.fromhex("7e57bed5")
BODY = MAGIC + bytes(range(42))
QUESTION = ethernet(TARGET, ASKER, 0x88B5, BODY)
ANSWER = ethernet(ASKER, TARGET, 0x88B5, BODY)


@pytest.fixture
def lab() -> Iterator[AggregateLab]:
    with aggregate_lab(1) as made:
        with in_netns(made.fabric), IPRoute() as ip:
            attach_echo(ip, ip.link_lookup(ifname="p1")[0])
        yield made


@pytest.fixture
def faults(lab: AggregateLab) -> Iterator[FaultMemory]:
    with in_netns(lab.fabric), IPRoute() as ip:
        wires = [tap.open_wire() for _ in range(2)]
        indexes = [ip.link_lookup(ifname=name)[0] for _, name in wires]
        descriptor = attach_faults(ip, ip.link_lookup(ifname="p1")[0], indexes)
    memory = FaultMemory(descriptor)
    yield memory
    memory.close()
    for each in (descriptor, *(wire for wire, _ in wires)):
        os.close(each)


def learned(lab: AggregateLab) -> set[str]:
    """What the bridge knows by learning."""
    with in_netns(lab.fabric), IPRoute() as ip:
        return {entry.get("lladdr") for entry in ip.get_neighbours(family=7) if not entry["state"] & 0x80}


def test_a_message_comes_back_once_and_the_bridge_sees_nothing(lab: AggregateLab) -> None:
    lab.taps["nic1"].send(QUESTION)
    assert lab.received() == {"nic0": [], "nic1": [ANSWER]}
    assert ASKER.hex(":") not in learned(lab)


@pytest.mark.parametrize(
    "frame",
    [
        ethernet(TARGET, ASKER, 0x88B6, BODY),
        ethernet(TARGET, ASKER, 0x88B5, b"\x7e\x57\xbe\xd4" + BODY[4:]),
        ethernet(TARGET, ASKER, 0x88B5, MAGIC[:3]),
        ethernet(TARGET, ASKER, 0x8100, b"\0\x07\x88\xb5" + BODY),
    ],
    ids=["type", "magic", "short", "tagged"],
)
def test_everything_else_is_bridged(lab: AggregateLab, frame: bytes) -> None:
    lab.taps["nic1"].send(frame)
    came = lab.received()  # without its tag, which the kernel has put beside it
    assert [len(came[nic]) for nic in ("nic0", "nic1")] == [1, 0]
    assert ASKER.hex(":") in learned(lab)


@pytest.mark.parametrize("way", ["to-host", "from-host"])
def test_faults_take_it_on_either_way(lab: AggregateLab, faults: FaultMemory, way: Way) -> None:
    faults.write(way, Faults(black_hole=True))
    lab.taps["nic1"].send(QUESTION)
    assert lab.received() == {"nic0": [], "nic1": []}
    assert faults.counters(way)["lost"] == 1
    faults.write(way, Faults())
    lab.taps["nic1"].send(QUESTION)
    assert lab.received() == {"nic0": [], "nic1": [ANSWER]}
