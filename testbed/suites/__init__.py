"""The suites that ship: pytest modules that run against any topology and both engines.

A suite asks for the fixture ``lab`` (and others of :mod:`testbed.pytest_plugin`), chooses from it who plays
which part, and skips with the reason where nobody can. It asserts hop by hop, waits with deadlines only, and
leaves the lab as it was, or says ``@pytest.mark.topology(exclusive=True)``.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class Suite(Struct, frozen=True):
    """A module here. needs: what it skips without; shows: what holds when it passes."""

    name: str
    shows: str
    needs: str

    @property
    def file(self) -> Path:
        """The module, for pytest."""
        return Path(__file__).parent / f"{self.name.replace('-', '_')}.py"


SUITES = (
    Suite(
        "connectivity",
        "VMs of a network reach each other, on one host, across hosts and across subnets, IPv4 and IPv6",
        "two VMs of one network",
    ),
    Suite(
        "dad-nud",
        "who asks everybody for another VM's address is answered on its own host; who asks that VM itself "
        "reaches it",
        "two VMs of one subnet on different hosts",
    ),
    Suite(
        "dhcp",
        "a VM leases an address from a server on another host, and every host that needs to know it does",
        "a VMM and IP learning, two hosts, dnsmasq and dhclient",
    ),
    Suite(
        "extensions",
        "extensions see packets in provider addresses with 2012 R2, and never with 2012",
        "two VMs of one subnet on different hosts",
    ),
    Suite(
        "ip-learning",
        "an address that a VM takes, changes or hands over is known to every host that needs to know it",
        "a VMM and IP learning, two VMs of one subnet on different hosts",
    ),
    Suite(
        "isolation",
        "nothing of a network reaches a VM of another, and equal addresses lead to their own network's VM",
        "two networks",
    ),
    Suite(
        "mtu",
        "the longest packet fits the PA network; a longer one ends in the switch, and its sender is told",
        "two VMs of one subnet on different hosts",
    ),
    Suite(
        "replication",
        "a broadcast reaches each VM of its subnet once: by a copy for each host with some, or by a PA group",
        "two VMs of one subnet on different hosts",
    ),
    Suite(
        "cluster-failover",
        "an address goes to a VM on another host, all hosts follow; of two that take it the first keeps it",
        "a VMM and IP learning, three VMs of one subnet on two hosts",
    ),
    Suite(
        "migration",
        "a VM moves to another host: packets find it there, connections go on, it keeps what it has",
        "a VMM, two VMs of one subnet on different hosts",
    ),
    Suite(
        "offloads",
        "whatever NICs offload, the frames on the cables and the bytes that arrive are the same",
        "two VMs of one subnet on different hosts",
    ),
    Suite(
        "rss-vmq",
        "a flow comes in on the queue of its hash, a VM's packets on the VM's queue, of NICs and of adapters",
        "two VMs of one subnet on different hosts, NICs that can do RSS and VMQ through NVGRE",
    ),
    Suite(
        "teaming",
        "flows use all members of a team, go on when one fails, and use it again when it is back",
        "two VMs of one subnet on different hosts, one with two NICs that are active",
    ),
    Suite(
        "throughput",
        "a TCP stream in NVGRE is not far below the kernel's own VXLAN, measured beside it",
        "two VMs of one subnet on different hosts, iperf3's library",
    ),
)


def named(name: str) -> Suite | None:
    """The suite of a name."""
    return next((suite for suite in SUITES if suite.name == name), None)
