"""The carriers of a host's NICs: who hears of them, and the events of those that come and go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable

from testbed.linkwatch import LinkState, open_link_watch, read_links, request_links
from testbed.telemetry import EventLog


class Links:
    """``on_states(states)``: some interfaces of the host as they are now, NICs or not."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        events: EventLog,
        on_states: Callable[[list[LinkState]], None],
    ) -> None:
        self._loop, self._events, self._on_states = loop, events, on_states
        self._running: dict[str, bool | None] = {}  # by NIC; None: not told yet
        self._socket: socket.socket | None = None

    def watch(self, names: Iterable[str]) -> None:
        """The NICs to watch from now on. All interfaces are told once more."""
        self._running = {name: self._running.get(name) for name in names}
        if self._socket is None:
            self._socket = open_link_watch()
            self._loop.add_reader(self._socket, self._changed)
        request_links(self._socket)

    def close(self) -> None:
        """Watch no more."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _changed(self) -> None:
        assert self._socket is not None
        states = read_links(self._socket)
        for state in states:
            if state.name not in self._running:
                continue
            before, self._running[state.name] = self._running[state.name], state.running
            if before not in (None, state.running):
                self._events.add("link", state.name, state="up" if state.running else "down")
        self._on_states(states)
