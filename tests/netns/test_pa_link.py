"""testbed.host.pa.link: what its filter lets in, a NIC that is missing or down."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator

import pytest

from support.frames import BROADCAST, ethernet, ipv4, ipv6, mac
from support.pa_cable import MAC, OTHER, PA4, PA6, PEER4, PEER6, SECONDS, THIRD, Cable, laid, together, until
from testbed.host.pa.link import Link
from testbed.namespaces import in_netns

pytestmark = pytest.mark.netns


@pytest.fixture
def cable() -> Iterator[Cable]:
    with laid() as made:
        yield made


@together
async def test_the_filter_lets_in_what_is_controls(cable: Cable) -> None:
    heard: list[bytes] = []
    with in_netns(cable.ours):
        link = Link(asyncio.get_running_loop(), "nic1", [MAC], heard.append)
    groups = mac("01:00:5e:00:00:01"), mac("33:33:00:00:00:01")
    accepted = [
        ethernet(to, THIRD, kind, body)
        for to in (MAC, BROADCAST, *groups)
        for kind, body in (
            (0x0806, bytes(46)),
            (0x0800, ipv4(PEER4, PA4, 1, bytes(20))),
            (0x0800, ipv4(PEER4, PA4, 2, bytes(20))),
            (0x86DD, ipv6(PEER6, PA6, 58, bytes(20))),
            (0x86DD, ipv6(PEER6, PA6, 0, bytes(20))),
        )
    ]
    refused = [ethernet(OTHER, *_parts(frame)) for frame in accepted[:5]]
    refused += [ethernet(MAC[:5] + b"\x77", *_parts(frame)) for frame in accepted[:5]]
    refused += [
        ethernet(to, THIRD, kind, body)
        for to in (MAC, *groups)
        for kind, body in (
            (0x0800, ipv4(PEER4, PA4, 47, bytes(20))),
            (0x0800, ipv4(PEER4, PA4, 17, bytes(20))),
            (0x86DD, ipv6(PEER6, PA6, 47, bytes(20))),
            (0x86DD, ipv6(PEER6, PA6, 44, bytes(20))),
            (0x88CC, bytes(46)),
            (0x8100, b"\0\5\x08\x06" + bytes(46)),  # another VLAN's ARP
        )
    ]
    refused += [
        frame.replace(THIRD, MAC, 1) if frame[:6] != MAC else frame[:6] + MAC + frame[12:]
        for frame in accepted
    ]
    try:
        with cable.tap() as tap:
            for one in (*refused, *accepted):
                tap.send(one)
            await until(lambda: accepted[-1] in heard)
        assert [frame for frame in heard if frame[6:12] != OTHER] == accepted  # the kernel speaks as well
    finally:
        link.close()


def _parts(frame: bytes) -> tuple[bytes, int, bytes]:
    return frame[6:12], int.from_bytes(frame[12:14], "big"), frame[14:]


@together
async def test_a_nic_that_is_not_there_leaves_no_socket(cable: Cable) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with in_netns(cable.ours), pytest.raises(OSError, match="No such device"):
        Link(asyncio.get_running_loop(), "nic9", [MAC], bytes)
    assert set(os.listdir("/proc/self/fd")) == before


@together
async def test_a_nic_that_is_down_is_waited_for(cable: Cable) -> None:
    with in_netns(cable.ours):
        subprocess.run(["ip", "link", "set", "nic1", "down"], check=True, timeout=SECONDS)
    space = cable.open()
    try:
        space.set_addresses({PEER4, PA4})
        await asyncio.sleep(0.3)  # much longer than DAD takes
        assert space.preferred() == []
        with in_netns(cable.ours):
            subprocess.run(["ip", "link", "set", "nic1", "up"], check=True, timeout=SECONDS)
        await until(lambda: space.states() == {PEER4: "Duplicate", PA4: "Preferred"})
    finally:
        space.close()
