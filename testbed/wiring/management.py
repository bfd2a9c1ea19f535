"""The management network: a bridge in the fabric namespace, a veth pair to the VMM and to each host."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pyroute2 import IPRoute

from testbed.namespaces import in_netns
from testbed.topology.management import INTERFACE
from testbed.topology.plan import VmmPlan
from testbed.wiring import sysctl
from testbed.wiring.fabric import index_of


def add(fabric: int, nodes: Mapping[str, int], plan: VmmPlan, *, bridge: bool = True) -> None:
    """Link ``nodes`` (name -> network namespace) to the network; ``bridge``: make that first."""
    with in_netns(fabric), IPRoute() as ip:
        if bridge:
            sysctl.write(sysctl.SILENT)
            ip.link("add", ifname=plan.bridge, kind="bridge", br_stp_state=0)
            ip.link("set", index=index_of(ip, plan.bridge), state="up")
        master = index_of(ip, plan.bridge)
        for link in plan.links:
            if link.node not in nodes:
                continue
            peer = {"ifname": INTERFACE, "net_ns_fd": nodes[link.node]}
            ip.link("add", ifname=link.interface, kind="veth", peer=peer)
            ip.link("set", index=index_of(ip, link.interface), master=master, state="up")
    for link in plan.links:
        if link.node in nodes:
            _address(nodes[link.node], link.address, plan.prefix_length)


def remove(fabric: int, nodes: Collection[str], plan: VmmPlan) -> None:
    """Take the links of some nodes away; what is gone already (with its node) is no error."""
    names = [link.interface for link in plan.links if link.node in nodes]
    with in_netns(fabric), IPRoute() as ip:
        for name in names:
            for index in ip.link_lookup(ifname=name):
                ip.link("del", index=index)


def _address(netns: int, address: str, prefix_length: int) -> None:
    """Only IPv4 is spoken here, and nothing is forwarded."""
    with in_netns(netns):
        sysctl.write(sysctl.SILENT)
        sysctl.write(sysctl.NO_ROUTER)
        with IPRoute() as ip:
            index = index_of(ip, INTERFACE)
            ip.addr("add", index=index, address=address, prefixlen=prefix_length)
            ip.link("set", index=index, state="up")
            ip.link("set", index=1, state="up")
