"""The management network of a lab: the VMM, and a link to each host."""

from __future__ import annotations

import ipaddress

from testbed.topology.naming import InterfaceNames
from testbed.topology.plan import ManagementLink, VmmPlan
from testbed.topology.schema import Topology

VMM = "vmm"  # the node's name
INTERFACE = "mgmt0"  # a link's name inside the node
PORT = 8500
# In namespaces of the lab's own, so it can meet no other network; none of the hosts' other addresses
# are the kernel's (the PA space is the switch's), so it can't overlap them either.
NETWORK = ipaddress.IPv4Network("172.31.0.0/16")
_PREFIX = "mgmt_"  # no switch's or port's name has an underscore


def build_management(topology: Topology, previous: VmmPlan | None) -> VmmPlan:
    """The VMM and its links; what a link of ``previous`` was called is kept."""
    nodes = [VMM, *(host.name for host in topology.hosts)]
    kept = {link.node: link for link in previous.links} if previous else {}
    kept = {node: link for node, link in kept.items() if node in nodes}
    used = {link.address for link in kept.values()}
    free = (str(address) for address in NETWORK.hosts() if str(address) not in used)
    names = InterfaceNames([*(link.interface for link in kept.values())])
    bridge = names.take(f"{_PREFIX}br")
    links = []
    for node in nodes:
        if node in kept:
            links.append(kept[node])
            continue
        links.append(ManagementLink(node, next(free), names.take(_PREFIX + node)))
    return VmmPlan(
        bridge, NETWORK.prefixlen, links[0].address, PORT, str(topology.fabric.pa_pool), tuple(links)
    )
