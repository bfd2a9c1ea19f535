"""Switches and cables: bridges and veth pairs in the fabric namespace, NIC hardware in the hosts'."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pyroute2 import IPRoute

from testbed.namespaces import in_netns
from testbed.nic.bpf import loader
from testbed.nic.faults import Way
from testbed.nic.features import set_features
from testbed.nic.offloads import Offloads
from testbed.topology.plan import CablePlan, HostPlan, NicPlan, SwitchPlan, TrunkPlan
from testbed.topology.schema import Wire
from testbed.wiring import sysctl, tap
from testbed.wiring.hardware import (
    attach_classifier,
    attach_echo,
    attach_faults,
    attach_hardware,
    attach_queue,
    fabric_features,
    host_features,
    set_rate,
)

# Multicast snooping, in 1/100 s. 10 s between queries: a report that got lost is missed that long. 0.1 s for
# answers, 2 * 0.1 s until a group without members is forgotten; the rest follows by RFC 3376 section 8 and
# RFC 3810 section 9 with robustness 2.
_SNOOPING = {
    "br_mcast_snooping": 1,
    "br_mcast_igmp_version": 3,
    "br_mcast_mld_version": 2,
    "br_mcast_query_use_ifaddr": 1,
    "br_mcast_query_intvl": 1000,
    "br_mcast_query_response_intvl": 10,
    "br_mcast_startup_query_intvl": 250,
    "br_mcast_last_member_intvl": 10,
    "br_mcast_membership_intvl": 2010,
    "br_mcast_querier_intvl": 2005,
}
_FIRST_INDEX = 100_000  # of cables' ends in the fabric
_IFF_UP = 0x1  # linux/if.h
_WITHOUT_DAD = 0x02  # IFA_F_NODAD
_ROUTER_PORT = 2  # a multicast router is behind the port, for good (MDB_RTR_TYPE_PERM)

Netns = Mapping[str, int]  # host name -> descriptor of its network namespace


class FaultyCable(NamedTuple):
    """descriptors: of the programs' memory and of two TAP devices; indexes of the port and of those."""

    descriptors: list[int]
    port: int
    wires: list[int]


class Wiring:
    """Everything that is done in one fabric namespace. ``hosts`` maps host names to namespaces."""

    def __init__(self, fabric: int, hosts: Netns) -> None:
        self._fabric = fabric
        self._hosts = hosts

    def add(
        self,
        switches: Sequence[SwitchPlan],
        cables: Sequence[CablePlan],
        trunks: Sequence[TrunkPlan],
        hosts: Mapping[str, HostPlan],
        pa_mtu: int,
    ) -> None:
        """Make switches, then the links. ``hosts``: the plans of the hosts at the cables' ends."""
        with in_netns(self._fabric):
            sysctl.write(sysctl.SILENT)
            with IPRoute() as ip:
                for switch in switches:
                    _add_switch(ip, switch.interface)
                for host in {cable.host for cable in cables}:
                    with in_netns(self._hosts[host]):
                        sysctl.write(sysctl.SILENT)
                for trunk in trunks:
                    _add_trunk(ip, trunk, pa_mtu)
                for cable in cables:
                    self._add_cable(ip, cable, hosts[cable.host])
        self._add_hardware(cables)

    def remove(
        self, switches: Sequence[SwitchPlan], cables: Sequence[CablePlan], trunks: Sequence[TrunkPlan]
    ) -> None:
        """Remove links, then switches; what is gone already (with its host) is no error."""
        names = [cable.interface for cable in cables]
        names += [trunk.ends[0].interface for trunk in trunks]
        names += [switch.interface for switch in switches]
        with in_netns(self._fabric), IPRoute() as ip:
            for name in names:
                for index in ip.link_lookup(ifname=name):
                    ip.link("del", index=index)

    def set_wire(self, cable: CablePlan, wire: Wire, offloads: Offloads) -> None:
        """Switch a running cable to ``wire``; offloads: what its NIC has enabled now."""
        with in_netns(self._fabric):
            set_features(cable.interface, fabric_features(wire, offloads))
        with in_netns(self._hosts[cable.host]):
            set_features(cable.nic, host_features(wire))

    def add_faults(self, cable: CablePlan) -> FaultyCable:
        """Make a cable one that can be faulty; its descriptors are the caller's."""
        with in_netns(self._fabric), IPRoute() as ip, contextlib.ExitStack() as on_error:
            port, wires, descriptors = index_of(ip, cable.interface), [], []
            for _ in range(2):
                descriptor, name = tap.open_wire()
                on_error.callback(os.close, descriptor)
                descriptors.append(descriptor)
                wires.append(index_of(ip, name))
                ip.link("set", index=wires[-1], state="up", mtu=_mtu(ip, port))
            memory = attach_faults(ip, port, wires)
            on_error.pop_all()
        return FaultyCable([memory, *descriptors], port, wires)

    def set_rate(self, cable: CablePlan, way: Way, bits_per_second: int) -> None:
        """Shape one direction of a cable at the end that sends; 0: not any more."""
        netns, name = self._fabric, cable.interface
        if way == "from-host":
            netns, name = self._hosts[cable.host], cable.nic
        with in_netns(netns), IPRoute() as ip:
            set_rate(ip, index_of(ip, name), bits_per_second)

    def is_up(self, cable: CablePlan) -> bool:
        """Whether the switch's port is up."""
        with in_netns(self._fabric), IPRoute() as ip:
            (found,) = ip.get_links(index_of(ip, cable.interface))
            return bool(found["flags"] & _IFF_UP)

    def set_up(self, cable: CablePlan, *, up: bool) -> None:
        """Give the switch's port its carrier, or take it from both ends."""
        with in_netns(self._fabric), IPRoute() as ip:
            ip.link("set", index=index_of(ip, cable.interface), state="up" if up else "down")

    def set_receive(self, cable: CablePlan, offloads: Offloads) -> None:
        """Fit the switch's end of a running cable to what its NIC may take as one."""
        with in_netns(self._fabric):
            set_features(cable.interface, fabric_features(cable.wire, offloads))

    def add_classifier(self, cable: CablePlan) -> int:
        """Give the NIC of a cable its receive side; the descriptor of its registers is the caller's."""
        with in_netns(self._fabric), IPRoute() as ip:
            return attach_classifier(ip, index_of(ip, cable.interface))

    def _add_cable(self, ip: Any, cable: CablePlan, host: HostPlan) -> None:
        nic = nic_of(cable, {cable.host: host})
        ip.link(
            "add",
            ifname=cable.interface,
            index=_free_index(ip),
            kind="veth",
            mtu=nic.mtu,
            num_tx_queues=2 * nic.queues,  # the upper half is for what may not be coalesced
            num_rx_queues=1,
            peer={
                "ifname": cable.nic,
                "net_ns_fd": self._hosts[cable.host],
                "address": nic.mac,
                "mtu": nic.mtu,
                "num_rx_queues": nic.queues,
                "num_tx_queues": 1,
            },
        )
        set_features(cable.interface, fabric_features(cable.wire, nic.offloads))
        index = index_of(ip, cable.interface)
        ip.link("set", index=index, master=index_of(ip, cable.switch_interface), state="up")
        if len(host.nics) > 1:  # a team, which looks after its cables
            attach_echo(ip, index)

    def _add_hardware(self, cables: Sequence[CablePlan]) -> None:
        if not cables:
            return
        transmit, receive, queue = loader.load("nic", "nic_tx", "nic_rx", "cable_queue")
        try:
            with in_netns(self._fabric), IPRoute() as ip:
                for cable in cables:
                    attach_queue(ip, index_of(ip, cable.interface), queue)
            for cable in cables:
                with in_netns(self._hosts[cable.host]), IPRoute() as ip:
                    index = index_of(ip, cable.nic)
                    attach_hardware(ip, index, transmit, receive)
                    set_features(cable.nic, host_features(cable.wire))
                    ip.link("set", index=index, state="up")
        finally:
            os.close(transmit)
            os.close(receive)
            os.close(queue)


