"""The control socket of a host as far as it tells events; the numbering and its losses are the product's."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from testbed.channel import Channel, listen
from testbed.host.events import EventRing
from testbed.telemetry import Event


class EventHost:
    """Answers ``events`` while it lives. Clear ``answering`` and it takes its time."""

    def __init__(self, folder: Path, name: str, began: float = 1.0, kept: int = 100) -> None:
        self.name, self.began = name, began
        self.path = folder / f"{name}.sock"
        self.ring = EventRing(kept)
        self.answering = threading.Event()
        self.answering.set()
        self._listener = listen(self.path)
        self._listener.setblocking(True)
        self._channels: list[Channel] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def note(self, time: float, kind: str = "link", host: str = "", lost: int = 0, **fields: Any) -> None:
        self.ring.add([Event(time, host or self.name, kind, "nic1", fields)], lost)

    def close(self) -> None:
        """It dies: whoever has a connection sees its end."""
        self.path.unlink(missing_ok=True)
        self._listener.close()
        for channel in self._channels:
            with contextlib.suppress(OSError):  # the other end went first
                channel.socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> EventHost:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        try:
            while True:
                channel = Channel(self._listener.accept()[0])
                channel.socket.settimeout(None)
                self._channels.append(channel)
                threading.Thread(target=self._serve, args=[channel], daemon=True).start()
        except OSError:
            return  # closed

    def _serve(self, channel: Channel) -> None:
        try:
            while received := channel.receive():
                message, _ = received
                self.answering.wait()
                channel.send({**self.ring.since(message["after"]), "began": self.began})
        except OSError:
            return
        finally:
            channel.close()
