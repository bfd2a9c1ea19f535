"""A VMM for tests: its API without a network, answers held against its OpenAPI document; or a process."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import msgspec

from testbed.topology import plan_from_file
from testbed.topology.plan import Plan
from testbed.vmm.api.app import build
from testbed.vmm.api.description import document
from testbed.vmm.distribution import Hub
from testbed.vmm.rules.hosts import hash_token
from testbed.vmm.store.database import Store
from testbed.vmm.store.tables import TABLES

ROOT = Path(__file__).parents[2]
ADMIN = "the-administrators-token"


def plan_4host(**variables: object) -> Plan:
    return plan_from_file(ROOT / "topologies" / "4host.yaml", {k: str(v) for k, v in variables.items()})


def contents(store: Store) -> dict[str, list[Any]]:
    """All that a store holds, its log and its revision too."""
    names = [table.name for table in TABLES] + ["changes", "events", "meta"]
    return {name: store.connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}


class Answer:
    def __init__(self, status: int, body: Any) -> None:
        self.status = status
        self.body = body

    @property
    def error(self) -> str:
        return f"{self.body['error']['what']}: {self.body['error']['remedy']}"


_DOCUMENT: dict[str, Any] = {}


class Api:
    """The API of a new store in a folder."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "vmm.sqlite")
        self.store.connection.execute("PRAGMA synchronous = OFF")  # the rules are tested, not the disk
        self.hub = Hub(self.store, keep_alive=0.002)
        self.app = build(self.store, self.hub, hash_token(ADMIN))
        if not _DOCUMENT:  # it takes longer than all else
            _DOCUMENT.update(json.loads(msgspec.json.encode(document(self.app.openapi_schema.to_schema()))))
        self.document = _DOCUMENT
        self.tokens: dict[str, str] = {}
        self.used: set[tuple[str, str]] = set()  # method and path of the document
        self._runner = asyncio.Runner()  # one loop for all requests: contests have timers
        self._streams: dict[str, AsyncIterator[bytes]] = {}

    def close(self) -> None:
        self.hub.close()
        for host in list(self._streams):
            self.unwatch(host)
        self._runner.close()
        self.store.close()

    def raw(self, method: str, path: str, token: str = ADMIN, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"} if token else {}
        headers |= more.pop("headers", {})

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://vmm") as client:
                return await client.request(method, path, headers=headers, timeout=30, **more)

        return self._runner.run(ask())

    def call(self, method: str, path: str, body: Any = None, token: str = ADMIN, **query: Any) -> Answer:
        """Ask, and hold the answer against the document."""
        content = None if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        response = self.raw(method, path, token, content=content, params=query)
        answer = Answer(response.status_code, response.json() if response.content else None)
        self._check(method, path, body, answer)
        return answer

    def must(self, method: str, path: str, body: Any = None, token: str = ADMIN, **query: Any) -> Any:
        answer = self.call(method, path, body, token, **query)
        assert answer.status < 300, answer.body
        return answer.body

    def _check(self, method: str, path: str, body: Any, answer: Answer) -> None:
        for template, item in self.document["paths"].items():
            if method.lower() in item and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
                break
        else:
            assert answer.status in (404, 405)
            return
        self.used.add((method, template))
        operation = item[method.lower()]
        documented = operation["responses"]
        assert str(answer.status) in documented, f"{method} {template} answers {answer.status}: {answer.body}"
        found = documented[str(answer.status)].get("content", {}).get("application/json")
        if found is None:
            assert answer.body is None
        else:
            self.validate(answer.body, found["schema"])
        if answer.status < 300 and "requestBody" in operation and isinstance(body, dict):
            self.validate(body, operation["requestBody"]["content"]["application/json"]["schema"])

    def validate(self, value: Any, schema: dict[str, Any]) -> None:
        jsonschema.Draft202012Validator({**schema, "components": self.document["components"]}).validate(value)

    # ---- a small world -----------------------------------------------------------------------

    def host(self, name: str) -> str:
        self.tokens[name] = self.must("POST", "/v1/hosts", {"name": name})["token"]
        return self.tokens[name]

    def world(self, hosts: int = 3) -> None:
        """PA pool; blue with 5001 (v4, v6) and 5002 (v4), red with 6001; hosts h1.."""
        self.must("POST", "/v1/pools", {"name": "pa", "prefix": "192.168.0.0/24"})
        for name, rdid in (("blue", BLUE), ("red", RED)):
            self.must("POST", "/v1/networks", {"name": name, "rdid": rdid})
        for rdid, vsid, *prefixes in (
            (BLUE, 5001, "10.0.0.0/24", "fd00::/64"),
            (BLUE, 5002, "10.0.1.0/24"),
            (RED, 6001, "10.0.0.0/24"),
        ):
            self.must("POST", "/v1/subnets", {"rdid": rdid, "vsid": vsid, "prefixes": prefixes})
        for number in range(1, hosts + 1):
            self.host(f"h{number}")

    def vm(self, name: str, host: str, vsid: int = 5001, **adapter: Any) -> dict[str, Any]:
        order = {"name": name, "host": host, "adapters": [{"vsid": vsid, **adapter}]}
        placed: dict[str, Any] = self.must("POST", "/v1/vms", order)
        return placed

    def watch(self, host: str) -> list[dict[str, Any]]:
        """What a host's stream has by now: it is opened at the first call."""

        async def read() -> bytes:
            if host not in self._streams:
                self._streams[host] = self.hub.watch(host, None)
            data = b""
            while b'"keep-alive"' not in data:
                data += await anext(self._streams[host])
            return data

        lines = [json.loads(line) for line in self._runner.run(read()).splitlines()]
        return [line for line in lines if line["type"] != "keep-alive"]

    def unwatch(self, host: str) -> None:
        """End a host's stream."""

        async def close() -> None:
            await self._streams.pop(host).aclose()  # type: ignore[attr-defined]

        self._runner.run(close())

    def wait(self, seconds: float) -> None:
        """Let the VMM's own timers run."""
        self._runner.run(asyncio.sleep(seconds))

    def port(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.must("GET", f"/v1/ports/{name}:eth0")
        return found

    def pa(self, host: str, vsid: int) -> str:
        found = self.must("GET", "/v1/provider-addresses", host=host)
        return next(each["provider_address"] for each in found if each["virtual_subnet_id"] == vsid)

    def learn(self, host: str, vm: str, ca: str, vsid: int = 5001, **more: Any) -> Answer:
        report = {
            "mac": self.port(vm)["mac"],
            "ca": ca,
            "vsid": vsid,
            "pa": self.pa(host, vsid),
            "how": "arp",
            **more,
        }
        return self.call("POST", f"/v1/hosts/{host}/learned", report, self.tokens[host])

    def record(self, ca: str, vsid: int = 5001) -> dict[str, Any] | None:
        found = self.must("GET", "/v1/lookup-records", virtual_subnet_id=vsid)
        return next((each for each in found if each["customer_address"] == ca), None)

    def in_pool(self, ca: str, pool: str = "5001-ipv4") -> tuple[str, str] | None:
        found = self.must("GET", f"/v1/pools/{pool}")["addresses"]
        return next(((each["state"], each["owner"]) for each in found if each["address"] == ca), None)

    def events(self, after: int = 0, kind: str = "customer-address") -> list[dict[str, Any]]:
        found = self.must("GET", "/v1/events", after=after, limit=1000)["events"]
        return [each for each in found if each["kind"] == kind]


BLUE = "{00000000-0000-0000-0000-00000000b1e0}"
RED = "{00000000-0000-0000-0000-0000000000ed}"


class Process:
    """A running VMM process."""

    def __init__(self, process: subprocess.Popen[str], directory: Path, address: str) -> None:
        self.process = process
        self.directory = directory
        self.host, _, port = address.rpartition(":")
        self.port = int(port)

    @property
    def admin(self) -> str:
        return (self.directory / "admin-token").read_text().strip()

    def call(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            headers = {"Authorization": f"Bearer {token or self.admin}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else msgspec.json.encode(body), headers)
            response = connection.getresponse()
            data = response.read()
            return response.status, json.loads(data) if data else None
        finally:
            connection.close()

    @contextmanager
    def stream(self, path: str, token: str) -> Iterator[http.client.HTTPResponse]:
        """An open stream; read lines of it with readline()."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            response = connection.getresponse()
            assert response.status == 200, response.read()
            yield response
            response.close()
        finally:
            connection.close()


def start(directory: Path, *options: str, listen: str = "127.0.0.1:0", **environment: str) -> Process:
    """Start a VMM process, on a free port unless told; end it with process.process.terminate() or kill()."""
    command = [sys.executable, "-m", "testbed.vmm", "--directory", str(directory), "--listen", listen]
    log = (directory.parent / f"{directory.name}.log").open("ab")
    with log:
        process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("listening on "):
        process.wait(30)
        process.stdout.close()
        raise AssertionError((directory.parent / f"{directory.name}.log").read_text())
    return Process(process, directory, line.split()[-1])


@contextmanager
def running(directory: Path, *options: str, listen: str = "127.0.0.1:0") -> Iterator[Process]:
    """A VMM process for a block; it must end well when told to, unless the test has killed it."""
    vmm = start(directory, *options, listen=listen)
    try:
        yield vmm
        vmm.process.terminate()
        assert vmm.process.wait(30) in (0, -9)
    finally:
        vmm.process.kill()
        vmm.process.wait(30)
        assert vmm.process.stdout is not None
        vmm.process.stdout.close()
