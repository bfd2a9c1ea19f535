"""Figures of learning, failover, migration and DHCP, on whole labs.

    python tests/figures/learning.py [NAME...]

NAME is address-change, failover, migration or dhcp; without one, all. Prints a JSON object for each.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from pyroute2 import IPRoute

from testbed.engines.select import by_name
from testbed.lab import build, first_commands, migrate
from testbed.lab.lab import Lab
from testbed.namespaces import in_netns
from testbed.packets import arp
from testbed.perf.outage import Outage, probing
from testbed.topology import plan_from_file

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
CHANGES, MOVES = 100, 15
SECONDS = 20.0


@contextlib.contextmanager
def lab(name: str, **variables: str) -> Iterator[Lab]:
    """A lab on namespaces, in a state folder of its own."""
    with tempfile.TemporaryDirectory() as state:
        os.environ["TESTBED_STATE_DIR"] = state
        file = TOPOLOGIES / f"{name}.yaml"
        made = build.up(
            plan_from_file(file, variables), by_name("namespaces"), None, str(file), lambda _: None
        )
        try:
            yield made
        finally:
            made.close()
            build.down(name)


def until(condition: Callable[[], Any]) -> Any:
    """The first true value."""
    end = time.monotonic() + SECONDS
    while not (value := condition()):
        if time.monotonic() > end:
            raise SystemExit("it does not come to that")
        time.sleep(0.002)
    return value


def address(netns: int, verb: str, text: str) -> None:
    """Add or remove an address of eth0, as the owner of a VM does."""
    with in_netns(netns), IPRoute() as ip:
        ip.addr(verb, index=ip.link_lookup(ifname="eth0")[0], address=text, prefixlen=24)


def spread(values: list[float]) -> dict[str, float]:
    """Milliseconds."""
    ranked = sorted(values)
    last = ranked[math.ceil(len(ranked) * 0.99) - 1]
    return {"median": round(statistics.median(ranked), 2), "p99": round(last, 2), "max": round(ranked[-1], 2)}


# ---- a VM changes its address -----------------------------------------------------------------


def address_change() -> dict[str, Any]:
    """From the announcement until every host concerned has the new record and not the old one."""
    with lab("4host") as made:
        vm = made.netns("blue1")
        with in_netns(vm):
            ears = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
            ears.bind(("eth0", 0x0003))
            inbox = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        inbox.bind(("0.0.0.0", 7008))
        with in_netns(made.netns("blue2")):
            outbox = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        seen = {host.name: 0 for host in made.plan.hosts}
        latencies, delays, old = [], [], "10.0.0.5"
        for number in range(CHANGES):
            new = f"10.0.0.{50 + number}"
            for host in seen:
                seen[host] = made.ask(host, "events")["next"]
            address(vm, "del", old)
            address(vm, "add", new)
            announced = _announced(ears, new)
            outbox.sendto(new.encode(), (new, 7008))
            done = [_followed(made, host, after, old, new) for host, after in seen.items()]
            latencies.append((max(done) - announced) * 1000)
            inbox.settimeout(3.0)
            with contextlib.suppress(TimeoutError):
                inbox.recv(64)
                delays.append((time.time() - announced) * 1000)
            old = new
        return {
            "changes": CHANGES,
            "announcement to all hosts, ms": spread(latencies),
            "first packet sent at the announcement": {"arrived": len(delays), "delay, ms": spread(delays)},
        }


def _announced(ears: socket.socket, wanted: str) -> float:
    ears.settimeout(SECONDS)
    while True:
        frame = ears.recv(2048)
        if frame[12:14] == b"\x08\x06" and arp.parse(frame).sender_ip == socket.inet_aton(wanted):
            return time.time()


def _followed(made: Lab, host: str, after: int, old: str, new: str) -> float:
    """When a host had the new record and was without the old one."""

    def found() -> list[float] | None:
        times = {}
        for event in made.ask(host, "events", after=after)["events"]:
            fields = event["fields"]
            if event["kind"] == "policy-change":
                if fields.get("new") and fields["new"]["customer_address"] == new:
                    times["new"] = event["time"]
                if fields.get("old") and fields["old"]["customer_address"] == old:
                    times["old"] = event["time"]
        return [*times.values()] if len(times) == 2 else None

    return float(max(until(found)))


# ---- a virtual address moves; a VM moves --------------------------------------------------------


def failover() -> dict[str, Any]:
    """A virtual IP goes from one VM to another; the client's outage from the move on."""
    virtual = "10.0.0.200"
    with lab("cluster") as made:
        nodes = ["node1", "node2"]
        netns = {name: made.netns(name) for name in (*nodes, "client")}
        address(netns["node1"], "add", virtual)
        outages = []
        for _ in range(MOVES):
            _is_at(made, virtual, nodes[0])
            with probing(netns["client"], [netns[name] for name in nodes], virtual) as meter:
                address(netns[nodes[0]], "del", virtual)
                address(netns[nodes[1]], "add", virtual)
                _is_at(made, virtual, nodes[1])
                time.sleep(0.3)  # what comes after belongs to the outage, too
                outages.append(meter.stop())
            nodes.reverse()
        return _of(outages)


