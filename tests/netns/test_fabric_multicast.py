"""testbed.wiring.fabric: multicast reaches the cables of members, on every switch, and no others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from support.frames import ethernet, ipv4, ipv6, mac, solicitation
from testbed.host.pa.space import PaSpace
from testbed.host.pa.timers import TIMERS
from testbed.namespaces import in_netns, new_netns
from testbed.packets import datagram, igmp, mld
from testbed.packets.malformed import MalformedFrame
from testbed.switch.roles import Roles
from testbed.topology.plan import CablePlan, HostPlan, HostPolicy, NicPlan, SwitchPlan, TrunkEnd, TrunkPlan
from testbed.wiring.fabric import Wiring

pytestmark = pytest.mark.netns

HOSTS = ("h1", "h2", "h3", "h4")  # h1 and h2 on tor1, h3 and h4 on tor2
MACS = {host: mac(f"00:15:5d:00:00:0{number}") for number, host in enumerate(HOSTS, 1)}
GROUPS = {"239.1.2.3": mac("01:00:5e:01:02:03"), "ff15::1:2:3": mac("33:33:00:02:00:03")}
SECONDS = 10.0
GRACE = 0.5  # more than the 0.1 s for which a new querier has everything flooded


class Fabric:
    """Two switches with a trunk, two hosts each. ``taps``: a packet socket on each host's nic1."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.hosts = {host: new_netns() for host in HOSTS}
        self.switches = new_netns()
        for descriptor in (*self.hosts.values(), self.switches):
            stack.callback(os.close, descriptor)
        plans = {
            host: HostPlan(host, (NicPlan("nic1", MACS[host].hex(":"), 1600),), "nic1", HostPolicy())
            for host in HOSTS
        }
        tors = ("tor1", "tor2")
        cables = [
            CablePlan(host, "nic1", tor, tor, f"p{port}", f"{tor}-p{port}")
            for host, tor, port in zip(HOSTS, ("tor1", "tor1", "tor2", "tor2"), (1, 2, 1, 2), strict=True)
        ]
        trunk = TrunkPlan(
            (TrunkEnd("tor1", "tor1", "p3", "tor1-p3"), TrunkEnd("tor2", "tor2", "p3", "tor2-p3"))
        )
        wiring = Wiring(self.switches, self.hosts)
        wiring.add([SwitchPlan(tor, tor) for tor in tors], cables[:2], [], plans, 1600)
        wiring.add([], cables[2:], [trunk], plans, 1600)  # as a changed topology does
        self.taps = {host: stack.enter_context(self._tap(host)) for host in HOSTS}

    def _tap(self, host: str) -> socket.socket:
        with in_netns(self.hosts[host]):
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            made.bind(("nic1", 3))
        made.setblocking(False)
        return made

    def received(self, seconds: float) -> dict[str, list[bytes]]:
        """What comes to each host from others in this time."""
        time.sleep(seconds)  # what does not come cannot be waited for
        found: dict[str, list[bytes]] = {host: [] for host in HOSTS}
        for host, tap in self.taps.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    frame, address = tap.recvfrom(1 << 16)
                    if address[2] != socket.PACKET_OUTGOING:
                        found[host].append(frame)
        return found

    def reached(self, sender: str, frame: bytes) -> set[str]:
        """The hosts at which a frame arrives within 50 ms, once each."""
        self.taps[sender].send(frame)
        found = {host: frames.count(frame) for host, frames in self.received(0.05).items()}
        assert set(found.values()) <= {0, 1}
        return {host for host, count in found.items() if count}

    def open(self, host: str) -> PaSpace:
        with in_netns(self.hosts[host]):
            loop = asyncio.get_running_loop()
            return PaSpace(
                loop, Roles.alone("nic1", MACS[host]), TIMERS["fast"], lambda *_: None, lambda: None
            )


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with contextlib.ExitStack() as stack:
        yield Fabric(stack)


def _frame(host: str, group: str, number: int) -> bytes:
    """A tunnelled packet to a group; the number makes it one of its own."""
    body = bytes(40) + number.to_bytes(2, "big")
    if ":" in group:
        return ethernet(GROUPS[group], MACS[host], 0x86DD, ipv6("fd00::1", group, 47, body))
    return ethernet(GROUPS[group], MACS[host], 0x0800, ipv4("192.168.7.1", group, 47, body))


