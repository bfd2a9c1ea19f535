"""A switch with a plain port and an aggregate, the cables' other ends in a host's namespace."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pyroute2 import IPRoute

from support.waiting import until
from testbed.linkwatch import open_link_watch, read_links, request_links
from testbed.namespaces import in_netns, new_netns
from testbed.nic.bpf import loader
from testbed.nic.features import CABLE_FABRIC, CABLE_HOST, set_features
from testbed.teaming.lacp import Lacp
from testbed.topology.schema import Wire
from testbed.wiring import fabric, sysctl
from testbed.wiring.aggregate import AggregateParts, add_aggregate
from testbed.wiring.fabric import index_of
from testbed.wiring.hardware import attach_hardware

MTU = 1600
AGG, SWITCH = "tor1-agg1", "tor1"
_FORWARDING = 3  # BR_STATE_FORWARDING
QUIET = 0.05  # seconds in which a frame arrives that is going to


def _receive(tap: socket.socket) -> list[bytes] | None:
    """A frame, or none if the next one in the queue is our own; None: there is nothing in it."""
    try:
        frame, address = tap.recvfrom(1 << 17)
    except BlockingIOError:
        return None
    except OSError:  # once after its NIC went down
        return []
    return [] if address[2] == socket.PACKET_OUTGOING else [frame]


def _aside(function: Callable[..., Any], *args: Any) -> Any:
    """Call it in another thread: pyroute2 has an event loop of its own, and a test may run in one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *args).result()


class AggregateLab:
    """``ports``: p1, p2 ... of the aggregate; their cables' ends are nic1, nic2 ... p0 is the plain port,
    nic0 the NIC there. ``taps``: packet sockets on the NICs.
    """

    def __init__(self, stack: contextlib.ExitStack, count: int, wire: Wire, snooping: bool = False) -> None:
        self.host, self.fabric = new_netns(), new_netns()
        for space in (self.host, self.fabric):
            stack.callback(os.close, space)
        self.ports = [f"p{number}" for number in range(1, count + 1)]
        self.nics = [f"nic{number}" for number in range(1, count + 1)]
        with in_netns(self.fabric), IPRoute() as ip:
            sysctl.write(sysctl.SILENT)
            if snooping:
                fabric._add_switch(ip, SWITCH)
            else:
                ip.link("add", ifname=SWITCH, kind="bridge", br_mcast_snooping=0, br_stp_state=0)
            self.bridge = index_of(ip, SWITCH)
            ip.link("set", index=self.bridge, state="up")
            with in_netns(self.host):
                sysctl.write(sysctl.SILENT)
            for number in range(count + 1):
                self._cable(ip, number, wire)
        self._hardware(wire)
        self.taps = {nic: stack.enter_context(self._tap(nic)) for nic in ("nic0", *self.nics)}
        self._await_forwarding(count + 1)
        self.parts: AggregateParts | None = None
        self.stack = stack

    def _cable(self, ip: Any, number: int, wire: Wire) -> None:
        peer = {"ifname": f"nic{number}", "net_ns_fd": self.host, "mtu": MTU}
        index = 50 + number  # not that of the other end: see testbed.linkwatch
        ip.link("add", ifname=f"p{number}", index=index, kind="veth", mtu=MTU, peer=peer)
        set_features(f"p{number}", CABLE_FABRIC[wire])
        ip.link("set", index=index, master=self.bridge, state="up")

    def _hardware(self, wire: Wire) -> None:
        programs = loader.load("nic", "nic_tx", "nic_rx")
        with in_netns(self.host), IPRoute() as ip:
            for nic in ("nic0", *self.nics):
                index = index_of(ip, nic)
                attach_hardware(ip, index, *programs)
                set_features(nic, CABLE_HOST[wire])
                ip.link("set", index=index, state="up")
        for program in programs:
            os.close(program)

    def _tap(self, nic: str) -> socket.socket:
        with in_netns(self.host):
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            made.bind((nic, 3))
        return made

    def aggregate(self) -> AggregateParts:
        """Make the aggregate; its descriptors end with the lab unless they are taken out of the parts."""
        self.parts = _aside(add_aggregate, self.fabric, SWITCH, AGG, self.ports, MTU)
        self.stack.callback(self._close)
        self._await_forwarding(2)
        return self.parts

    def _await_forwarding(self, count: int) -> None:
        until(lambda: _aside(self._forwards) == count, "the switch's ports do not forward")

    def _forwards(self) -> int:
        """How many ports do: the kernel enables them when it gets to their carrier, a moment after it."""
        with in_netns(self.fabric), IPRoute() as ip:
            data = [link.get(("linkinfo", "slave_data")) for link in ip.get_links(master=self.bridge)]
        return sum(each.get("state") == _FORWARDING for each in data if each)

    def _close(self) -> None:
        while self.parts and self.parts.descriptors:
            os.close(self.parts.descriptors.pop())

    def set(self, name: str, **more: Any) -> None:
        """Change an interface, a NIC or a port."""
        _aside(self._set, name, more)

    def _set(self, name: str, more: dict[str, Any]) -> None:
        with in_netns(self.host if name.startswith("nic") else self.fabric), IPRoute() as ip:
            ip.link("set", index=index_of(ip, name), **more)

    def received(self, seconds: float = QUIET) -> dict[str, list[bytes]]:
        """What comes to each NIC from the switch in this time."""
        time.sleep(seconds)  # what does not come cannot be waited for
        found: dict[str, list[bytes]] = {nic: [] for nic in self.taps}
        for nic, tap in self.taps.items():
            while (came := _receive(tap)) is not None:
                found[nic] += came
        return found

    def reached(self, sender: str, frames: Sequence[bytes]) -> list[list[str]]:
        """For each frame, the NICs at which it arrives, as often as it does."""
        for frame in frames:
            self.taps[sender].send(frame)
        seen = self.received()
        return [[nic for nic, came in seen.items() for each in came if each == frame] for frame in frames]


