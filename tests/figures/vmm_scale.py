"""How fast a change reaches the hosts concerned when the VMM has many, and how much memory it takes.

    python tests/figures/vmm_scale.py [HOSTS [VMS_PER_HOST [CHANGES]]]

One VMM process; all hosts are watchers in this one. Ten hosts share ten networks, in which all their VMs
are; three more networks have one VM on each of 10, 100 and all hosts. A change is an address that a VM
learned in place of its last one. Its time runs from the report until the last host concerned has the line.
Prints one object in JSON.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from testbed.topology.naming import canonical_rdid  # noqa: E402
from testbed.vmm.files import STORE  # noqa: E402
from testbed.vmm.model import HostProviderAddress, NewAdapter, NewHost, NewNetwork, NewPool, NewSubnet, NewVm  # noqa: E402
from testbed.vmm.rules import hosts, networks, placement, policy, pools  # noqa: E402
from testbed.vmm.store.database import Store  # noqa: E402

SHARE = 10  # hosts that share networks, and networks that they share
FIRST_VSID = 0x10000
WIDE_VSID = 0x1000


def rdid(vsid: int) -> str:
    return canonical_rdid(f"00000000-0000-0000-0000-{vsid:012x}")


def fill(path: Path, host_count: int, vms_per_host: int) -> dict[str, str]:
    """A store with all hosts and VMs. The hosts' tokens."""
    store = Store(path)
    with store.change(bulk=True) as tx:
        pools.add_pa_pool(tx, NewPool("pa", "10.0.0.0/8"))
        wide = {WIDE_VSID + number: count for number, count in enumerate(spans(host_count))}
        for vsid in [*wide, *range(FIRST_VSID, FIRST_VSID + host_count)]:
            networks.add_network(tx, NewNetwork(f"n{vsid}", rdid(vsid)))
            networks.add_subnet(tx, NewSubnet(rdid(vsid), vsid, ("172.16.0.0/16",)))
        names = [f"h{number}" for number in range(host_count)]
        tokens = {name: hosts.register(tx, NewHost(name)).token for name in names}
        position = 1  # of PAs: the search for the lowest free one is not what is measured
        for number, name in enumerate(names):
            vsids = [FIRST_VSID + number // SHARE * SHARE + each for each in range(SHARE)]
            vsids += [vsid for vsid, count in wide.items() if number < count]
            for vsid in vsids:
                assign_pa(tx, name, vsid, position)
                position += 1
            for index in range(vms_per_host):
                vsid = vsids[index % SHARE]
                address = f"172.16.{number % SHARE + 1}.{index // SHARE + 1}"
                place(tx, f"v{number}-{index}", name, vsid, address)
            for vsid, count in wide.items():
                if number < count:
                    place(
                        tx, f"w{vsid}-{number}", name, vsid, f"172.16.{number // 200 + 1}.{number % 200 + 1}"
                    )
    store.close()
    return tokens


def spans(host_count: int) -> tuple[int, ...]:
    return tuple(sorted({min(each, host_count) for each in (10, 100, host_count)}))


def assign_pa(tx: Any, host: str, vsid: int, position: int) -> None:

    address = f"10.{position >> 16}.{position >> 8 & 255}.{position & 255}"
    policy.put_provider_address(tx, HostProviderAddress(host, address, 8, vsid))


def place(tx: Any, name: str, host: str, vsid: int, address: str) -> None:
    placement.place(tx, NewVm(name, host, (NewAdapter(vsid, (address,)),)))


class Watcher:
    """A host's stream: when it got the line of each revision."""

    def __init__(self, host: str, arrived: dict[int, dict[str, float]], woken: asyncio.Event) -> None:
        self.host = host
        self.ready = asyncio.Event()
        self._arrived = arrived
        self._woken = woken

    async def run(self, port: int, token: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64 * 1024 * 1024)
        writer.write(
            f"GET /v1/hosts/{self.host}/watch HTTP/1.1\r\nHost: vmm\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0], head
        rest = b""
        while True:
            size = int(await reader.readline(), 16)
            data = rest + (await reader.readexactly(size + 2))[:-2]
            *lines, rest = data.split(b"\n")
            for line in lines:
                if line.startswith(b'{"type":"reset"'):
                    self.ready.set()
                elif line.startswith(b'{"type":"changes"'):
                    revision = int(line.split(b'"revision":', 1)[1].split(b",", 1)[0])
                    self._arrived.setdefault(revision, {})[self.host] = time.perf_counter()
                    self._woken.set()


class Client:
    """Requests on one connection."""

    async def open(self, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port, limit=2**26)

    async def call(self, method: str, path: str, token: str, body: Any = None) -> Any:
        data = b"" if body is None else msgspec.json.encode(body)
        self._writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: vmm\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        answer = await self._reader.readexactly(length)
        assert b" 200 " in head.split(b"\r\n")[0], (head, answer)
        return json.loads(answer)


async def changes(
    client: Client, admin: str, token: str, vm: str, expected: int, count: int, seen: Any
) -> Any:
    """Times of ``count`` changes of a VM's address, in milliseconds."""
    arrived, woken = seen
    port = await client.call("GET", f"/v1/ports/{vm}:eth0", admin)
    pas = await client.call("GET", f"/v1/provider-addresses?host={port['host']}", admin)
    pa = next(each["provider_address"] for each in pas if each["virtual_subnet_id"] == port["vsid"])
    last, whole, answered = port["addresses"][0], [], []
    for number in range(count):
        new = f"172.16.200.{number % 250 + 1}"
        report = {
            "mac": port["mac"],
            "ca": new,
            "vsid": port["vsid"],
            "pa": pa,
            "how": "arp",
            "replaces": last,
        }
        begin = time.perf_counter()
        result = await client.call("POST", f"/v1/hosts/{port['host']}/learned", token, report)
        answered.append(1000 * (time.perf_counter() - begin))
        async with asyncio.timeout(30):
            while len(arrived.get(result["revision"], ())) < expected:
                woken.clear()
                await woken.wait()
        whole.append(1000 * (max(arrived[result["revision"]].values()) - begin))
        last = new
    assert all(len(each) == expected for each in arrived.values()), "a host that was not concerned was told"
    arrived.clear()
    ranked = sorted(whole)
    return {
        "hosts_concerned": expected,
        "changes": count,
        "answered_ms_median": round(statistics.median(answered), 2),
        "all_hosts_ms_median": round(statistics.median(whole), 2),
        "all_hosts_ms_p99": round(ranked[min(len(ranked) - 1, round(len(ranked) * 0.99))], 2),
    }


def memory(pid: int) -> dict[str, int]:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        f"{name}_mib": int(status[key].split()[0]) // 1024
        for name, key in (("rss", "VmRSS"), ("peak", "VmHWM"))
    }


async def measure(pid: int, port: int, admin: str, tokens: dict[str, str], count: int) -> dict[str, Any]:
    seen: tuple[dict[int, dict[str, float]], asyncio.Event] = ({}, asyncio.Event())
    watchers = {name: Watcher(name, *seen) for name in tokens}
    before = memory(pid)
    begin = time.perf_counter()
    tasks = [asyncio.create_task(each.run(port, tokens[name])) for name, each in watchers.items()]
    async with asyncio.timeout(300):
        for each in watchers.values():
            await each.ready.wait()
    connected = time.perf_counter() - begin
    client = Client()
    await client.open(port)
    cases = [("v0-0", SHARE)]
    cases += [(f"w{WIDE_VSID + number}-0", span) for number, span in enumerate(spans(len(tokens)))]
    results = [await changes(client, admin, tokens["h0"], vm, span, count, seen) for vm, span in cases]
    finished = [task.exception() for task in tasks if task.done()]
    assert not finished, finished
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "all_snapshots_s": round(connected, 2),
        "before": before,
        "after": memory(pid),
        "changes": results,
    }


def main(host_count: int = 1000, vms_per_host: int = 100, count: int = 200) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * host_count)), hard))
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        begin = time.perf_counter()
        tokens = fill(directory / STORE, host_count, vms_per_host)
        filled = time.perf_counter() - begin
        command = [sys.executable, "-m", "testbed.vmm", "--directory", folder, "--listen", "127.0.0.1:0"]
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition(":")[2])
            started = time.perf_counter() - begin
            admin = (directory / "admin-token").read_text().strip()
            found = asyncio.run(measure(process.pid, port, admin, tokens, count))
        finally:
            process.terminate()
            process.wait(30)
        result = {
            "hosts": host_count,
            "vms": host_count * vms_per_host,
            "fill_s": round(filled, 1),
            "start_s": round(started, 2),
            "store_mib": (directory / STORE).stat().st_size >> 20,
            **found,
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
