"""The switch's end of a team: one aggregate of ports, driven from the control process of the host.

It is the switch's own agent: what it knows, it knows from the ports, from their carrier and from what comes
by them, as a top-of-rack switch does. The data goes by eBPF (:mod:`testbed.wiring.aggregate`).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from testbed.channel import Message
from testbed.linkwatch import read_links, request_links
from testbed.nic.aggregate import Aggregate
from testbed.packets.ethernet import parse_mac
from testbed.packets.lacp import TYPE_SLOW
from testbed.teaming.lacp import TIMERS, Lacp

Mode: TypeAlias = Literal["Static", "Lacp"]

KEY = 1  # a partner has one aggregate
_LONGEST = 1 << 16
_BATCH = 64  # frames per turn of the loop, so that a flood does not stop the rest


class Partner:
    """One aggregate. Static: members with carrier are active; Lacp: those that collect and distribute.

    parts: ``device``, ``ears`` and ``members`` (indexes) as :class:`testbed.wiring.aggregate.AggregateParts`
    has them, ``ports``: the members' names in the fabric in the same order, and for LACP ``system``: a MAC,
    ``timers``: a name of :data:`testbed.teaming.lacp.TIMERS` and ``fast``, both optional. descriptors: as
    there, in their order; they are this object's from now on, also if it raises OSError.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, mode: Mode, parts: Message, descriptors: Sequence[int]
    ) -> None:
        self._loop, self.mode = loop, mode
        self._ports: dict[int, str] = dict(zip(parts["members"], parts["ports"], strict=True))
        self._running: set[int] = set()
        memory, watch, *ears = descriptors
        self._watch = socket.socket(fileno=watch)
        self._ears = {port: socket.socket(fileno=ear) for port, ear in zip(parts["ports"], ears, strict=True)}
        self._lacp: Lacp | None = None
        try:
            self._aggregate = Aggregate(memory, parts["device"], parts["ears"], parts["members"])
        except BaseException:
            self._close_sockets()
            raise
        finally:
            os.close(memory)
        if mode == "Lacp":
            self._lacp = Lacp(
                loop,
                parse_mac(parts["system"]),
                KEY,
                parts["ports"],
                self._send,
                self._working,
                TIMERS[parts.get("timers", "rfc")],
                parts.get("fast", True),
            )
        for port, sock in self._ears.items():
            loop.add_reader(sock, self._hear, port, sock)
        loop.add_reader(self._watch, self._look)
        request_links(self._watch)

    def describe(self) -> Message:
        """Mode, counters and state of each member by the name of its port, and what LACP knows."""
        active, counters = self._aggregate.active(), self._aggregate.counters()
        return {
            "mode": self.mode,
            "members": {
                port: {"carrier": index in self._running, "active": index in active, **counters[index]}
                for index, port in self._ports.items()
            },
            "drops": self._aggregate.drops(),
            "lacp": self._lacp.describe() if self._lacp else None,
        }

    def close(self) -> None:
        """Leave the aggregate, which passes nothing from now on."""
        if self._lacp:
            self._lacp.close()
        self._loop.remove_reader(self._watch)
        for sock in self._ears.values():
            self._loop.remove_reader(sock)
        self._aggregate.write(())
        self._aggregate.close()
        self._close_sockets()

    def _close_sockets(self) -> None:
        for sock in (self._watch, *self._ears.values()):
            sock.close()

    def _look(self) -> None:
        before = set(self._running)
        for link in read_links(self._watch):
            if link.ifindex in self._ports:
                (self._running.add if link.running else self._running.discard)(link.ifindex)
                if self._lacp:
                    self._lacp.set_up(self._ports[link.ifindex], link.running)
        if not self._lacp and self._running != before:
            self._aggregate.write(tuple(self._running))

    def _working(self, ports: frozenset[str]) -> None:
        self._aggregate.write([index for index, port in self._ports.items() if port in ports])

    def _hear(self, port: str, sock: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                frame = sock.recv(_LONGEST)
            except OSError:
                return
            if self._lacp:
                self._lacp.heard(port, frame)

    def _send(self, port: str, frame: bytes) -> bool:
        """Whether the frame has left by the member."""
        address: Any = (port, TYPE_SLOW)
        try:
            self._ears[port].sendto(frame, address)
        except OSError:
            return False
        return True
