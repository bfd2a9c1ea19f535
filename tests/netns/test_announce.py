"""A guest tells of the addresses that it takes: the announcer beside a real kernel."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.guest import announce
from testbed.namespaces import in_netns, new_netns
from testbed.packets import arp, ethernet

pytestmark = pytest.mark.netns
ROOT = Path(__file__).parents[2]
DEADLINE = 10.0


def ip(netns: int, *words: str) -> None:
    with in_netns(netns):
        subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL)


@pytest.fixture
def netns() -> Iterator[int]:
    made = new_netns()
    ip(made, "link", "add", "eth0", "type", "veth", "peer", "name", "cable")
    ip(made, "link", "set", "lo", "up")
    ip(made, "link", "set", "cable", "up")
    ip(made, "link", "set", "eth0", "up")
    yield made
    os.close(made)


class Cable:
    """What arrives at the other end."""

    def __init__(self, netns: int) -> None:
        with in_netns(netns):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethernet.TYPE_ARP))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE: many come at once
        self.socket.bind(("cable", ethernet.TYPE_ARP))

    def announcement(self, seconds: float) -> tuple[str, float] | None:
        """The next gratuitous ARP request and when it came; None when none does."""
        end = time.monotonic() + seconds
        while select.select([self.socket], [], [], max(0.0, end - time.monotonic()))[0]:
            frame, address = self.socket.recvfrom(2048)
            if address[2] == socket.PACKET_OUTGOING:
                continue
            told = arp.parse(frame)
            if told.operation == arp.REQUEST and told.sender_ip == told.target_ip:
                assert frame[:6] == b"\xff" * 6
                assert frame[6:12] == told.sender_mac
                return socket.inet_ntoa(told.sender_ip), time.monotonic()
        return None

    def heard(self, seconds: float = DEADLINE) -> str:
        found = self.announcement(seconds)
        assert found, "nothing is announced"
        return found[0]


@contextmanager
def announcing(netns: int) -> Iterator[Cable]:
    cable = Cable(netns)
    with in_netns(netns):
        process = subprocess.Popen([sys.executable, "-m", "testbed.guest.announce"], cwd=ROOT)
    try:
        yield cable
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        cable.socket.close()


def test_a_new_address_is_announced_twice_and_an_old_one_never_again(netns: int) -> None:
    ip(netns, "addr", "add", "10.0.0.5/24", "dev", "eth0")
    with announcing(netns) as cable:
        assert cable.heard() == "10.0.0.5"  # it was there before the announcer
        ip(netns, "addr", "add", "10.0.0.6/24", "dev", "eth0")
        began = time.monotonic()
        first = cable.announcement(DEADLINE)
        assert first
        assert first[0] == "10.0.0.6"
        assert first[1] - began < 0.5  # at once
        again = {cable.heard(), cable.heard()}
        assert again == {"10.0.0.5", "10.0.0.6"}
        assert time.monotonic() - first[1] >= announce.INTERVAL * 0.9
        assert cable.announcement(announce.INTERVAL * 1.5) is None
        ip(netns, "addr", "del", "10.0.0.6/24", "dev", "eth0")
        ip(netns, "addr", "add", "10.0.0.6/24", "dev", "eth0")
        assert cable.heard() == "10.0.0.6"  # it is new again


def test_an_address_that_goes_is_not_announced_again(netns: int) -> None:
    with announcing(netns) as cable:
        ip(netns, "addr", "add", "10.0.0.6/24", "dev", "eth0")
        assert cable.heard() == "10.0.0.6"
        ip(netns, "addr", "del", "10.0.0.6/24", "dev", "eth0")
        assert cable.announcement(announce.INTERVAL * 1.5) is None


def test_an_interface_that_comes_up_tells_what_it_has(netns: int) -> None:
    ip(netns, "link", "set", "eth0", "down")
    ip(netns, "addr", "add", "10.0.0.5/24", "dev", "eth0")
    ip(netns, "addr", "add", "127.0.0.2/8", "dev", "lo")  # no Ethernet
    with announcing(netns) as cable:
        assert cable.announcement(0.5) is None
        ip(netns, "link", "set", "eth0", "up")
        assert cable.heard() == "10.0.0.5"


def test_addresses_of_all_at_once(netns: int) -> None:
    """More than fits into one message of the kernel."""
    wanted = {f"10.0.{number >> 8}.{number & 255}" for number in range(1, 400)}
    for address in sorted(wanted):
        ip(netns, "addr", "add", f"{address}/16", "dev", "eth0")
    with announcing(netns) as cable:
        heard: set[str] = set()
        end = time.monotonic() + DEADLINE
        while heard != wanted:
            assert time.monotonic() < end, wanted - heard
            heard.add(cable.heard())
