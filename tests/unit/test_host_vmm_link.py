"""testbed.host.vmm: a host that follows a real VMM process, and what breaks in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.vmm import Process, plan_4host, running
from testbed.errors import BadInput
from testbed.host.layers import Layers
from testbed.host.vmm.http import Connection
from testbed.host.vmm.link import Access, Handlers, VmmLink
from testbed.topology.plan import HostPolicy, encode
from testbed.vmm.model import Probe
from testbed.wnv.policy import Change

SECONDS = 20.0
NEW = {
    "customer_address": "10.0.0.77",
    "virtual_subnet_id": 5001,
    "mac_address": "02:00:00:00:00:77",
    "provider_address": "192.168.0.2",
}


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    path.write_bytes(encode(plan_4host()))
    return path


@pytest.fixture
def vmm(tmp_path: Path, plan: Path) -> Iterator[Process]:
    with running(tmp_path / "vmm", "--plan", str(plan)) as process:
        yield process


class Follower:
    """A host's policy, kept by a link. ``refuses``: the next changes do not fit."""

    def __init__(self) -> None:
        self.layers = Layers(HostPolicy())
        self.resets = self.in_step = 0
        self.refuses = False
        self.probes: list[Probe] = []
        self.connections: list[tuple[bool, str]] = []

    def reset(self, policy: HostPolicy) -> None:
        self.resets += 1
        self.layers.reset(policy)

    def follow(self, changes: list[Change]) -> None:
        if self.refuses:
            self.refuses = False
            raise BadInput("it does not fit")
        self.layers.follow(changes)

    def connection(self, connected: bool, error: str) -> None:
        self.connections.append((connected, error))

    def came_in_step(self) -> None:
        self.in_step += 1

    def knows(self, ca: str) -> bool:
        return self.layers.effective.record_of(5001, ca) is not None


def token(vmm: Process, host: str = "host1") -> str:
    return (vmm.directory / "host-tokens" / host).read_text().strip()


@asynccontextmanager
async def linked(vmm: Process, follower: Follower, given: str = "") -> Any:
    access = Access("127.0.0.1", vmm.port, given or token(vmm))
    handlers = Handlers(
        follower.reset,
        follower.follow,
        follower.came_in_step,
        follower.probes.append,
        follower.connection,
    )
    link = VmmLink(asyncio.get_running_loop(), "host1", access, handlers)
    try:
        yield link
    finally:
        link.close()
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


async def whole(connection: Connection) -> bytes:
    await connection.send("GET", "/")
    return await connection.body()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_a_host_takes_its_policy_and_follows(vmm: Process) -> None:
    async def test() -> None:
        follower = Follower()
        async with linked(vmm, follower) as link:
            await until(lambda: follower.in_step == 1)
            assert link.connected
            assert follower.knows("10.0.0.6")
            assert vmm.call("POST", "/v1/lookup-records", NEW)[0] == 201
            await until(lambda: follower.knows("10.0.0.77"))
            assert (follower.resets, follower.in_step) == (1, 1)

    run(test())


def test_a_host_resumes_after_the_vmm_was_killed(vmm: Process, tmp_path: Path, plan: Path) -> None:
    async def test() -> None:
        follower = Follower()
        async with linked(vmm, follower) as link:
            await until(lambda: link.revision is not None)
            vmm.process.kill()
            vmm.process.wait(30)
            await until(lambda: not link.connected)
            assert follower.connections == [(True, ""), (False, link.error)]  # told once each, however long
            assert link.error
            with pytest.raises(OSError, match=r"."):
                await link.call("POST", "/report", {"revision": 1})
            assert follower.knows("10.0.0.6")
            port = vmm.port
            with running(tmp_path / "vmm", "--plan", str(plan), listen=f"127.0.0.1:{port}") as again:
                assert again.call("POST", "/v1/lookup-records", NEW)[0] == 201
                await until(lambda: follower.knows("10.0.0.77"))
                assert follower.resets == 1  # it went on from where it was
                assert follower.in_step == 2
                assert [connected for connected, _ in follower.connections] == [True, False, True]
                assert (await link.call("POST", "/report", {"revision": link.revision}))[0] in (201, 204, 200)

    run(test())


def test_a_change_that_does_not_fit_has_the_host_begin_anew(vmm: Process) -> None:
    async def test() -> None:
        follower = Follower()
        async with linked(vmm, follower) as link:
            await until(lambda: link.revision is not None)
            follower.refuses = True
            vmm.call("POST", "/v1/lookup-records", NEW)
            await until(lambda: follower.resets == 2)
            assert follower.knows("10.0.0.77")

    run(test())


def test_a_resync_takes_the_whole_policy_anew(vmm: Process) -> None:
    async def test() -> None:
        follower = Follower()
        async with linked(vmm, follower) as link:
            await until(lambda: follower.resets == 1)
            link.resync()
            assert link.revision is None
            await until(lambda: follower.resets == 2)

    run(test())


def test_a_wrong_token_is_told_and_tried_again(vmm: Process) -> None:
    async def test() -> None:
        follower = Follower()
        async with linked(vmm, follower, "host1.wrong") as link:
            await until(lambda: "401" in link.error)
            assert follower.resets == 0
            assert (await link.call("POST", "/report", {"revision": 1}))[0] == 401

    run(test())


def test_refusals_have_the_vmms_words(vmm: Process) -> None:
    async def test() -> None:
        async with linked(vmm, Follower()) as link:
            await until(lambda: link.connected)
            claim = {
                "mac": "02:00:00:00:00:01",
                "ca": "10.0.0.9",
                "vsid": 5001,
                "pa": "192.168.0.1",
                "how": "arp",
            }
            status, body = await link.call("POST", "/learned", claim)
            assert status == 403
            assert "no port" in body["error"]["what"]

    run(test())


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"",
    ],
)
def test_what_is_no_http_is_an_os_error(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def test() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection = await Connection.open("127.0.0.1", port, "token", 5.0)
        with pytest.raises(OSError, match=r"."):
            await whole(connection)
        connection.close()
        server.close()
        await asyncio.sleep(0.01)  # transports end a turn later

    run(test())


def test_silence_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async def test() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection = await Connection.open("127.0.0.1", port, "token", 0.05)
        with pytest.raises(TimeoutError):
            await connection.send("GET", "/")
        connection.close()
        server.close()
        await asyncio.sleep(0.01)  # transports end a turn later

    run(test())
