"""How long an address is not reached: a UDP probe each millisecond, answered by whichever VM has the address.

The outage is the longest time between two answers, less the interval of the probes. TCP would not do: its
shortest retransmission time is 200 ms. One process sends, answers and listens, with sockets in the VMs'
network namespaces, so that only the network and the switches are between two of its system calls; how
long it was itself held up is told beside the result.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from testbed.errors import LabError
from testbed.namespaces import in_netns

INTERVAL = 0.001  # seconds
PORT = 7007
_NUMBER = struct.Struct("!Q")
_READY = b"r"
_ANSWER_SECONDS = 10.0


class Outage(Struct, frozen=True):
    """Milliseconds; probes. held_up: the longest time in which no probe could be sent."""

    sent: int
    lost: int
    longest: float
    held_up: float


class Meter:
    """Probes until it is stopped. Use :func:`probing`."""

    def __init__(self, pid: int, orders: socket.socket) -> None:
        self._pid = pid
        self._orders = orders
        self._result: Outage | None = None

    def stop(self) -> Outage:
        """End, and say what was found. Raises LabError when the probes were never answered."""
        if self._result is None:
            self._orders.send(b"s")
            self._orders.settimeout(_ANSWER_SECONDS)
            data = self._orders.recv(1 << 16)
            if not data:
                raise LabError("the probes have failed: see standard error")
            self._result = msgspec.json.decode(data, type=Outage)
        return self._result

    def close(self) -> None:
        """End the process."""
        self._orders.close()
        os.waitpid(self._pid, 0)


@contextlib.contextmanager
def probing(sender: int, receivers: Sequence[int], address: str) -> Iterator[Meter]:
    """Probe an address from one network namespace; those of ``receivers`` answer if it is theirs.

    The block begins when the first probe has been answered. Raises LabError when none is.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        code = 1
        with contextlib.suppress(OSError):
            _run(theirs, sender, receivers, family, address)
            code = 0
        os._exit(code)
    theirs.close()
    meter = Meter(pid, ours)
    try:
        ours.settimeout(_ANSWER_SECONDS)
        try:
            if ours.recv(1) != _READY:
                raise LabError(f"{address} can't be probed: the probing process has ended")
        except TimeoutError:
            raise LabError(f"{address} does not answer probes") from None
        yield meter
    finally:
        meter.close()


def _run(
    orders: socket.socket, sender: int, receivers: Sequence[int], family: socket.AddressFamily, address: str
) -> None:
    gc.disable()
    answering = [_socket(netns, family, PORT) for netns in receivers]
    sending = _socket(sender, family, 0)
    poll = select.poll()
    by_descriptor = {each.fileno(): each for each in (*answering, sending, orders)}
    for each in by_descriptor:
        poll.register(each, select.POLLIN)
    number, answered, told = 0, 0, False
    due = time.monotonic()
    last_sent = last_answer = due
    longest = held_up = 0.0
    while True:
        now = time.monotonic()
        if now >= due:
            with contextlib.suppress(OSError):  # unreachable for the moment: a lost probe
                sending.sendto(_NUMBER.pack(number), (address, PORT))
            number += 1
            held_up = max(held_up, now - last_sent) if told else 0.0
            last_sent, due = now, max(due + INTERVAL, now)
        for descriptor, _ in poll.poll(max(0.0, (due - time.monotonic()) * 1000)):
            if descriptor == orders.fileno():
                orders.recv(1)  # what is left unread would be an error at the other end
                longest = max(longest, time.monotonic() - last_answer)
                found = Outage(number, number - answered, _ms(longest), _ms(held_up))
                orders.send(msgspec.json.encode(found))
                return
            if descriptor != sending.fileno():
                _answer(by_descriptor[descriptor])
                continue
            with contextlib.suppress(OSError):
                sending.recv(64)
                answered += 1
                at = time.monotonic()
                longest = max(longest, at - last_answer) if told else 0.0
                last_answer = at
                if not told:
                    told, number, answered = True, 1, 1
                    orders.send(_READY)


def _ms(seconds: float) -> float:
    return round(max(0.0, seconds - INTERVAL) * 1000, 3)


def _answer(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the address may have gone meanwhile
        data, source = sock.recvfrom(64)
        sock.sendto(data, source)


def _socket(netns: int, family: socket.AddressFamily, port: int) -> socket.socket:
    with in_netns(netns):
        sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
    sock.setblocking(False)
    return sock
