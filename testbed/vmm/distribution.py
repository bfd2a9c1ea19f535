"""What a host is told, and when.

A host's scopes are its own and those of the networks that it serves. Watchers hold no queue: one
that is woken reads the log of its scopes from the revision it has, so live delivery and resuming after
a break are the same, and a slow host costs nothing but its own lateness. Only the watchers of the
scopes that a change touched are woken.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

import msgspec

from testbed.vmm.model import KeepAlive, Probe
from testbed.vmm.refusals import Gone
from testbed.vmm.rules.served import networks_of
from testbed.vmm.store.database import Reader, Store, host_scope, network_scope
from testbed.vmm.store.tables import HOSTS

KEEP_ALIVE = 5.0  # seconds without a line
EVENTS_AT_ONCE = 1000
_SNAPSHOTS_AT_ONCE = 4
_LONGEST_CATCH_UP = 5000  # changes of the log; with more behind it a host gets a snapshot
_SNAPSHOT_TURN = 2.0  # seconds
_CHUNK = 64 * 1024  # bytes of a snapshot handed to the network at a time

# HostPolicy's fields, and a host's objects of each as JSON
_OWN_SUBNETS = "IN (SELECT vsid FROM subnets WHERE rdid IN (SELECT rdid FROM served WHERE host = ?))"
_OBJECTS = {
    "lookup_records": f"SELECT data FROM lookup_records WHERE virtual_subnet_id {_OWN_SUBNETS} "  # noqa: S608
    "ORDER BY virtual_subnet_id, customer_address, mac_address",
    "customer_routes": f"SELECT data FROM customer_routes WHERE virtual_subnet_id {_OWN_SUBNETS} "  # noqa: S608
    "ORDER BY virtual_subnet_id, destination_prefix, next_hop",
    "provider_addresses": "SELECT json_remove(data, '$.host') FROM provider_addresses WHERE host = ? "
    "ORDER BY virtual_subnet_id",
    "provider_routes": "SELECT json_remove(data, '$.host') FROM provider_routes WHERE host = ? "
    "ORDER BY destination_prefix, next_hop",
}


def policy_json(reader: Reader, host: str) -> bytes:
    """A host's whole policy: HostPolicy in JSON."""
    parts = []
    for name, query in _OBJECTS.items():
        rows = reader.connection.execute(query, [host])
        items = b",".join(data if isinstance(data, bytes) else data.encode() for (data,) in rows)
        parts.append(b'"%s":[%s]' % (name.encode(), items))
    return b"{" + b",".join(parts) + b"}"


def reset_line(store: Store, host: str) -> bytes:
    """The line that has a host begin anew."""
    head = b'{"type":"reset","revision":%d,"store":"%s","policy":' % (store.revision, store.id.encode())
    return head + policy_json(store, host) + b"}\n"


def scopes_of(reader: Reader, host: str) -> frozenset[str]:
    """Whose changes a host is told."""
    return frozenset([host_scope(host), *map(network_scope, networks_of(reader, host))])


def catch_up(store: Store, scopes: Iterable[str], revision: int | None) -> tuple[bytes, int] | None:
    """Lines that bring a host from a revision to the store's, and the last one's revision.

    None: it takes a snapshot.

    That is so when it has no revision, when the log does not reach back to it or has too much since, and
    when the host's set of networks has changed.
    """
    if revision is None or revision < store.log_start:
        return None
    rows = store.changes(tuple(scopes), revision, _LONGEST_CATCH_UP + 1)
    if len(rows) > _LONGEST_CATCH_UP or any(data is None for _, data in rows):
        return None
    lines = []
    for number, part in itertools.groupby(rows, key=lambda row: row[0]):
        changes = b",".join(data for _, data in part if data is not None)
        head = b'{"type":"changes","after":%d,"revision":%d,"changes":[' % (revision, number)
        lines.append(head + changes + b"]}\n")
        revision = number
    return b"".join(lines), revision


def keep_alive_line(after: int, revision: int) -> bytes:
    """The line that says that between two revisions there was nothing to tell."""
    return msgspec.json.encode(KeepAlive(after, revision)) + b"\n"


class Watcher:
    """One host's open stream."""

    def __init__(self, host: str, scopes: frozenset[str]) -> None:
        self.host = host
        self.scopes = scopes
        self.ended = False
        self.wake = asyncio.Event()
        self._probes: dict[Probe, None] = {}  # in order, each once

    def ask(self, probe: Probe) -> None:
        """Have the host probe one of its VMs."""
        self._probes[probe] = None
        self.wake.set()

    def take_probes(self) -> bytes:
        """The lines of the probes that have not gone out."""
        lines = b"".join(msgspec.json.encode(probe) + b"\n" for probe in self._probes)
        self._probes.clear()
        return lines

    def end(self) -> None:
        """Have the stream end."""
        self.ended = True
        self.wake.set()