def nic_of(cable: CablePlan, hosts: Mapping[str, HostPlan]) -> NicPlan:
    """The NIC at a cable's end."""
    return next(nic for nic in hosts[cable.host].nics if nic.name == cable.nic)


def _add_switch(ip: Any, name: str) -> None:
    """A bridge that snoops IGMP and MLD, and asks for members itself.

    Queries need source addresses that differ from switch to switch: the lowest one asks, and of two
    equal ones both would wait for the other. Nothing but queries leaves the bridge: what the kernel
    says for its addresses and groups ends in the queue of the bridge interface, past which queries and
    bridged frames go.
    """
    ip.link("add", ifname=name, kind="bridge", br_stp_state=0, **_SNOOPING)
    index = index_of(ip, name)
    ip.tc("add", "blackhole", index)
    sysctl.write(sysctl.speaking_ipv6(name))
    ip.addr("add", index=index, address=f"169.254.{index >> 8 & 0xFF}.{index & 0xFF}", prefixlen=32)
    ip.addr("add", index=index, address=f"fe80::{index:x}", prefixlen=64, flags=_WITHOUT_DAD)
    ip.link("set", index=index, state="up")
    # after the intervals: all multicast is flooded for one response interval from here on
    ip.link("set", index=index, kind="bridge", br_mcast_querier=1)


def _add_trunk(ip: Any, trunk: TrunkPlan, mtu: int) -> None:
    one, other = trunk.ends
    ip.link("add", ifname=one.interface, kind="veth", mtu=mtu, peer={"ifname": other.interface, "mtu": mtu})
    for end in trunk.ends:
        index = index_of(ip, end.interface)
        ip.link("set", index=index, master=index_of(ip, end.switch_interface), state="up")
        # reports and all multicast cross a trunk, so that a join holds on every switch at once
        ip.brport("set", index=index, multicast_router=_ROUTER_PORT)


def _free_index(ip: Any) -> int:
    """An index that no interface in a host has.

    Where both ends of a cable have the same one, each in its namespace, the kernel tells changes of their
    carrier up to a second late (net/core/link_watch.c, linkwatch_urgent_event).
    """
    return int(max(_FIRST_INDEX, *(link["index"] for link in ip.get_links()))) + 1


def _mtu(ip: Any, index: int) -> int:
    (link,) = ip.get_links(index)
    return int(link.get("mtu"))


def index_of(ip: Any, interface: str) -> int:
    """Index of an interface in the namespace of ``ip``. Raises LookupError."""
    found = ip.link_lookup(ifname=interface)
    if not found:
        raise LookupError(f"interface {interface} is not there")
    return int(found[0])


def bridge_ports(fabric: int) -> dict[str, list[str]]:
    """Bridges of the fabric namespace and the interfaces that are their ports, as they are now."""
    with in_netns(fabric), IPRoute() as ip:
        links = list(ip.get_links())
    names = {link["index"]: str(link.get("ifname")) for link in links}
    found: dict[str, list[str]] = {}
    for link in links:
        info = link.get("linkinfo")
        if info is not None and info.get("kind") == "bridge":
            found.setdefault(names[link["index"]], [])
    for link in links:
        if (master := link.get("master")) in names and names[master] in found:
            found[names[master]].append(names[link["index"]])
    return found
