"""testbed.host.pa.groups against a bridge of the kernel that snoops, and as what a querier hears."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from support.frames import ethernet, ip, ipv4, mac, naive_checksum
from support.pa_cable import MAC, OTHER, PA6, PEER4, Cable, laid, together, until
from testbed.host.pa.addresses import AddressState

pytestmark = pytest.mark.netns

GROUP4, GROUP6 = "239.1.2.3", "ff15::1:2:3"


@pytest.fixture
def cable() -> Iterator[Cable]:
    with laid() as made:
        yield made


def _bridge(cable: Cable, **options: int) -> None:
    """The other end becomes the port of a bridge that snoops."""
    words = [str(word) for option in options.items() for word in option]
    cable.run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "1", *words)
    cable.run("ip", "link", "set", "p0", "master", "br0")
    cable.write("ipv6/conf/br0/accept_dad", 0)
    cable.run("ip", "link", "set", "br0", "up")
    cable.run("ip", "addr", "add", "192.168.7.3/24", "dev", "br0")
    cable.run("ip", "link", "set", "br0", "type", "bridge", "mcast_querier", "1")


def _members(cable: Cable) -> set[str]:
    """Groups that the bridge has seen joined at its port."""
    found = json.loads(cable.run("bridge", "-j", "mdb", "show"))
    return {entry["grp"] for part in found for entry in part.get("mdb", []) if entry["port"] == "p0"}


@together
async def test_a_bridge_sees_joins_and_leaves(cable: Cable) -> None:
    _bridge(cable, mcast_igmp_version=3, mcast_mld_version=2, mcast_last_member_interval=10)
    space = cable.open()
    try:
        space.set_groups({GROUP4, GROUP6})
        assert _members(cable) >= {GROUP4, GROUP6}  # at once
        space.set_addresses({PA6})
        assert _members(cable) >= {GROUP4, GROUP6, "ff02::1:ff00:1"}
        space.set_groups({GROUP6})
        assert space.states() == {PA6: AddressState.TENTATIVE}
        await until(lambda: GROUP4 not in _members(cable))
        assert _members(cable) >= {GROUP6, "ff02::1:ff00:1"}
    finally:
        space.close()
    await until(lambda: not _members(cable) & {GROUP4, GROUP6})


@together
async def test_membership_outlives_the_bridges_memory(cable: Cable) -> None:
    intervals = {
        "mcast_query_interval": 100,
        "mcast_startup_query_interval": 100,
        "mcast_query_response_interval": 20,
        "mcast_membership_interval": 220,
    }
    _bridge(cable, mcast_igmp_version=3, mcast_mld_version=2, **intervals)
    space = cable.open()
    try:
        space.set_groups({GROUP4, GROUP6})
        loop = asyncio.get_running_loop()
        end = loop.time() + 4.0  # twice what the bridge remembers
        while loop.time() < end:
            assert _members(cable) >= {GROUP4, GROUP6}
            await asyncio.sleep(0.2)
    finally:
        space.close()


@together
async def test_a_group_that_is_asked_for_is_answered(cable: Cable) -> None:
    space = cable.open(report_interval=0.0)
    try:
        space.set_groups({GROUP4, "239.9.9.9", GROUP6})
        await asyncio.sleep(0.05)  # the second reports are over
        with cable.tap() as tap:
            tap.rest()
            body = b"\x11\x01\0\0" + ip(GROUP4) + b"\2\x0a\0\0"
            body = body[:2] + naive_checksum(body).to_bytes(2, "big") + body[4:]
            tap.send(ethernet(mac("01:00:5e:01:02:03"), OTHER, 0x0800, ipv4(PEER4, GROUP4, 2, body)))
            report = await tap.find(lambda frame: frame[6:12] == MAC and frame[23] == 2)
            assert report[38:] == b"\x22\0" + report[40:42] + b"\0\0\0\1\2\0\0\0" + ip(GROUP4)
    finally:
        space.close()


@together
async def test_an_older_querier_is_spoken_to_in_its_version(cable: Cable) -> None:
    space = cable.open(report_interval=0.0)
    options = {"mcast_query_response_interval": 10, "mcast_startup_query_interval": 100}
    try:
        with cable.tap() as tap:
            space.set_groups({GROUP4, GROUP6})
            _bridge(cable, mcast_igmp_version=2, mcast_mld_version=1, **options)
            four = await tap.find(lambda frame: frame[6:12] == MAC and frame[23] == 2 and frame[38] == 0x16)
            assert (four[30:34], four[42:46]) == (ip(GROUP4), ip(GROUP4))
            six = await tap.find(lambda frame: frame[6:12] == MAC and frame[20] == 0 and frame[62] == 131)
            assert (six[38:54], six[70:86]) == (ip(GROUP6), ip(GROUP6))
            space.set_groups(set())
            left = await tap.find(lambda frame: frame[6:12] == MAC and frame[23] == 2 and frame[38] == 0x17)
            assert left[30:34] == ip("224.0.0.2")
            await tap.find(lambda frame: frame[6:12] == MAC and frame[20] == 0 and frame[62] == 132)
    finally:
        space.close()