def _is_at(made: Lab, ca: str, vm: str) -> None:
    mac = made.plan.vm(vm).vnics[0].mac
    until(
        lambda: any(
            each["customer_address"] == ca and each["mac_address"] == mac
            for each in made.vmm().get("/lookup-records")
        )
    )


def migration() -> dict[str, Any]:
    """A VM migrates under a running iperf3 stream; the outage of probes from another VM."""
    with lab("4host") as made:
        words = [sys.executable, "-m", "testbed", "exec", "4host"]
        server = subprocess.Popen([*words, "blue1", "--", "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL)
        time.sleep(1.0)
        stream = [*words, "blue3", "--", "iperf3", "-c", "10.0.0.5", "-t", "600", "-b", "100M"]
        client = subprocess.Popen(stream, stdout=subprocess.DEVNULL)
        time.sleep(1.0)
        outages, blackouts = [], []
        for number in range(MOVES):
            with probing(made.netns("blue2"), [made.netns("blue1")], "10.0.0.5") as meter:
                done = migrate.migrate(made, "blue1", ("host4", "host1")[number % 2])
                time.sleep(0.3)
                outages.append(meter.stop())
            blackouts.append(done.blackout)
        survived = client.poll() is None and server.poll() is None
        client.terminate()
        server.terminate()
        client.wait(SECONDS)
        server.wait(SECONDS)
        return {"stream survived": survived, **_of(outages), "printed blackout, ms": spread(blackouts)}


def _of(outages: list[Outage]) -> dict[str, Any]:
    return {
        "times": len(outages),
        "outage, ms": spread([each.longest for each in outages]),
        "probes lost": spread([each.lost for each in outages]),
        "prober held up, ms": spread([each.held_up for each in outages]),
    }


# ---- DHCP ---------------------------------------------------------------------------------------


def dhcp() -> dict[str, Any]:
    """Eight clients start together; until the last one has its lease."""
    found = {}
    for multicast in ("false", "true"):
        times: dict[str, list[float]] = {"IPv4": [], "IPv4, then IPv6": []}
        for name, commands in (("IPv4", 1), ("IPv4, then IPv6", 2)):
            for _ in range(5):
                times[name].append(_leases(multicast, commands))
        label = "multicast" if multicast == "true" else "unicast replication"
        found[label] = {name: spread(values) for name, values in times.items()}
    return {"all leases, ms": found}


def _leases(multicast: str, commands: int) -> float:
    file = TOPOLOGIES / "dhcp.yaml"
    plan = plan_from_file(file, {"multicast": multicast})
    clients = [vm for vm in plan.vms if vm.name.startswith("blue") and "server" not in vm.name]
    idle = tuple(vm if "server" in vm.name else msgspec.structs.replace(vm, exec=()) for vm in plan.vms)
    with tempfile.TemporaryDirectory() as state:
        os.environ["TESTBED_STATE_DIR"] = state
        bare = msgspec.structs.replace(plan, vms=idle)
        made = build.up(bare, by_name("namespaces"), None, str(file), lambda _: None)
        try:
            began = time.monotonic()
            asked = [msgspec.structs.replace(vm, exec=vm.exec[:commands]) for vm in clients]
            first_commands.run(made, asked)
            return (time.monotonic() - began) * 1000
        finally:
            made.close()
            build.down("dhcp")


FIGURES = {
    "address-change": address_change,
    "failover": failover,
    "migration": migration,
    "dhcp": dhcp,
}

if __name__ == "__main__":
    for wanted in sys.argv[1:] or FIGURES:
        print(json.dumps({wanted: FIGURES[wanted]()}, indent=2), flush=True)
