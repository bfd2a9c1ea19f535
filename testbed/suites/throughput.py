"""A TCP stream in NVGRE beside the kernel's own VXLAN, on the same wire, in turns: not far below it.

The floor is low on purpose: it is to find a switch that waits or loses packets, on a busy machine as well.
How fast it is, `testbed bench` says.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import pytest

from testbed.errors import MachineLacks
from testbed.lab import bench
from testbed.perf.plan import BenchPlan, Cell
from testbed.results.model import new_id
from testbed.testing import nics
from testbed.testing.pairs import are_apart, kernels_know_a_way

if TYPE_CHECKING:
    from testbed.testing.lab import LiveLab, Pair

SECONDS, PAIRS = 1, 3
FLOOR = 0.08  # of VXLAN's; 0.3 to 1.1 on a quiet machine, by what the NICs offload
PART = 0.9  # of the bytes that iperf3 counts, which each hop has to have


def pair(lab: LiveLab) -> Pair:
    """Two VMs with addresses by the topology, which is where a measurement looks for them."""
    found = lab.pairs(
        lambda one, other: (
            are_apart(one, other)
            and planned(one.planned.addresses) == one.address()
            and planned(other.planned.addresses) == other.address()
            and kernels_know_a_way(one, other, 4)
        ),
        "two VMs of one virtual subnet on different hosts with addresses by the topology and routes,",
    )
    return found[0]


def planned(addresses: tuple[str, ...]) -> str:
    """The first of a plan's addresses, if it is of IPv4."""
    return str(ipaddress.ip_interface(addresses[0]).ip) if addresses and ":" not in addresses[0] else ""


def counts(lab: LiveLab, one: str, other: str, ports: tuple[str, str]) -> dict[str, int]:
    """Bytes at each hop: out of the VM, out of its host's NICs, into the other's, into the other VM."""
    fields = {
        each["object"]: each["fields"] for name in (one, other) for each in lab.host(name).counters("port")
    }
    (sent,), (received,) = nics.counted(lab, one, "tx_bytes"), nics.counted(lab, other, "rx_bytes")
    return {
        "out of the VM": fields[ports[0]]["from_vm_bytes"],
        "out of its host": sent,
        "into the other host": received,
        "into the other VM": fields[ports[1]]["to_vm_bytes"],
    }


def test_beside_vxlan(lab: LiveLab) -> None:
    """The median of pairs, each measured one right after the other; the stream has passed each hop."""
    one, other = pair(lab)
    where = one.host, other.host, (one.port, other.port)
    before = counts(lab, *where)
    result = measured(lab, one.node, other.node)
    now = counts(lab, *where)
    told = [run["gigabits_per_second"] for run in result["runs"] if run["path"] == "wnv"]
    size = sum(told) * SECONDS * 1e9 / 8
    for hop, count in now.items():
        assert count - before[hop] >= PART * size, f"{hop}: {count - before[hop]} bytes of {size:.0f}"
    ratio = result["ratio"]["vxlan"]
    assert ratio >= FLOOR, f"{ratio} of VXLAN's throughput, at least {FLOOR} expected; {result['runs']}"


def measured(lab: LiveLab, one: str, other: str) -> dict[str, Any]:
    """As `testbed bench --baseline vxlan` does. Skips the test for what the machine lacks."""
    plan = BenchPlan(
        baselines=("vxlan",),
        from_vm=one,
        to_vm=other,
        seconds=SECONDS,
        warm_up=0,
        repeat=PAIRS,
        latency=False,
    )
    try:
        return bench.run_cell(lab.lab, plan, Cell(), lambda *_: None, new_id()).told()
    except MachineLacks as error:
        pytest.skip(str(error))
