"""A cable between a PaSpace and the IP stack of a kernel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from pyroute2 import IPRoute

from support.frames import mac
from testbed.host.pa.space import PaSpace
from testbed.host.pa.timers import TIMERS
from testbed.namespaces import in_netns, new_netns
from testbed.switch.roles import Roles
from testbed.telemetry import EventLog

MAC, OTHER, THIRD = mac("00:15:5d:00:00:01"), mac("00:15:5d:00:00:02"), mac("00:15:5d:00:00:03")
PA4, PA6 = "192.168.7.1", "fd00:7::1"
PEER4, PEER6 = "192.168.7.2", "fd00:7::2"
FAST = TIMERS["fast"]
SECONDS = 10.0  # the deadline of everything that is waited for


class Cable:
    """nic1 (ours, in a silent namespace) and p0 at the other end, whose kernel has PEER4 and PEER6."""

    def __init__(self, ours: int, theirs: int) -> None:
        self.ours, self.theirs = ours, theirs
        self.neighbors: list[tuple[bytes, bytes | None]] = []
        self.states = 0
        self.events = EventLog()

    def open(self, **timers: Any) -> PaSpace:
        """A PaSpace on nic1."""
        with in_netns(self.ours):
            return PaSpace(
                asyncio.get_running_loop(),
                Roles.alone("nic1", MAC),
                msgspec.structs.replace(FAST, **timers),
                lambda address, found: self.neighbors.append((address, found)),
                self._state_changed,
                self.events,
            )

    def _state_changed(self) -> None:
        self.states += 1

    def run(self, *command: str) -> str:
        """What a command says that runs at the other end."""
        with in_netns(self.theirs):
            return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS).stdout

    def write(self, name: str, value: int) -> None:
        """Set a sysctl of the other end."""
        with in_netns(self.theirs):
            Path(f"/proc/sys/net/{name}").write_text(str(value))

    @contextlib.contextmanager
    def tap(self) -> Iterator[Tap]:
        """A packet socket at the other end."""
        with in_netns(self.theirs):
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            made.bind(("p0", 3))
        made.setblocking(False)
        with made:
            yield Tap(made)

    def seen(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        """Object and fields of the events of a kind since the last call."""
        return [(event.object, event.fields) for event in self.events.take() if event.kind == kind]


class Tap:
    """Whole frames at the other end, both ways."""

    def __init__(self, made: socket.socket) -> None:
        self._socket = made

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    async def find(self, wanted: Callable[[bytes], bool]) -> bytes:
        """The next frame that is wanted."""
        async with asyncio.timeout(SECONDS):
            while True:
                frame = await asyncio.get_running_loop().sock_recv(self._socket, 1 << 16)
                if wanted(frame):
                    return frame

    def rest(self) -> list[bytes]:
        """What is there already."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self._socket.recv(1 << 16))
        return found


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.005)  # a poll with a deadline


async def preferred(space: PaSpace, *addresses: str) -> None:
    """Give the space these PAs and wait until they are in use."""
    space.set_addresses(set(addresses))
    await until(lambda: set(space.preferred()) == set(addresses))


@contextlib.contextmanager
def laid() -> Iterator[Cable]:
    """A cable, and the namespaces at its ends, for one test."""
    with contextlib.ExitStack() as stack:
        ours, theirs = new_netns(), new_netns()
        stack.callback(os.close, ours)
        stack.callback(os.close, theirs)
        with in_netns(ours):
            for name in ("all", "default"):
                Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
            with IPRoute() as route:
                peer = {"ifname": "p0", "net_ns_fd": theirs, "address": OTHER.hex(":")}
                route.link("add", ifname="nic1", kind="veth", address=MAC.hex(":"), peer=peer)
                route.link("set", index=route.link_lookup(ifname="nic1")[0], state="up")
        made = Cable(ours, theirs)
        made.write("ipv6/conf/p0/accept_dad", 0)
        made.run("ip", "link", "set", "p0", "up")
        made.run("ip", "addr", "add", f"{PEER4}/24", "dev", "p0")
        made.run("ip", "addr", "add", f"{PEER6}/64", "dev", "p0", "nodad")
        yield made


def together(test: Callable[[Cable], Awaitable[None]]) -> Callable[[Cable], None]:
    """A test that runs in an event loop of its own."""

    def run(cable: Cable) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(6 * SECONDS):
                await test(cable)

        asyncio.run(bounded())

    run.__name__, run.__doc__ = getattr(test, "__name__", "test"), test.__doc__
    return run
