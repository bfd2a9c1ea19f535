"""What is seen where: packet sockets of our own at cables and VM adapters, drop counters, events.

Nothing waits for "long enough". That something does *not* appear is known once a later packet on the
same way has come through: ports, cables and adapters are first in, first out.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from testbed.conformance.outcome import Failed
from testbed.namespaces import in_netns

SECONDS = 5.0  # deadline for what must appear
RESEND_SECONDS = 0.3
_ETH_P_ALL = 3
_PACKET_OUTGOING = 4
_SO_RCVBUFFORCE = 33
_RECEIVE_BYTES = 16 << 20
_LARGEST = 1 << 17

T = TypeVar("T")


class Place(NamedTuple):
    """An interface at which frames are seen. label: for evidence."""

    label: str
    netns: int
    interface: str


class Seen(NamedTuple):
    """A frame. outgoing: sent out of the interface, as its own side sees it."""

    data: bytes
    outgoing: bool
    time: float  # seconds since the epoch


def first(
    seen: Callable[[], Sequence[T]],
    fits: Callable[[T], bool],
    sockets: Sequence[socket.socket],
    again: Callable[[], object],
    seconds: float,
    pace: float = RESEND_SECONDS,
) -> T | None:
    """The first that fits of ``seen``, which grows at its end; None at the deadline.

    It is looked at when there is something to read at ``sockets``, and every ``pace`` seconds. ``again`` is
    called at once and then in intervals, until it is there.
    """
    deadline, resend, known = time.monotonic() + seconds, 0.0, 0
    while True:
        now = time.monotonic()
        all_seen = seen()
        for each in itertools.islice(all_seen, known, None):
            if fits(each):
                return each
        known = len(all_seen)
        if now > deadline:
            return None
        if now >= resend:
            again()
            resend = now + RESEND_SECONDS
        select.select(sockets, [], [], max(0.0, min(now + pace, resend, deadline) - time.monotonic()))


class Capture:
    """All frames at some places since the ``with`` block was entered."""

    def __init__(self, *places: Place) -> None:
        self._places = places
        self._sockets: dict[Place, socket.socket] = {}
        self._seen: dict[Place, list[Seen]] = {place: [] for place in places}

    def __enter__(self) -> Capture:
        try:
            for place in self._places:
                with in_netns(place.netns):
                    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
                    self._sockets[place] = sock
                    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BYTES)
                    sock.bind((place.interface, _ETH_P_ALL))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def frames(self, place: Place) -> list[Seen]:
        """What has been seen at ``place`` so far, in order; after the block, what was asked for in it."""
        sock = self._sockets.get(place)
        with contextlib.suppress(BlockingIOError):
            while sock:
                data, address = sock.recvfrom(_LARGEST)
                seen = Seen(data, address[2] == _PACKET_OUTGOING, time.time())
                self._seen[place].append(seen)
        return self._seen[place]

    def holding(self, place: Place, token: bytes, *, outgoing: bool | None = None) -> list[bytes]:
        """The frames at ``place`` with ``token`` in them, of one direction or both."""
        return [
            seen.data
            for seen in self.frames(place)
            if token in seen.data and (outgoing is None or seen.outgoing is outgoing)
        ]

    def wait(
        self,
        place: Place,
        wanted: bytes | Callable[[Seen], bool],
        again: Callable[[], object] = lambda: None,
        *,
        what: str,
        outgoing: bool = False,
        seconds: float = SECONDS,
    ) -> bytes:
        """The first frame at ``place`` with a token in it, or of which ``wanted`` is true.

        ``again`` is called at once and then in intervals, until it is there. At an adapter
        ``outgoing`` False is what arrives. Raises Failed with ``what`` at the deadline.
        """

        def fits(seen: Seen) -> bool:
            found = wanted in seen.data if isinstance(wanted, bytes) else wanted(seen)
            return found and seen.outgoing is outgoing

        found = first(lambda: self.frames(place), fits, [self._sockets[place]], again, seconds)
        if found is None:
            raise Failed(f"{place.label}: {what} was not seen within {seconds:g} s")
        return found.data

    def save(self, place: Place, folder: Path, wanted: bytes | Callable[[Seen], bool]) -> Path:
        """The frames at ``place`` with a token in them, or that are wanted: a new file in ``folder``."""
        file = folder / f"{len(list(folder.iterdir()))}.pcap"
        if isinstance(wanted, bytes):
            save(file, [seen for seen in self.frames(place) if wanted in seen.data])
        else:
            save(file, [seen for seen in self.frames(place) if wanted(seen)])
        return file


def save(file: Path, frames: list[Seen]) -> None:
    """Write a capture file (libpcap 2.4, link type Ethernet)."""
    with file.open("wb") as stream:
        stream.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, _LARGEST, 1))
        for seen in frames:
            seconds, rest = divmod(seen.time, 1)
            head = struct.pack("=IIII", int(seconds), int(rest * 1e6), len(seen.data), len(seen.data))
            stream.write(head + seen.data)
