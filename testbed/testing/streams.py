"""TCP streams between two VMs from chosen ports, and a hash of them that is not the product's own."""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence

from testbed.namespaces import in_netns

_KEY = "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
_BLOCK = 1 << 16


def toeplitz(source: str, destination: str, more: bytes = b"") -> int:
    """The hash by the book, on strings of bits: the key's 32 bits from each set bit of the input on."""
    packed = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed + more
    key = f"{int(_KEY, 16):0320b}"
    result = 0
    for position, bit in enumerate("".join(f"{byte:08b}" for byte in packed)):
        if bit == "1":
            result ^= int(key[position : position + 32], 2)
    return result


def flow_hash(source: str, source_port: int, destination: str, destination_port: int) -> int:
    """Of a TCP or UDP flow."""
    return toeplitz(source, destination, source_port.to_bytes(2, "big") + destination_port.to_bytes(2, "big"))


def ports_for(
    queues: Sequence[int], source: str, destination: str, destination_port: int, table: Sequence[int]
) -> list[int]:
    """Source ports whose flows take just these queues, in this order."""
    found: list[int] = []
    port = 20000
    for queue in queues:
        while table[flow_hash(source, port, destination, destination_port) % len(table)] != queue:
            port += 1
        found.append(port)
        port += 1
    return found


def run(
    client: int,
    server: int,
    address: str,
    sources: Sequence[int],
    *,
    port: int = 7100,
    seconds: float = 0.0,
    size: int = 0,
) -> int:
    """Send from each source port, for some time or so many bytes each; all bytes that came within that.

    ``client``, ``server``: network namespaces. The first half second of a run by time is not counted.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with in_netns(server):
        listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(64)
    sender = os.fork()
    if sender == 0:
        try:
            _send(client, family, (address, port), sources, seconds + 1.5 if seconds else 0.0, size)
        finally:
            os._exit(0)
    try:
        return _receive(listener, len(sources), seconds, size)
    finally:
        listener.close()
        os.waitpid(sender, 0)


def copy(client: int, server: int, address: str, data: bytes, port: int) -> bytes:
    """What arrives of ``data`` that one VM sends another by TCP."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with in_netns(server):
        listener = socket.socket(family)
    with in_netns(client):
        sender = socket.socket(family)
    arrived = bytearray()

    def receive() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(20)
            while got := connection.recv(1 << 20):
                arrived.extend(got)

    with listener, sender:
        listener.bind((address, port))
        listener.listen()
        listener.settimeout(20)
        thread = threading.Thread(target=receive)
        thread.start()
        sender.settimeout(20)
        sender.connect((address, port))
        sender.sendall(data)
        sender.shutdown(socket.SHUT_WR)
        thread.join(30)
    return bytes(arrived)


def _send(
    client: int,
    family: socket.AddressFamily,
    target: tuple[str, int],
    sources: Sequence[int],
    seconds: float,
    size: int,
) -> None:
    open_ones: dict[int, list[int]] = {}
    sockets = []
    for source in sources:
        with in_netns(client):
            sock = socket.socket(family)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # the end of a run frees its ports at once
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0) if seconds else b"\0" * 8
        )
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        sock.bind(("", source))
        sock.settimeout(10)
        sock.connect(target)
        sock.setblocking(False)
        sockets.append(sock)
        open_ones[sock.fileno()] = [size or 1 << 62]
    data = os.urandom(_BLOCK)
    poll = select.poll()
    for sock in sockets:
        poll.register(sock, select.POLLOUT)
    by_number = {sock.fileno(): sock for sock in sockets}
    end = time.monotonic() + (seconds or 60.0)
    while open_ones and time.monotonic() < end:
        for number, _ in poll.poll(100):
            left = open_ones[number]
            try:
                left[0] -= by_number[number].send(data[: min(_BLOCK, left[0])])
            except OSError:
                left[0] = 0
            if left[0] <= 0:
                poll.unregister(number)
                del open_ones[number]
                by_number[number].close()


def _receive(listener: socket.socket, count: int, seconds: float, size: int) -> int:
    listener.settimeout(10)
    poll = select.poll()
    connections = {}
    for _ in range(count):
        sock, _ = listener.accept()
        sock.setblocking(False)
        poll.register(sock, select.POLLIN)
        connections[sock.fileno()] = sock
    buffer = bytearray(1 << 20)
    begin = time.monotonic() + (0.5 if seconds else 0.0)
    end, total = begin + (seconds or 60.0), 0
    while connections and (now := time.monotonic()) < end:
        for number, _ in poll.poll(100):
            try:
                got = connections[number].recv_into(buffer)
            except OSError:
                got = 0
            if now >= begin:
                total += got
            if not got:
                poll.unregister(number)
                connections.pop(number).close()
    for sock in connections.values():
        sock.close()
    return total
