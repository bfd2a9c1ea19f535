"""What ten thousand lookup records cost a host, beside ten: memory, changes, throughput, new flows.

    python tests/figures/policy_scale.py

Two labs of two hosts at the same time, which differ in the number of records only, measured in turns.
Needs root.
"""

from __future__ import annotations

import contextlib
import ipaddress
import resource
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from statistics_of import shown

from testbed.engines.select import by_name
from testbed.lab import build
from testbed.lab.bench import path_between
from testbed.lab.inspect import processes
from testbed.lab.lab import Lab
from testbed.namespaces import in_netns
from testbed.perf.bench import Terms, alternate
from testbed.perf.iperf import Load
from testbed.topology import plan_from_file

TOPOLOGY = """
name: NAME
networks: [{name: blue, subnets: [{vsid: 5001, prefixes: [10.0.0.0/15]}]}]
hosts:
  - {name: host1, nics: [{name: nic1}]}
  - {name: host2, nics: [{name: nic1}]}
vms:
  - {name: blue1, host: host1, vnics: [{vsid: 5001, addresses: [10.0.0.5]}]}
  - {name: blue2, host: host2, vnics: [{vsid: 5001, addresses: [10.0.0.6]}]}
fabric: {switches: [tor1]}
links:
  - {endpoints: ["host1:nic1", tor1], wire: aggregated}
  - {endpoints: ["host2:nic1", tor1], wire: aggregated}
"""
MANY, FEW = 10_000, 10
FIRST = ipaddress.ip_address("10.1.0.1")  # of the addresses that blue2 has in the policy alone
PAIRS = 40
FLOWS_PER_SECOND, SECONDS = 2000, 5
SOURCE_PORTS = 2003  # prime: each pair of source port and address comes once
PORT = 7000
_SO_RCVBUFFORCE = 33


@contextlib.contextmanager
def lab(folder: Path, name: str, records: int) -> Iterator[Lab]:
    """A running lab whose hosts have this many records."""
    file = folder / f"{name}.yaml"
    file.write_text(TOPOLOGY.replace("NAME", name))
    made = build.up(plan_from_file(file, {}), by_name("namespaces"), None, str(file), lambda _: None)
    try:
        add_records(made, records)
        yield made
    finally:
        made.close()
        build.down(name)


def add_records(made: Lab, records: int) -> None:
    """Records of more addresses of blue2, at both hosts, until there are ``records``."""
    base = next(
        each
        for each in made.ask("host1", "policy", object="lookup-records", verb="list", fields={})["objects"]
        if each["vm_name"] == "blue2"
    )
    for host in ("host1", "host2"):
        there = made.ask(host, "status")["lookup_records"]
        for number in range(records - there):
            add(made, host, base, number)


def add(made: Lab, host: str, base: dict[str, object], number: int) -> None:
    """One more record."""
    fields = {
        key: base[key] for key in ("virtual_subnet_id", "mac_address", "provider_address", "vm_name")
    } | {"customer_address": str(FIRST + number)}
    made.ask(host, "policy", object="lookup-records", verb="add", fields=fields)


def memory(made: Lab) -> float:
    """PSS of host1's processes in MiB."""
    return float(sum(process["pss_bytes"] for process in processes(made, "host1"))) / 2**20


def changes(made: Lab) -> list[float]:
    """Milliseconds from a request to its effect: the record's PA is changed and changed back."""
    took = []
    listed = made.ask("host1", "policy", object="lookup-records", verb="list", fields={})["objects"]
    record = next(each for each in listed if each["customer_address"] == str(FIRST))
    key = {name: record[name] for name in ("customer_address", "virtual_subnet_id", "mac_address")}
    for number in range(200):
        address = record["provider_address"] if number % 2 else "192.168.0.99"
        began = time.perf_counter()
        fields = {**key, "provider_address": address}
        made.ask("host1", "policy", object="lookup-records", verb="set", fields=fields)
        took.append((time.perf_counter() - began) * 1000)
    return took


def new_flows(made: Lab, addresses: int) -> float:
    """Lost per cent of UDP packets to ``addresses`` records by turns, each the first of its flow."""
    for vm, route in (("blue1", "10.1.0.0/16 via 10.0.0.1"), ("blue2", "local 10.1.0.0/16 dev lo")):
        with in_netns(made.netns(vm)):
            subprocess.run(["ip", "route", "replace", *route.split()], check=True)
    packets = FLOWS_PER_SECOND * SECONDS
    with contextlib.ExitStack() as stack:
        with in_netns(made.netns("blue2")):
            receiver = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
        receiver.bind(("0.0.0.0", PORT))
        receiver.setblocking(False)
        with in_netns(made.netns("blue1")):
            senders = [
                stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                for _ in range(SOURCE_PORTS)
            ]
        received = sent = 0
        began = time.perf_counter()
        while sent < packets:
            due = min(packets, int((time.perf_counter() - began) * FLOWS_PER_SECOND))
            for number in range(sent, due):
                target = str(FIRST + number % addresses), PORT
                senders[number % SOURCE_PORTS].sendto(b"flow", target)
            sent = due
            received += drain(receiver)
        deadline = time.perf_counter() + 2
        while received < sent and time.perf_counter() < deadline:
            received += drain(receiver)
    return 100 * (sent - received) / sent


def drain(receiver: socket.socket) -> int:
    """How many packets are there."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while receiver.recv(64):
            count += 1
    return count


def main() -> None:
    """Measure and print."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with lab(path, "many", MANY) as many, lab(path, "few", FEW) as few:
            print(f"PSS of a host: {memory(few):.1f} MiB with {FEW} records, {memory(many):.1f} with {MANY}")
            for name, made in (("few", few), ("many", many)):
                took = sorted(changes(made))
                middle, late = statistics.median(took), took[int(len(took) * 0.99)]
                times = f"median {middle:.2f} ms, 99 % {late:.2f} ms, max {took[-1]:.2f} ms"
                print(f"change, {name} records: {times}")
            losses: dict[str, list[float]] = {name: [] for name in ("few", "many")}
            for _ in range(5):
                losses["few"].append(new_flows(few, FEW - 4))
                losses["many"].append(new_flows(many, MANY - 4))
            for name, values in losses.items():
                lost = f"{statistics.median(values):.3f} %"
                print(f"loss at {FLOWS_PER_SECOND} new flows/s, {name} records: {lost}")
            paths = [
                path_between(made, made.plan.vm("blue1"), made.plan.vm("blue2"), name, "aggregated")
                for name, made in (("many", many), ("few", few))
            ]
            speeds = alternate(paths, Load(seconds=1), Terms(repeat=PAIRS, latency=False))
            by_path = [{run.path: run.values()["throughput"] for run in pair} for pair in speeds]
            print("throughput, many to few:", shown([each["many"] / each["few"] for each in by_path]))


if __name__ == "__main__":
    main()
