"""Events of the lab among the packets of a capture: an interface of its own, whose packets are lines of text.

They are written as Wireshark's exported PDUs (LINKTYPE_WIRESHARK_UPPER_PDU) for its syslog dissector, so that
the text stands where a packet's summary does. https://www.tcpdump.org/linktypes.html, epan/exported_pdu.h.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from testbed.capture.points import Point
from testbed.capture.records import Record
from testbed.capture.source import Reader

EVENTS = Point("events", "", "", "what hosts and the VMM did")
_LONGEST = 1 << 16
_SECONDS = 5.0  # for the last look, and for the thread to end
_HEAD = struct.Struct("=q?")  # time, or until when all is told; whether it is an event
_TAG = struct.Struct("!HH")  # EXP_PDU_TAG_...: type, length
_DISSECTOR, _END = 12, 0
_PRIORITY = b"<134>"  # RFC 5424 section 6.2.1: local use 0, informational
_ALL = 1 << 62


class Happened(NamedTuple):
    """An event. time: nanoseconds since 1970. id: by which others know it too."""

    time: int
    id: str
    text: str


class Look(Protocol):
    """Who knows of events. Used by one thread."""

    def __call__(self) -> tuple[list[Happened], int]:
        """What is new, oldest first, and until when (nanoseconds since 1970) that is all there was."""

    def close(self) -> None:
        """There will be no more looks."""


class EventReader(Reader):
    """Looks for events every ``period`` seconds, in a thread: what is slow to answer holds up no packet."""

    is_beside = True

    def __init__(self, number: int, look: Look, period: float) -> None:
        super().__init__(number, EVENTS.name)
        self.socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.setblocking(False)
        self._look, self._period = look, period
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def read(self, limit: int) -> Iterator[Record]:
        """Up to ``limit`` events, oldest first."""
        for _ in range(limit):
            try:
                data = self.socket.recv(_LONGEST)
            except BlockingIOError:
                return
            except OSError:  # such as a last look that takes too long
                data = b""
            if not data:
                self.read_until = _ALL
                if not self._ending.is_set():
                    self.ended = "nobody tells events any more"
                return
            when, is_event = _HEAD.unpack_from(data)
            if is_event:
                self.received += 1
                yield self._record(when, data[_HEAD.size :])
            else:
                self.read_until = when

    def idle(self, now: int) -> None:
        """Nothing has come, which means nothing: an event may be on its way."""

    def settle(self) -> None:
        """One last look; ``read`` waits for it."""
        self.socket.settimeout(_SECONDS)
        self._ending.set()

    def count(self) -> None:
        """It has counted as it read; what hosts have lost is an event."""

    def close(self) -> None:
        """No more events."""
        self._ending.set()
        super().close()
        self._thread.join(_SECONDS)

    def _record(self, when: int, said: bytes) -> Record:
        data = pdu("syslog", _PRIORITY + said.partition(b": ")[2])
        return Record(when, self.number, data, len(data), 0, (f"event {said.decode()}",))

    def _run(self) -> None:
        with self._theirs:
            try:
                is_last = False
                while True:
                    found, until = self._look()
                    for event in found:
                        said = f"{event.id}: {event.text}".encode()[: _LONGEST - _HEAD.size]
                        self._theirs.send(_HEAD.pack(event.time, True) + said)
                    self._theirs.send(_HEAD.pack(until, False))
                    if is_last:
                        return
                    is_last = self._ending.wait(self._period)
            except ConnectionError:
                return  # nobody reads any more
            finally:
                self._look.close()


def pdu(dissector: str, payload: bytes) -> bytes:
    """Data for a dissector of Wireshark's, by its name."""
    name = dissector.encode()
    name += bytes(-len(name) % 4)
    return _TAG.pack(_DISSECTOR, len(name)) + name + _TAG.pack(_END, 0) + payload
