"""testbed.linkwatch hears of carriers that come and go, at once."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pyroute2 import IPRoute

from testbed.linkwatch import LinkState, open_link_watch, read_links, request_links
from testbed.namespaces import in_netns, new_netns

pytestmark = pytest.mark.netns
SOON = 0.05


class Cable:
    """A veth pair, p0 in a watched namespace and nic1 in another."""

    def __init__(self, here: int, there: int) -> None:
        self.here, self.there = here, there
        with in_netns(here), IPRoute() as ip:
            nic = {"ifname": "nic1", "net_ns_fd": there}
            ip.link("add", ifname="p0", index=50, kind="veth", peer=nic)  # no index of there: see linkwatch
            self.watch = open_link_watch()
            self.index = ip.link_lookup(ifname="p0")[0]
        self.set("p0", state="up")
        self.set("nic1", state="up")

    def set(self, name: str, **more: Any) -> None:
        with in_netns(self.here if name == "p0" else self.there), IPRoute() as ip:
            ip.link("set", index=ip.link_lookup(ifname=name)[0], **more)

    def becomes(self, running: bool, seconds: float = SOON) -> bool:
        """Whether p0 is told to be so within the time."""
        end, last = time.monotonic() + seconds, None
        while last is not running and (left := end - time.monotonic()) > 0:
            select.select([self.watch], [], [], left)
            for link in read_links(self.watch):
                if link.name == "p0":
                    assert link.ifindex == self.index
                    last = link.running
        return last is running


@pytest.fixture
def cable() -> Iterator[Cable]:
    spaces = new_netns(), new_netns()
    made = Cable(*spaces)
    yield made
    made.watch.close()
    for space in spaces:
        os.close(space)


@pytest.mark.parametrize("end", ["p0", "nic1"])
def test_down_at_either_end_is_told_within_50_ms(cable: Cable, end: str) -> None:
    assert cable.becomes(True)
    for _ in range(5):
        cable.set(end, state="down")
        assert cable.becomes(False)
        cable.set(end, state="up")
        assert cable.becomes(True)


def test_a_removed_interface_does_not_run(cable: Cable) -> None:
    assert cable.becomes(True)
    with in_netns(cable.there), IPRoute() as ip:
        ip.link("del", index=ip.link_lookup(ifname="nic1")[0])
    assert cable.becomes(False)


def test_the_state_at_the_start_is_there_for_the_asking(cable: Cable) -> None:
    assert cable.becomes(True)
    assert read_links(cable.watch) == []
    request_links(cable.watch)
    assert {"lo", "p0"} == {link.name for link in read_links(cable.watch)}
    cable.set("nic1", state="down")
    assert cable.becomes(False)
    request_links(cable.watch)
    assert cable.becomes(False)


def test_leaving_a_bridge_is_no_removal(cable: Cable) -> None:
    with in_netns(cable.here), IPRoute() as ip:
        ip.link("add", ifname="tor1", kind="bridge")
        bridge = ip.link_lookup(ifname="tor1")[0]
    cable.set("p0", master=bridge)
    assert cable.becomes(True)
    cable.set("p0", master=0)
    time.sleep(SOON)
    states = [link.running for link in read_links(cable.watch) if link.name == "p0"]
    assert states
    assert all(states)


def test_after_an_overrun_everything_is_told_anew(cable: Cable) -> None:
    cable.watch.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for number in range(100):
        cable.set("p0", mtu=1400 + number)
    cable.set("nic1", state="down")

    class Counting:
        """The socket, with a count of what it has said to be lost."""

        overruns = 0

        def recv(self, size: int) -> bytes:
            try:
                return cable.watch.recv(size)
            except OSError as error:
                self.overruns += error.errno == errno.ENOBUFS
                raise

        send = cable.watch.send

    counting = Counting()
    time.sleep(SOON)
    links = read_links(counting)  # type: ignore[arg-type]
    assert counting.overruns
    last = {link.name: link.running for link in links}
    assert last == {"lo": False, "p0": False}


def test_a_removal_counts_whatever_its_flags_say() -> None:
    for kind, running in ((16, True), (17, False)):
        name = struct.pack("=HH8s", 7, 3, b"p0\0")
        message = struct.pack("=IHHII", 16 + 16 + len(name), kind, 0, 0, 0)
        message += struct.pack("=BxHiII", 0, 1, 9, 0x10043, 0) + name
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours, theirs:
            ours.setblocking(False)
            theirs.send(message)
            assert read_links(ours) == [LinkState(9, "p0", running)]
