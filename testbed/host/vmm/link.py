"""A host's link to the VMM: it follows the host's stream of changes, for ever, and carries its reports.

While the VMM is away the host goes on with what it has. It comes back with the last revision it has
applied, so it gets just what it missed (docs/vmm.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from testbed.errors import TestbedError
from testbed.host.vmm.http import Connection
from testbed.topology.plan import HostPolicy
from testbed.vmm.model import Probe
from testbed.vmm.replica import Missed, Replica
from testbed.wnv.policy import Change

_FIRST_PAUSE, _GROWTH, _LONGEST_PAUSE = 0.05, 1.5, 2.0  # seconds between attempts
_SILENCE = 15.0  # seconds without a line, of which one comes every 5 s, until the link counts as broken
_ANSWER = 10.0  # seconds for the answer to a report

Answer = tuple[int, Any]  # status, decoded body


class Access(Struct, frozen=True):
    """How a host reaches the VMM."""

    address: str
    port: int
    token: str


class Handlers(Struct, frozen=True):
    """What becomes of what the VMM says. reset and follow raise TestbedError when it does not fit."""

    reset: Callable[[HostPolicy], None]
    follow: Callable[[list[Change]], None]
    in_step: Callable[[], None]  # the link is back, or the policy was taken anew
    probe: Callable[[Probe], None]  # ask a VM of this host whether it has an address
    connection: Callable[[bool, str], None] = lambda *_: None  # the stream has begun, or ended and why


class VmmLink:
    """The link of one host. revision: the last one applied; error: why there is no stream, or ""."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, host: str, access: Access, handlers: Handlers
    ) -> None:
        self.access = access
        self.connected = False
        self.error = "not connected yet"
        self._loop = loop
        self._host = host
        self._handlers = handlers
        self._replica = Replica()
        self._requests = asyncio.Lock()
        self._connection: Connection | None = None
        self._task = loop.create_task(self._keep())

    @property
    def revision(self) -> int | None:
        """The last revision of the VMM's that holds here."""
        return self._replica.revision

    @property
    def store(self) -> str | None:
        """Which store the revision counts for."""
        return self._replica.store

    def close(self) -> None:
        """Part from the VMM."""
        self._task.cancel()
        self._drop()

    def resync(self) -> None:
        """Take the whole policy anew."""
        self._replica = Replica()
        self._task.cancel()
        self._task = self._loop.create_task(self._keep())

    async def call(self, method: str, path: str, body: Any = None, **params: Any) -> Answer:
        """One request below /v1/hosts/{host}. Raises OSError when the VMM is away."""
        target = f"/v1/hosts/{self._host}{path}" + (f"?{urlencode(params)}" if params else "")
        data = None if body is None else msgspec.json.encode(body)
        async with self._requests:
            for attempt in (1, 2):
                fresh = self._connection is None
                try:
                    if self._connection is None:
                        self._connection = await self._open(_ANSWER)
                    status = await self._connection.send(method, target, data)
                    answer = await self._connection.body()
                except OSError:
                    self._drop()
                    if fresh or attempt == 2:  # a kept connection may have been closed by the VMM
                        raise
                    continue
                except BaseException:
                    self._drop()
                    raise
                return status, (msgspec.json.decode(answer) if answer else None)
        raise AssertionError("unreachable")

    # ---- the stream -------------------------------------------------------------------------

    async def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._watch()
                self.error = "the VMM has ended the stream"
            except (OSError, Missed, msgspec.DecodeError) as error:
                self.error = str(error) or type(error).__name__
            except TestbedError as error:  # it does not fit what is here: begin anew
                self.error = str(error)
                self._replica = Replica()
            if self.connected:
                pause = _FIRST_PAUSE
                self._handlers.connection(False, self.error)
            self.connected = False
            await asyncio.sleep(pause)  # between attempts, not for a result
            pause = min(pause * _GROWTH, _LONGEST_PAUSE)

    async def _watch(self) -> None:
        replica = self._replica
        params: Mapping[str, Any] = {}
        if replica.revision is not None:
            params = {"revision": replica.revision, "store_id": replica.store}
        connection = await self._open(_SILENCE)
        try:
            target = f"/v1/hosts/{self._host}/watch" + (f"?{urlencode(params)}" if params else "")
            status = await connection.send("GET", target)
            if status != 200:
                if status == 410:  # it does not know the revision: its store is older than ours
                    self._replica = Replica()
                raise OSError(f"HTTP status {status}: {(await connection.body()).decode(errors='replace')}")
            if not self.connected:  # it still is when the policy is only taken anew
                self._handlers.connection(True, "")
            self.connected, self.error = True, ""
            if replica.revision is not None:
                self._handlers.in_step()
            async for line in connection.lines():
                self._take(replica, line)
        finally:
            connection.close()

    def _take(self, replica: Replica, line: bytes) -> None:
        found = replica.feed(line)
        if isinstance(found, HostPolicy):
            self._handlers.reset(found)
            self._handlers.in_step()
        elif isinstance(found, Probe):
            self._handlers.probe(found)
        elif found:
            self._handlers.follow(found)

    async def _open(self, seconds: float) -> Connection:
        return await Connection.open(self.access.address, self.access.port, self.access.token, seconds)

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None
