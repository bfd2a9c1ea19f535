"""Two hosts with a VM each, between them a switch: the datapath alone on real devices.

Where the WNV filter decides in a lab, a stage of fixed decisions does it here, so that every mix of
families and every kind of copy is a matter of one line. Five network namespaces without names.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pyroute2 import IPRoute

from support.frames import ip, mac
from testbed.namespaces import in_netns, new_netns, start_in_netns
from testbed.nic.bpf import loader
from testbed.nic.features import CABLE_FABRIC, CABLE_HOST, set_features
from testbed.nic.stage import NicStage
from testbed.packets import ethernet, nvgre
from testbed.switch.datapath import Datapath
from testbed.switch.drops import Drop
from testbed.switch.packet import Packet, Translation, Tunnel, Verdict
from testbed.switch.pipeline import PORT_EXTENSIONS, UPLINK_EXTENSIONS, WNV, Pipeline
from testbed.switch.port import Port
from testbed.switch.roles import Roles
from testbed.switch.stages import PortStage
from testbed.switch.state import SwitchState
from testbed.switch.uplink import Uplink
from testbed.teaming.stage import TeamStage
from testbed.topology.schema import Wire
from testbed.wiring import sysctl, tap
from testbed.wiring.guest import GSO_MAX_SIZE
from testbed.wiring.hardware import attach_hardware

VSID = 5001
CAS = {4: ("10.0.0.5", "10.0.0.6"), 6: ("fd00::5", "fd00::6")}
PAS = {4: ("192.168.0.1", "192.168.0.2"), 6: ("2001:db8::1", "2001:db8::2")}
VM_MACS = [mac("00:15:5d:00:00:05"), mac("00:15:5d:00:00:06")]
NIC_MACS = [mac("02:00:00:00:00:01"), mac("02:00:00:00:00:02")]
_NODAD = 0x02  # linux/if_addr.h


class _Passes:
    """An empty stage."""

    def __init__(self, name: str) -> None:
        self.name = name

    def outbound(self, packet: Packet) -> Verdict:
        """Nothing."""
        return None

    inbound = outbound


class _Fixed:
    """Everything of host ``own``'s VM goes to the other's, encapsulated or with its addresses replaced."""

    name = WNV

    def __init__(self, state: SwitchState, own: int, family: int, *, translate: bool) -> None:
        self._state = state
        self._own = own
        self._family = family
        self._translate = translate

    def outbound(self, packet: Packet) -> Verdict:
        """IP only: neighbors are permanent."""
        kind = ethernet.ethertype(packet.frame)
        if kind not in (ethernet.TYPE_IPV4, ethernet.TYPE_IPV6) or packet.frame[0] & 1:
            return Drop.NOT_IP
        packet.macs = bytes(packet.frame[:12])
        here, there = (ip(PAS[self._family][at]) for at in (self._own, 1 - self._own))
        if self._translate:
            packet.translation = Translation(here, there, there)
            packet.cacheable = False
        else:
            packet.tunnels = (Tunnel(here, there, there, VSID, 7),)
        return None

    def inbound(self, packet: Packet) -> Verdict:
        """To the one port."""
        packet.ports = self._state.ports_of(VSID)
        if self._translate:
            cas = CAS[self._family]
            packet.macs = VM_MACS[self._own] + VM_MACS[1 - self._own]
            packet.translation = Translation(ip(cas[1 - self._own]), ip(cas[self._own]), None)
            packet.cacheable = False
        else:
            packet.outer = nvgre.parse(packet.frame)
        return None


@dataclasses.dataclass
class Lab:
    """``vms``, ``hosts``, ``fabric``: descriptors of namespaces. ``switch_ports``: the cables' ends there."""

    vms: list[int]
    hosts: list[int]
    fabric: int
    control: int
    call: Any = None
    switch_ports = ("p0", "p1")

    def counters(self) -> list[dict[str, Any]]:
        """Per host: its port's and NIC's counters, and drops by reason. The switches end."""
        os.write(self.control, b"x")
        result: list[dict[str, Any]] = self.call.result(10.0)
        return result


@contextmanager
def datapath_lab(family: int, wire: Wire, *, vm_mtu: int = 0, translate: bool = False) -> Iterator[Lab]:
    """A running lab. ``family``: of the PAs, 4 or 6. ``vm_mtu``: 0 for what fits."""
    with ExitStack() as stack:
        spaces = [new_netns() for _ in range(5)]
        for space in spaces:
            stack.callback(os.close, space)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, reader)
        stack.callback(os.close, writer)
        lab = Lab(spaces[:2], spaces[2:4], spaces[4], writer)
        _build_fabric(lab, wire)
        mtu = vm_mtu or 1500 - (42 if family == 4 else 62)
        queues = [_build_vm(lab.vms[index], index, mtu) for index in (0, 1)]
        for queue in queues:
            stack.callback(os.close, queue)
        lab.call = stack.enter_context(
            start_in_netns(lab.fabric, _switch, lab.hosts, queues, family, translate, reader)
        )
        yield lab


