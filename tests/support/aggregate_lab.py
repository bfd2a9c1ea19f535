"""A switch with a plain port and an aggregate, the cables' other ends in a host's namespace."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

from pyroute2 import IPRoute

from testbed.namespaces import in_netns, new_netns
from testbed.nic.bpf import loader
from testbed.nic.features import CABLE_FABRIC, CABLE_HOST, set_features
from testbed.topology.schema import Wire
from testbed.wiring import sysctl
from testbed.wiring.aggregate import AggregateParts, add_aggregate
from testbed.wiring.fabric import index_of
from testbed.wiring.hardware import attach_hardware

MTU = 1600
AGG, SWITCH = "tor1-agg1", "tor1"
QUIET = 0.05  # seconds in which a frame arrives that is going to


class AggregateLab:
    """``ports``: p1, p2 ... of the aggregate; their cables' ends are nic1, nic2 ... p0 is the plain port,
    nic0 the NIC there. ``taps``: packet sockets on the NICs.
    """

    def __init__(self, stack: contextlib.ExitStack, count: int, wire: Wire, snooping: int = 0) -> None:
        self.host, self.fabric = new_netns(), new_netns()
        for space in (self.host, self.fabric):
            stack.callback(os.close, space)
        self.ports = [f"p{number}" for number in range(1, count + 1)]
        self.nics = [f"nic{number}" for number in range(1, count + 1)]
        with in_netns(self.fabric), IPRoute() as ip:
            sysctl.write(sysctl.SILENT)
            ip.link("add", ifname=SWITCH, kind="bridge", br_mcast_snooping=snooping, br_stp_state=0)
            self.bridge = index_of(ip, SWITCH)
            ip.link("set", index=self.bridge, state="up")
            with in_netns(self.host):
                sysctl.write(sysctl.SILENT)
            for number in range(count + 1):
                self._cable(ip, number, wire)
        self._hardware(wire)
        self.taps = {nic: stack.enter_context(self._tap(nic)) for nic in ("nic0", *self.nics)}
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
        self.parts = add_aggregate(self.fabric, SWITCH, AGG, self.ports, MTU)
        self.stack.callback(self._close)
        return self.parts

    def _close(self) -> None:
        while self.parts and self.parts.descriptors:
            os.close(self.parts.descriptors.pop())

    def set(self, name: str, **more: Any) -> None:
        """Change an interface, a NIC or a port."""
        with in_netns(self.host if name.startswith("nic") else self.fabric), IPRoute() as ip:
            ip.link("set", index=index_of(ip, name), **more)

    def received(self, seconds: float = QUIET) -> dict[str, list[bytes]]:
        """What comes to each NIC from the switch in this time."""
        time.sleep(seconds)  # what does not come cannot be waited for
        found: dict[str, list[bytes]] = {nic: [] for nic in self.taps}
        for nic, tap in self.taps.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    frame, address = tap.recvfrom(1 << 17)
                    if address[2] != socket.PACKET_OUTGOING:
                        found[nic].append(frame)
        return found

    def reached(self, sender: str, frames: Sequence[bytes]) -> list[list[str]]:
        """For each frame, the NICs at which it arrives, as often as it does."""
        for frame in frames:
            self.taps[sender].send(frame)
        seen = self.received()
        return [[nic for nic, came in seen.items() for each in came if each == frame] for frame in frames]


@contextlib.contextmanager
def aggregate_lab(count: int, wire: Wire = "frames", snooping: int = 0) -> Iterator[AggregateLab]:
    """A lab of ``count`` cables to the aggregate, which :meth:`AggregateLab.aggregate` makes."""
    with contextlib.ExitStack() as stack:
        yield AggregateLab(stack, count, wire, snooping)
