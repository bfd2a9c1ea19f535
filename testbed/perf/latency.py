"""Round trips of small UDP datagrams between two network namespaces, idle or while something else is sent.

A child process in each namespace: one echoes, the other sends at fixed times, whether or not what it sent
before has been answered, so that a stall is seen by every datagram that it holds up.
"""

from __future__ import annotations

import contextlib
import gc
import math
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence

from msgspec import Struct

from testbed.errors import LabError
from testbed.namespaces import NetnsCall, in_netns, start_in_netns

INTERVAL = 0.005  # seconds
_LATE = 1.0  # seconds after the last datagram in which an answer still counts
_GRACE = 10.0
_NUMBER = struct.Struct("!Q")


class RoundTrips(Struct, frozen=True):
    """sent: datagrams. times: of those that were answered, ms, the shortest first."""

    sent: int
    times: tuple[float, ...]

    @property
    def loss(self) -> float:
        """Percent that had no answer."""
        return 100 * (1 - len(self.times) / self.sent)


def percentile(times: Sequence[float], percent: float) -> float:
    """The smallest of sorted ``times`` that so many per cent of them do not exceed."""
    return times[max(0, math.ceil(len(times) * percent / 100) - 1)]


def measure(client: int, server: int, address: str, seconds: float) -> RoundTrips:
    """Send for ``seconds``. Raises LabError: no datagram was answered."""
    with probing(client, server, address, seconds) as probes:
        return answered(probes, seconds)


@contextlib.contextmanager
def probing(client: int, server: int, address: str, seconds: float) -> Iterator[NetnsCall[RoundTrips]]:
    """Send for ``seconds`` from now on; :func:`answered` has the result."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as stack:
        with in_netns(server):
            echo = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        echo.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
        port = echo.getsockname()[1]
        stack.enter_context(start_in_netns(server, _echo, echo, name="echo"))
        yield stack.enter_context(
            start_in_netns(client, _probe, family, address, port, seconds, name="round trips")
        )


def answered(probes: NetnsCall[RoundTrips], seconds: float) -> RoundTrips:
    """What was found. Raises LabError: no datagram was answered."""
    found = probes.result(seconds + _LATE + _GRACE)
    if not found.times:
        raise LabError(f"round trips: none of {found.sent} datagrams was answered")
    return found


def _echo(sock: socket.socket) -> None:
    gc.disable()
    while True:
        with contextlib.suppress(OSError):  # the sender may be out of reach for a moment
            data, source = sock.recvfrom(64)
            sock.sendto(data, source)


def _probe(family: socket.AddressFamily, address: str, port: int, seconds: float) -> RoundTrips:
    gc.disable()
    total = max(1, round(seconds / INTERVAL))
    sent_at: list[float] = []
    times: dict[int, float] = {}
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        began = time.monotonic()
        end = began + (total - 1) * INTERVAL + _LATE
        while (now := time.monotonic()) < end and len(times) < total:
            due = began + len(sent_at) * INTERVAL if len(sent_at) < total else end
            if len(sent_at) < total and now >= due:
                sent_at.append(now)
                with contextlib.suppress(OSError):  # unreachable for the moment, or no room: one that is lost
                    sock.sendto(_NUMBER.pack(len(sent_at) - 1), (address, port))
                continue
            if poll.poll(max(0.0, due - now) * 1000):
                with contextlib.suppress(OSError):
                    number = _NUMBER.unpack(sock.recv(64))[0]
                    times[number] = (time.monotonic() - sent_at[number]) * 1000
    return RoundTrips(total, tuple(sorted(times.values())))
