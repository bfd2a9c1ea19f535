"""A small HTTP/1.1 client on asyncio streams; h11 does the protocol.

One connection, one request at a time. What breaks raises OSError (or TimeoutError, which is one), and
the connection is good for nothing afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import h11

_READ = 1 << 16  # bytes
CONNECT_SECONDS = 5.0


class Connection:
    """A connection to the VMM. ``seconds``: how long it may say nothing."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float, headers: Headers
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._seconds = seconds
        self._headers = headers
        self._http = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(cls, address: str, port: int, token: str, seconds: float) -> Connection:
        """Connect. Raises OSError."""
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(address, port)
        headers = [("Host", f"{address}:{port}"), ("Authorization", f"Bearer {token}")]
        return cls(reader, writer, seconds, headers)

    async def send(self, method: str, target: str, body: bytes | None = None) -> int:
        """Send a request; the status of the answer, whose body is to be read next."""
        headers = list(self._headers)
        if body is not None:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        try:
            data = self._http.send(h11.Request(method=method, target=target, headers=headers)) or b""
            if body:
                data += self._http.send(h11.Data(data=body)) or b""
            data += self._http.send(h11.EndOfMessage()) or b""
            self._writer.write(data)
            async with asyncio.timeout(self._seconds):
                await self._writer.drain()
            while True:
                event = await self._next()
                if isinstance(event, h11.Response):
                    return event.status_code
        except h11.ProtocolError as error:
            raise OSError(f"not HTTP: {error}") from error

    async def body(self) -> bytes:
        """The whole body; the connection is ready for the next request."""
        data = b"".join([piece async for piece in self._pieces()])
        self._http.start_next_cycle()
        return data

    async def lines(self) -> AsyncIterator[bytes]:
        """The body line by line, as it comes, until it ends."""
        rest = bytearray()
        async for piece in self._pieces():
            rest += piece
            if b"\n" not in piece:
                continue
            *whole, last = rest.split(b"\n")
            rest = last
            for line in whole:
                yield bytes(line)

    def close(self) -> None:
        """Close it."""
        self._writer.close()

    async def _pieces(self) -> AsyncIterator[bytes]:
        while True:
            event = await self._next()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return

    async def _next(self) -> h11.Event:
        try:
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    async with asyncio.timeout(self._seconds):
                        data = await self._reader.read(_READ)
                    self._http.receive_data(data)
                elif isinstance(event, type | h11.ConnectionClosed):
                    raise ConnectionResetError("the VMM has closed the connection")
                else:
                    return event
        except h11.ProtocolError as error:
            raise OSError(f"not HTTP: {error}") from error


Headers = list[tuple[str, str]]
