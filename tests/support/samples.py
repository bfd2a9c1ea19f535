"""Samples of a made-up lab, whose counters come from the product's own code as far as it makes them."""

from __future__ import annotations

from typing import Any

from support.cli import TOPOLOGIES
from support.switch import MemorySwitch
from testbed.host.counters import VsidTotals, collect
from testbed.lab.sample import Member, Reading, Sample
from testbed.lab.store import LabRecord
from testbed.processes import ProcessId
from testbed.switch.drops import Drop, count
from testbed.telemetry import Counter
from testbed.topology import plan_from_file

RECORD = LabRecord("0123456789ab", "team", "namespaces", "team.yaml", ProcessId(1, 1), 0.0, ready=True)
PLAN = plan_from_file(TOPOLOGIES / "team.yaml", {})


def counter(kind: str, name: str, host: str = "host1", /, **fields: Any) -> Counter:
    """A record of which the time does not matter."""
    return Counter(0.0, host, kind, name, fields)


def worker(seconds: float, host: str = "host1") -> Counter:
    """What a host always tells."""
    return counter("worker", "worker-0", host, cpu_seconds=seconds)


def reading(time: float, *counters: Counter) -> Reading:
    """At a time of the monotonic clock."""
    return Reading(time, counters)


def sample(time: float, readings: dict[str, Reading], **more: Any) -> Sample:
    """Of the lab of team.yaml, all of whose VMs run and whose cables are up."""
    whole: dict[str, Any] = {
        "vms": {vm.name: True for vm in PLAN.vms},
        "carriers": {f"{each.host}:{each.nic}": True for each in PLAN.fabric.cables},
        **more,
    }
    return Sample("team", time, "running", RECORD, PLAN, readings, **whole)


def everything() -> Sample:
    """A lab with every kind of counter and every field that the code has."""
    with MemorySwitch() as switch:
        drops = {**switch.datapath.drops}
        count(drops, "wnv", "blue1:eth0", 5001, Drop.NOT_IP)
        count(drops, "nic", "nic1", 0, Drop.NOT_FOR_US)
        found = collect(
            "host1",
            switch.state.ports.values(),
            switch.state.uplinks.values(),
            drops,
            VsidTotals(),
            {"acl": {"hits": 3}},
            {"flows_nic1": 2, "flowlets_moved": 4, "flows_rebalanced": 1},
        )
    kinds = ("none", "ipv4", "tcp_ipv4", "ipv6", "tcp_ipv6")
    classified = {**{f"rx_hash_{kind}": 1 for kind in kinds}, "rx_vmq_unmatched": 1}
    queues = {f"rx_queue_{n}_{unit}": n for n in (0, 1) for unit in ("packets", "bytes")}
    cable = {
        f"{way}_{unit}": 5
        for way in ("from_host", "to_host")
        for unit in ("packets", "bytes", "drop_packets")
    }
    more = [
        counter("nic", "nic9", **classified, **queues),
        counter("port", "red1:eth0", vsid=6001, to_vm_queue_0_packets=7, to_vm_queue_1_packets=8),
    ]
    fabric = [
        counter("cable", "host1:nic1", **cable),
        counter("cable-fault", "host1:nic1", way="to-host", fault="lost", packets=3),
    ]
    members = (Member("host1", "nic1", "Active", "", 2, 0.001),)
    readings = {"host1": reading(1.0, *found, *more), "fabric": reading(1.0, *fabric)}
    return sample(1.0, readings, down={"host2": "it does not run"}, members=members)
