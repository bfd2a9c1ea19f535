"""Partner drives the switch's end of a team: by carrier, and by LACP with a host on real cables."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from pyroute2 import IPRoute

from support.aggregate_lab import AggregateLab, HostEnd, aggregate_lab
from support.frames import encapsulated, ethernet, mac
from testbed.host.team.partner import Mode, Partner
from testbed.namespaces import in_netns
from testbed.nic.aggregate import choose
from testbed.nic.faults import FaultMemory, Faults, Way
from testbed.wiring import tap
from testbed.wiring.hardware import attach_faults

pytestmark = pytest.mark.netns
SYSTEM, HOST = "02:00:00:00:00:0b", mac("02:00:00:00:00:0a")
PLAIN, TEAM = mac("00:15:5d:00:00:01"), mac("00:15:5d:00:00:02")
SOON = 0.05
UP = 1.0


@pytest.fixture(params=[2, 3, 4])
def lab(request: pytest.FixtureRequest) -> Iterator[AggregateLab]:
    with aggregate_lab(request.param) as made:
        yield made


@contextlib.asynccontextmanager
async def partner(lab: AggregateLab, mode: Mode) -> AsyncIterator[Partner]:
    parts = lab.aggregate()
    descriptors, parts.descriptors[:] = list(parts.descriptors), []
    message = {**parts._asdict(), "ports": lab.ports, "system": SYSTEM}
    made = Partner(asyncio.get_running_loop(), mode, message, descriptors)
    try:
        yield made
    finally:
        made.close()


@contextlib.asynccontextmanager
async def host_end(lab: AggregateLab) -> AsyncIterator[HostEnd]:
    made = HostEnd(lab, asyncio.get_running_loop(), HOST)
    try:
        yield made
    finally:
        made.close()


async def comes(condition: Callable[[], bool], seconds: float) -> None:
    """Fail unless the condition holds within the time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


def active(made: Partner) -> set[str]:
    return {port for port, member in made.describe()["members"].items() if member["active"]}


def frames(number: int = 32) -> list[bytes]:
    inner = ethernet(TEAM, PLAIN, 0x0800, bytes(60))
    return [
        encapsulated(inner, 5001, "192.168.7.1", "192.168.7.2", TEAM, PLAIN, flow) for flow in range(number)
    ]


def expected(lab: AggregateLab, members: list[str]) -> list[list[str]]:
    by_port = dict(zip(lab.ports, lab.nics, strict=True))
    positions = range(len(members))
    chosen = [choose(frame, positions) for frame in frames()]
    return [[by_port[members[position]]] for position in chosen if position is not None]


@pytest.mark.parametrize("end", ["p1", "nic1"])
def test_without_lacp_the_members_with_carrier_share_the_flows(lab: AggregateLab, end: str) -> None:
    async def run() -> None:
        async with partner(lab, "Static") as made:
            await comes(lambda: active(made) == set(lab.ports), SOON)
            lab.reached("nic1", [ethernet(PLAIN, TEAM, 0x88B6, bytes(50))])
            assert lab.reached("nic0", frames()) == expected(lab, lab.ports)
            for _ in range(3):
                lab.set(end, state="down")
                await comes(lambda: active(made) == set(lab.ports[1:]), SOON)
                assert lab.reached("nic0", frames()) == expected(lab, lab.ports[1:])
                assert not made.describe()["members"]["p1"]["carrier"]
                lab.set(end, state="up")
                await comes(lambda: active(made) == set(lab.ports), SOON)
            assert lab.reached("nic0", frames()) == expected(lab, lab.ports)
            assert made.describe()["drops"] == {"no-member": 0, "stranger": 0}
            assert made.describe()["lacp"] is None

    asyncio.run(run())


def test_with_lacp_both_ends_agree(lab: AggregateLab) -> None:
    async def run() -> None:
        async with partner(lab, "Lacp") as made, host_end(lab) as host:
            both = set(lab.nics), set(lab.ports)
            await comes(lambda: (host.working, active(made)) == both, UP)
            assert _system(made.describe()["lacp"]) == (HOST.hex(":"), 7)
            assert _system(host.lacp.describe()) == (SYSTEM, 1)
            lab.reached("nic1", [ethernet(PLAIN, TEAM, 0x88B6, bytes(50))])
            assert lab.reached("nic0", frames()) == expected(lab, lab.ports)
            lab.set("nic1", state="down")
            rest = set(lab.nics[1:]), set(lab.ports[1:])
            await comes(lambda: (host.working, active(made)) == rest, SOON)
            assert lab.reached("nic0", frames()) == expected(lab, lab.ports[1:])
            lab.set("nic1", state="up")
            await comes(lambda: (host.working, active(made)) == both, 2 * UP)
            host.close()
            await comes(lambda: not active(made), 3.2)
            assert lab.reached("nic0", frames(3)) == [[]] * 3
            assert made.describe()["drops"]["no-member"] == 3

    asyncio.run(run())


def _system(told: dict[str, dict[str, object]]) -> tuple[object, object]:
    return told["partner"]["system"], told["partner"]["key"]


@pytest.mark.parametrize("way", ["to-host", "from-host"])
def test_lacp_notices_a_cable_that_carries_nothing_either_way(way: Way) -> None:
    """Its carrier is there all the time; LACPDUs suffer what the cable's other frames do."""

    async def run(lab: AggregateLab, memory: FaultMemory) -> None:
        async with partner(lab, "Lacp") as made, host_end(lab) as host:
            await comes(lambda: len(host.working) == len(active(made)) == 2, UP)
            memory.write(way, Faults(black_hole=True))
            await comes(lambda: (host.working, active(made)) == ({"nic2"}, {"p2"}), 3.2)
            assert made.describe()["members"]["p1"]["carrier"]
            memory.write(way, Faults())
            await comes(lambda: len(host.working) == len(active(made)) == 2, 2 * UP)

    with aggregate_lab(2) as lab:
        with in_netns(lab.fabric), IPRoute() as ip:
            wires = [tap.open_wire() for _ in range(2)]
            indexes = [ip.link_lookup(ifname=name)[0] for _, name in wires]
            descriptor = attach_faults(ip, ip.link_lookup(ifname="p1")[0], indexes)
        memory = FaultMemory(descriptor)
        asyncio.run(run(lab, memory))
        memory.close()
        for each in (descriptor, *(wire for wire, _ in wires)):
            os.close(each)


def test_slow_protocols_reach_no_other_port_and_no_other_member(lab: AggregateLab) -> None:
    async def run() -> None:
        async with partner(lab, "Static") as made:
            await comes(lambda: active(made) == set(lab.ports), SOON)
            slow = ethernet(mac("01:80:c2:00:00:02"), TEAM, 0x8809, bytes(110))
            elsewhere = ethernet(PLAIN, TEAM, 0x8809, bytes(110))
            assert lab.reached("nic1", [slow, elsewhere]) == [[], []]
            members = made.describe()["members"]
            assert [members[port]["slow"] for port in lab.ports] == [2, *[0] * (len(lab.ports) - 1)]

    asyncio.run(run())
