"""Messages between the processes of a lab over Unix stream sockets.

A message is a MessagePack map behind a 4-byte big-endian length; file descriptors
(TAP queues, pidfds) travel beside it as ancillary data. A request names its operation
in ``op``; a reply is a map, with ``error`` (and ``exit_code``) when the operation failed.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from testbed.errors import BadInput, LabError, TestbedError

Message = dict[str, Any]
Handler = Callable[[Message, list[int]], "Reply"]

MAX_MESSAGE_BYTES = 64 << 20
MAX_DESCRIPTORS = 64
TIMEOUT_SECONDS = 10.0


class Reply:
    """What a handler answers: a map, and descriptors that the channel sends but does not close."""

    def __init__(self, message: Message | None = None, descriptors: Sequence[int] = ()) -> None:
        self.message = message or {}
        self.descriptors = descriptors


class Channel:
    """One end of a connection. Blocking, every call bounded by ``timeout`` seconds."""

    def __init__(self, sock: socket.socket, timeout: float = TIMEOUT_SECONDS) -> None:
        self.socket = sock
        sock.settimeout(timeout)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send one message. Raises OSError when the peer is gone."""
        body = msgspec.msgpack.encode(message)
        head = len(body).to_bytes(4, "big")
        if descriptors:
            socket.send_fds(self.socket, [head], list(descriptors))
            self.socket.sendall(body)
        else:
            self.socket.sendall(head + body)

    def readable(self) -> bool:
        """Whether ``receive`` would find something (a message, or the end) without waiting."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def receive(self) -> tuple[Message, list[int]] | None:
        """The next message and its descriptors, or None when the peer has closed."""
        head, descriptors, _, _ = socket.recv_fds(self.socket, 4, MAX_DESCRIPTORS)
        if not head:
            return None
        head += self._exactly(4 - len(head))
        length = int.from_bytes(head, "big")
        if length > MAX_MESSAGE_BYTES:
            raise LabError(f"a message of {length} bytes is beyond the limit of {MAX_MESSAGE_BYTES}")
        message: Message = msgspec.msgpack.decode(self._exactly(length), type=dict[str, Any])
        return message, descriptors

    def call(self, op: str, descriptors: Sequence[int] = (), **fields: Any) -> tuple[Message, list[int]]:
        """Send a request and wait for its reply. Raises the peer's error as one of ours."""
        try:
            self.send({"op": op, **fields}, descriptors)
            answer = self.receive()
        except TimeoutError as error:
            raise LabError(f"no answer to {op!r} within {self.socket.gettimeout()} s") from error
        except OSError as error:
            raise LabError(f"the connection broke during {op!r}: {error}") from error
        if answer is None:
            raise LabError(f"the peer closed the connection during {op!r}")
        message, received = answer
        if "error" in message:
            raise (BadInput if message.get("exit_code") == BadInput.exit_code else LabError)(message["error"])
        return message, received

    def close(self) -> None:
        """Close this end."""
        self.socket.close()

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exactly(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            chunk = self.socket.recv(min(length - len(data), 1 << 20))
            if not chunk:
                raise ConnectionResetError("closed in the middle of a message")
            data += chunk
        return bytes(data)


def pair() -> tuple[Channel, Channel]:
    """Two connected ends."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(one), Channel(other)


def listen(path: Path) -> socket.socket:
    """A listening socket at ``path``.

    The folder's descriptor stands in for its name in the address, which may be 107 bytes at most.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        sock.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
    path.chmod(0o600)
    sock.listen(16)
    return sock


def connect(path: Path, timeout: float = TIMEOUT_SECONDS) -> Channel:
    """Connect to the process that listens at ``path``, waiting until it does and has room in its queue.

    Raises LabError when nothing answers within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
            try:
                sock.connect(f"/proc/self/fd/{folder}/{path.name}")
            finally:
                os.close(folder)
            return Channel(sock, timeout)
        except (
            FileNotFoundError,
            ConnectionRefusedError,
            BlockingIOError,
        ) as error:  # the last: its queue is full
            sock.close()
            if time.monotonic() > deadline:
                raise LabError(f"nothing listens at {path} ({error.strerror})") from error
            time.sleep(0.005)  # a poll with a deadline: a socket's birth can't be waited for otherwise


class Server:
    """Answers requests on a listening socket inside an asyncio loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: socket.socket, handler: Handler) -> None:
        self._loop = loop
        self._handler = handler
        self._listener = listener
        loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Stop accepting."""
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        channel = Channel(sock)
        self._loop.add_reader(sock, self._serve, channel)

    def _serve(self, channel: Channel) -> None:
        try:
            request = channel.receive()
            if request is not None:
                reply = self._answer(*request)
                channel.send(reply.message, reply.descriptors)
                return
        except (OSError, msgspec.DecodeError, TestbedError):
            pass  # a broken peer loses its connection, nothing else
        self._loop.remove_reader(channel.socket)
        channel.close()

    def _answer(self, message: Message, descriptors: list[int]) -> Reply:
        try:
            return self._handler(message, descriptors)
        except TestbedError as error:
            return Reply({"error": str(error), "exit_code": error.exit_code})
        except (KeyError, ValueError, TypeError, OSError) as error:
            return Reply({"error": f"{message.get('op')}: {error!r}", "exit_code": LabError.exit_code})