@contextlib.contextmanager
def aggregate_lab(count: int, wire: Wire = "frames", snooping: bool = False) -> Iterator[AggregateLab]:
    """A lab of ``count`` cables to the aggregate, which :meth:`AggregateLab.aggregate` makes."""
    with contextlib.ExitStack() as stack:
        yield AggregateLab(stack, count, wire, snooping)


class HostEnd:
    """LACP on the NICs of a lab, as a host does it: packet sockets and a link watch in its namespace."""

    def __init__(self, lab: AggregateLab, loop: asyncio.AbstractEventLoop, system: bytes) -> None:
        self._loop, self._taps = loop, {}
        with in_netns(lab.host):
            self._watch = open_link_watch()
            for nic in lab.nics:
                self._taps[nic] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
                self._taps[nic].bind((nic, 3))
        self.working: set[str] = set()
        self.lacp = Lacp(loop, system, 7, lab.nics, self._send, self._changed)
        for nic, tap in self._taps.items():
            loop.add_reader(tap, self._hear, nic, tap)
        loop.add_reader(self._watch, self._look)
        request_links(self._watch)

    def _changed(self, nics: frozenset[str]) -> None:
        self.working = set(nics)

    def _send(self, nic: str, frame: bytes) -> bool:
        try:
            self._taps[nic].send(frame)
        except OSError:
            return False
        return True

    def _hear(self, nic: str, tap: socket.socket) -> None:
        for frame in _receive(tap) or []:
            if frame[12:14] == b"\x88\x09":
                self.lacp.heard(nic, frame)

    def _look(self) -> None:
        for link in read_links(self._watch):
            if link.name in self._taps:
                self.lacp.set_up(link.name, link.running)

    def close(self) -> None:
        """Leave the NICs without a word, as a host does that is switched off."""
        for sock in (self._watch, *self._taps.values()):
            if sock.fileno() >= 0:
                self._loop.remove_reader(sock)
                sock.close()
        self.lacp.close()