def _build_fabric(lab: Lab, wire: Wire) -> None:
    with in_netns(lab.fabric), IPRoute() as ipr:
        sysctl.write(sysctl.SILENT)
        ipr.link("add", ifname="tor1", kind="bridge", br_mcast_snooping=0)
        (bridge,) = ipr.link_lookup(ifname="tor1")
        for index, (name, host) in enumerate(zip(lab.switch_ports, lab.hosts, strict=True)):
            with in_netns(host):
                sysctl.write(sysctl.SILENT)
            peer = {"ifname": "nic1", "net_ns_fd": host, "address": NIC_MACS[index].hex(":")}
            ipr.link("add", ifname=name, kind="veth", peer=peer)
            ipr.link("set", index=ipr.link_lookup(ifname=name)[0], master=bridge, state="up")
            set_features(name, CABLE_FABRIC[wire])
        ipr.link("set", index=bridge, state="up")
    programs = loader.load("nic", "nic_tx", "nic_rx")
    try:
        for host in lab.hosts:
            with in_netns(host), IPRoute() as ipr:
                (nic,) = ipr.link_lookup(ifname="nic1")
                attach_hardware(ipr, nic, *programs)
                set_features("nic1", CABLE_HOST[wire])
                ipr.link("set", index=nic, state="up")
    finally:
        for program in programs:
            os.close(program)


def _build_vm(space: int, index: int, mtu: int) -> int:
    with in_netns(space), IPRoute() as ipr:
        sysctl.write(sysctl.GUEST)
        (queue,) = tap.open_queues("eth0")
        (eth0,) = ipr.link_lookup(ifname="eth0")
        ipr.link("set", index=1, state="up")
        ipr.link("set", index=eth0, address=VM_MACS[index].hex(":"), mtu=mtu, gso_max_size=GSO_MAX_SIZE)
        ipr.link("set", index=eth0, state="up")
        for cas in CAS.values():
            wide = 64 if ":" in cas[0] else 24
            ipr.addr("add", index=eth0, address=cas[index], prefixlen=wide, flags=_NODAD)
            there = VM_MACS[1 - index].hex(":")
            ipr.neigh("add", dst=cas[1 - index], lladdr=there, ifindex=eth0, state="permanent")
    return queue


def _switch(
    hosts: list[int], queues: list[int], family: int, translate: bool, stop: int
) -> list[dict[str, Any]]:
    """Both hosts' switches, in one process; what they counted, once ``stop`` is readable."""
    poll, ready = select.epoll(), {}
    switches = []
    for own, (host, queue) in enumerate(zip(hosts, queues, strict=True)):
        with in_netns(host):
            uplink = Uplink("nic1", NIC_MACS[own])
        state = SwitchState()
        port = Port("vm", VM_MACS[own], VSID, queue)
        state.add_port(port)
        state.uplinks["nic1"], state.roles = uplink, Roles.alone("nic1", uplink.mac)
        state.neighbors[ip(PAS[family][1 - own])] = NIC_MACS[1 - own]
        stages = [
            PortStage(),
            _Passes(PORT_EXTENSIONS),
            _Fixed(state, own, family, translate=translate),
            _Passes(UPLINK_EXTENSIONS),
            TeamStage(state),
            NicStage(state),
        ]
        path = Datapath(state, Pipeline(stages), lambda _: None)
        ready[queue] = functools.partial(path.drain_port, port, queue)
        ready[uplink.fileno()] = functools.partial(path.drain_uplink, uplink, uplink.queues[0])
        for number in (queue, uplink.fileno()):
            poll.register(number, select.EPOLLIN)
        switches.append((port, uplink, path))
    poll.register(stop, select.EPOLLIN)
    while True:
        for number, _ in poll.poll():
            if number == stop:
                return [
                    {
                        **port.counters(),
                        **uplink.counters(),
                        # without the multicast that a kernel sends on its own
                        "drops": {
                            str(reason): count
                            for (*_, reason), count in path.drops.items()
                            if reason != Drop.NOT_IP
                        },
                    }
                    for port, uplink, path in switches
                ]
            ready[number]()