def test_a_group_reaches_its_members_and_nobody_else(fabric: Fabric) -> None:
    asyncio.run(_join_and_leave(fabric))


async def _join_and_leave(fabric: Fabric) -> None:
    fabric.received(GRACE)
    number = iter(range(1000))
    for group in GROUPS:
        for host in HOSTS:
            assert fabric.reached(host, _frame(host, group, next(number))) == set()
    spaces = {host: fabric.open(host) for host in ("h1", "h3")}
    try:
        for space in spaces.values():
            space.set_groups(set(GROUPS))  # holds at once
        for group in GROUPS:
            for host in HOSTS:
                assert fabric.reached(host, _frame(host, group, next(number))) == {"h1", "h3"} - {host}
        spaces["h1"].set_groups(set())
        end = time.monotonic() + SECONDS
        for group in GROUPS:
            while fabric.reached("h2", _frame("h2", group, next(number))) != {"h3"}:
                assert time.monotonic() < end
                await asyncio.sleep(0)
    finally:
        for space in spaces.values():
            space.close()


def test_nothing_but_queries_comes_from_the_switches(fabric: Fabric) -> None:
    seen = fabric.received(4.0)  # longer than the queries of a start take
    for host, frames in seen.items():
        queries = [_query(frame) for frame in frames]
        assert None not in queries, [frame.hex() for frame in frames]
        assert {len(query.group) for query in queries if query} == {4, 16}, host
        assert {query.older for query in queries if query} == {False}


def _query(frame: bytes) -> igmp.Query | None:
    try:
        packet = datagram.parse(frame)
        return (igmp if packet.protocol == datagram.IGMP else mld).parse_query(packet)
    except MalformedFrame:
        return None


def test_trunks_lead_to_multicast_routers(fabric: Fabric) -> None:
    with in_netns(fabric.switches):
        said = subprocess.run(
            ["bridge", "-j", "-d", "link", "show"], check=True, capture_output=True, timeout=SECONDS
        ).stdout
    kinds = {port["ifname"]: port["mcast_router"] for port in json.loads(said)}
    cables = dict.fromkeys(("tor1-p1", "tor1-p2", "tor2-p1", "tor2-p2"), 1)  # learned
    assert kinds == {**cables, "tor1-p3": 2, "tor2-p3": 2}  # for good


def test_ipv6_pas_find_each_other_across_the_trunk(fabric: Fabric) -> None:
    fabric.received(GRACE)
    asyncio.run(_ping(fabric))


async def _ping(fabric: Fabric) -> None:
    one, other = fabric.open("h1"), fabric.open("h4")
    try:
        one.set_addresses({"fd00:7::1"})
        other.set_addresses({"fd00:7::4"})
        async with asyncio.timeout(SECONDS):
            while not (one.preferred() and other.preferred()):
                await asyncio.sleep(0.01)
        assert await one.ping("fd00:7::1", "fd00:7::4", 100, SECONDS) > 0
        asked = solicitation("fd00:7::4", "fd00:7::2", MACS["h2"])
        assert fabric.reached("h2", asked) == {"h4"}
        third = fabric.open("h2")
        try:
            third.set_addresses({"fd00:7::4"})
            async with asyncio.timeout(SECONDS):
                while third.states() != {"fd00:7::4": "Duplicate"}:
                    await asyncio.sleep(0.01)
        finally:
            third.close()
    finally:
        one.close()
        other.close()


def test_groups_of_the_link_reach_everybody(fabric: Fabric) -> None:
    fabric.received(GRACE)
    all_nodes = ethernet(
        mac("33:33:00:00:00:01"), MACS["h2"], 0x86DD, ipv6("fe80::2", "ff02::1", 58, bytes(8))
    )
    local = ethernet(
        mac("01:00:5e:00:00:fb"), MACS["h2"], 0x0800, ipv4("10.0.0.2", "224.0.0.251", 17, bytes(8))
    )
    for frame in (all_nodes, local):
        assert fabric.reached("h2", frame) == {"h1", "h3", "h4"}