class Hub:
    """Wakes the watchers of the scopes that a change has touched.

    keep_alive: seconds without news after which a stream says that it is alive.
    """

    def __init__(self, store: Store, *, keep_alive: float = KEEP_ALIVE) -> None:
        self.store = store
        self._keep_alive = keep_alive
        self._closed = False
        self._watchers: dict[str, Watcher] = {}  # by host
        self._by_scope: defaultdict[str, set[Watcher]] = defaultdict(set)
        self._followers: set[asyncio.Event] = set()
        self._snapshots = asyncio.Semaphore(_SNAPSHOTS_AT_ONCE)
        store.listeners.append(self._committed)

    def watching(self, host: str) -> bool:
        """Whether a host has a stream open."""
        return host in self._watchers

    def probe(self, host: str, probe: Probe) -> bool:
        """Have a host ask one of its VMs. False: it has no stream open."""
        if (watcher := self._watchers.get(host)) is None:
            return False
        watcher.ask(probe)
        return True

    def close(self) -> None:
        """End all streams: the VMM ends."""
        self._closed = True
        for watcher in self._watchers.values():
            watcher.end()
        for follower in self._followers:
            follower.set()

    def resume_point(self, revision: int | None, store: str | None) -> int | None:
        """The revision to resume from: None when it counts for another store. Raises Gone."""
        if revision is None or store not in (None, self.store.id):
            return None
        if revision > self.store.revision:
            raise Gone(
                f"revision {revision} is unknown, the last one is {self.store.revision}",
                "ask without a revision, and begin anew",
            )
        return revision

    async def watch(self, host: str, revision: int | None) -> AsyncIterator[bytes]:
        """Lines for a host, until it is removed; a host's newer stream ends its older one."""
        if older := self._watchers.get(host):
            older.end()
        watcher = Watcher(host, scopes_of(self.store, host))
        self._watchers[host] = watcher
        self._enter(watcher)
        try:
            while not (watcher.ended or self._closed):
                watcher.wake.clear()
                found = catch_up(self.store, watcher.scopes, revision)
                if found is None:
                    if not self.store.get(HOSTS, host):  # its removal was a reset
                        return
                    async with self._snapshot_turn():
                        revision, line = self._snapshot(watcher)
                        for start in range(0, len(line), _CHUNK):
                            yield line[start : start + _CHUNK]
                    del line  # large, and the stream lives long
                    continue
                lines, revision = found
                if lines := lines + watcher.take_probes():
                    yield lines
                del found, lines
                if not await self._woken(watcher.wake):
                    # nothing up to now concerned the host: else it were awake
                    after, revision = revision, self.store.revision
                    yield keep_alive_line(after, revision)
        finally:
            self._leave(watcher)

    async def follow(self, after: int) -> AsyncIterator[bytes]:
        """Events after a revision, a line each, and those to come."""
        wake = asyncio.Event()
        self._followers.add(wake)
        try:
            while not self._closed:
                wake.clear()
                while events := self.store.events(after, EVENTS_AT_ONCE):
                    after = events[-1].revision
                    yield b"".join(msgspec.json.encode(event) + b"\n" for event in events)
                if not await self._woken(wake):
                    after, before = max(after, self.store.revision), after
                    yield keep_alive_line(before, after)
        finally:
            self._followers.discard(wake)

    async def _woken(self, wake: asyncio.Event) -> bool:
        """Wait for news. False: there are none, and it is time to say so."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._keep_alive):
                await wake.wait()
        return wake.is_set()

    @asynccontextmanager
    async def _snapshot_turn(self) -> AsyncIterator[None]:
        """Few snapshots are in memory at a time. A host that takes none of its own holds up no other."""
        await self._snapshots.acquire()
        held = True

        def give_back() -> None:
            nonlocal held
            if held:
                held = False
                self._snapshots.release()

        timer = asyncio.get_running_loop().call_later(_SNAPSHOT_TURN, give_back)
        try:
            yield
        finally:
            timer.cancel()
            give_back()

    def _snapshot(self, watcher: Watcher) -> tuple[int, bytes]:
        """The host's networks and its policy of one moment, and the revision of that."""
        self._unlist(watcher)
        watcher.scopes = scopes_of(self.store, watcher.host)
        self._enter(watcher)
        return self.store.revision, reset_line(self.store, watcher.host)

    def _enter(self, watcher: Watcher) -> None:
        for scope in watcher.scopes:
            self._by_scope[scope].add(watcher)

    def _unlist(self, watcher: Watcher) -> None:
        for scope in watcher.scopes:
            self._by_scope[scope].discard(watcher)
            if not self._by_scope[scope]:
                del self._by_scope[scope]

    def _leave(self, watcher: Watcher) -> None:
        self._unlist(watcher)
        if self._watchers.get(watcher.host) is watcher:
            del self._watchers[watcher.host]

    def _committed(self, scopes: frozenset[str]) -> None:
        for scope in scopes:
            for watcher in self._by_scope.get(scope, ()):
                watcher.wake.set()
        for follower in self._followers:
            follower.set()
