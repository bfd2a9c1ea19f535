"""From a valid topology to a Plan: every name, address, MAC and MTU decided.

Pure and deterministic. Given the Plan of a running lab, what that lab already uses (PAs, switch
ports, interface names) is kept, so that a change touches as little as possible.
"""

from __future__ import annotations

import ipaddress
import itertools
import shlex
from collections.abc import Iterable
from pathlib import Path

from testbed.nic.faults import seconds
from testbed.nic.guest import of_vnic
from testbed.topology.fabric import build_fabric
from testbed.topology.management import build_management
from testbed.topology.naming import assign_macs, canonical_mac, network_rdid, vm_mtu
from testbed.topology.plan import (
    ExtensionPlan,
    HostPlan,
    HostPolicy,
    NetworkPlan,
    NicPlan,
    Plan,
    ProcessorsPlan,
    SubnetPlan,
    TeamPlan,
    VmPlan,
    VnicPlan,
)
from testbed.topology.policies import Pas, Policies
from testbed.topology.profiles import Profiles
from testbed.topology.schema import Extension, Host, Network, Subnet, Topology, Vnic


def build(topology: Topology, previous: Plan | None = None, profiles: Profiles | None = None) -> Plan:
    """The Plan of a topology that has passed :func:`testbed.topology.validate.check`."""
    profiles = profiles or Profiles(Path())
    macs = _macs(topology)
    networks = tuple(_network(topology.name, network, macs) for network in topology.networks)
    vms = _vms(topology, networks, macs)
    pas = _provider_addresses(topology, vms, previous)
    policies = Policies(networks, vms, pas, ipaddress.ip_network(topology.fabric.pa_pool))
    hosts = tuple(_host(host, macs, topology, policies.host(host.name), profiles) for host in topology.hosts)
    fabric = build_fabric(topology, previous.fabric if previous else None, macs)
    return Plan(
        name=topology.name,
        networks=networks,
        hosts=hosts,
        vms=vms,
        fabric=fabric,
        timers=topology.timers,
        vmm=build_management(topology, previous.vmm if previous else None) if topology.vmm else None,
        learning=topology.learning,
    )


def _host(
    host: Host, macs: dict[str, str], topology: Topology, policy: HostPolicy, profiles: Profiles
) -> HostPlan:
    nics = tuple(
        NicPlan(
            name=nic.name,
            mac=macs[f"{host.name}/{nic.name}"],
            mtu=topology.fabric.pa_mtu,
            wnv_binding=nic.wnv_binding,
            profile=nic.profile,
            offloads=profiles.offloads(nic),
            queues=nic.queues or host.processors.count,
        )
        for nic in host.nics
    )
    return HostPlan(
        name=host.name,
        nics=nics,
        team=TeamPlan(
            primary=host.team.primary or next(n.name for n in host.nics if n.name != host.team.standby),
            mode=host.team.mode,
            algorithm=host.team.algorithm,
            standby=host.team.standby or "",
            lacp_timer=host.team.lacp_timer,
            flowlet_gap=seconds(host.team.flowlet_gap) if host.team.flowlet_gap else 0.0,
        ),
        policy=policy,
        timers=topology.timers,
        extensions=tuple(_extension(extension) for extension in host.extensions),
        wnv=host.wnv,
        flow_entropy=host.flow_entropy,
        # the filter below the switch is that of Windows Server 2012, which learned nothing
        learning=topology.learning and host.wnv == "in-switch",
        processors=ProcessorsPlan(host.processors.count, (host.processors.budget or 0) / 100),
    )


def _extension(extension: str | Extension) -> ExtensionPlan:
    if isinstance(extension, str):
        return ExtensionPlan(extension)
    return ExtensionPlan(extension.name, extension.settings)


def _macs(topology: Topology) -> dict[str, str]:
    """MAC by identity: "host/nic", "vm/vnic index", "gateway/vsid", "switch/name"."""
    given: dict[str, str] = {}
    derived = [f"gateway/{subnet.vsid}" for network in topology.networks for subnet in network.subnets]
    derived += [f"switch/{name}" for name in topology.fabric.switches]
    adapters: list[tuple[str, str | None]] = []
    adapters += [(f"{host.name}/{nic.name}", nic.mac) for host in topology.hosts for nic in host.nics]
    adapters += [(f"{vm.name}/{i}", vnic.mac) for vm in topology.vms for i, vnic in enumerate(vm.vnics)]
    for identity, mac in adapters:
        if mac is None:
            derived.append(identity)
        else:
            given[identity] = canonical_mac(mac)
    return given | assign_macs(derived, given.values())


def _network(topology: str, network: Network, macs: dict[str, str]) -> NetworkPlan:
    subnets = tuple(_subnet(subnet, macs[f"gateway/{subnet.vsid}"]) for subnet in network.subnets)
    return NetworkPlan(network.name, network_rdid(topology, network), subnets)


def _subnet(subnet: Subnet, gateway_mac: str) -> SubnetPlan:
    given = {address.version: address for address in map(ipaddress.ip_address, subnet.gateways)}
    prefixes = [ipaddress.ip_network(prefix) for prefix in subnet.prefixes]
    gateways = tuple(str(given.get(prefix.version, prefix[1])) for prefix in prefixes)
    group = subnet.multicast and str(ipaddress.ip_address(subnet.multicast))
    return SubnetPlan(subnet.vsid, tuple(map(str, prefixes)), gateways, gateway_mac, group or "")


def _vms(topology: Topology, networks: tuple[NetworkPlan, ...], macs: dict[str, str]) -> tuple[VmPlan, ...]:
    subnets = {subnet.vsid: (network.name, subnet) for network in networks for subnet in network.subnets}
    pa_mtu = topology.fabric.pa_mtu
    pa_version = ipaddress.ip_network(topology.fabric.pa_pool).version

    def adapter(vm: str, index: int, vnic: Vnic) -> VnicPlan:
        name = f"eth{index}"
        mac = macs[f"{vm}/{index}"]
        offloads = of_vnic(vnic.supports, vnic.offloads)
        mtu = vm_mtu(pa_mtu, pa_version, vnic.vsid, legacy=vnic.legacy)
        if vnic.vsid == 0:
            plain = tuple(str(ipaddress.ip_interface(address)) for address in vnic.addresses)
            return VnicPlan(
                interface=name,
                port=f"{vm}:{name}",
                vsid=0,
                mac=mac,
                mtu=mtu,
                addresses=plain,
                offloads=offloads,
                queues=vnic.queues,
            )
        network, subnet = subnets[vnic.vsid]
        customer = tuple(_with_length(address, subnet.prefixes) for address in vnic.addresses)
        gateways = () if vnic.gateway else subnet.gateways  # it is the way out itself
        port = f"{vm}:{name}"
        return VnicPlan(
            interface=name,
            port=port,
            vsid=vnic.vsid,
            mac=mac,
            mtu=mtu,
            network=network,
            addresses=customer,
            gateways=gateways,
            is_gateway=vnic.gateway,
            offloads=offloads,
            queues=vnic.queues,
        )

    return tuple(
        VmPlan(
            name=vm.name,
            host=vm.host,
            vnics=tuple(adapter(vm.name, i, vnic) for i, vnic in enumerate(vm.vnics)),
            image=vm.image,
            command=None if vm.command is None else tuple(vm.command),
            announce=vm.announce,
            exec=tuple(words(command) for command in vm.exec),
            shared_disk=vm.shared_disk,
        )
        for vm in topology.vms
    )


def words(command: str | list[str]) -> tuple[str, ...]:
    """A command's words; a string is split as a shell does. Raises ValueError."""
    return tuple(shlex.split(command) if isinstance(command, str) else command)


def _with_length(text: str, prefixes: Iterable[str]) -> str:
    """The address with the length of the prefix it lies in."""
    address = ipaddress.ip_address(text)
    length = next(net.prefixlen for net in map(ipaddress.ip_network, prefixes) if address in net)
    return f"{address}/{length}"


def _provider_addresses(topology: Topology, vms: tuple[VmPlan, ...], previous: Plan | None) -> Pas:
    """One PA for each VSID on each host that has a VM in it: the one it had, else the lowest free.

    What another host or VSID had before comes last: neighbours may still know it, and it is a
    duplicate until its old owner has dropped it.
    """
    pool = ipaddress.ip_network(topology.fabric.pa_pool)
    needed: dict[str, set[int]] = {host.name: set() for host in topology.hosts}
    for vm in vms:
        needed[vm.host] |= {vnic.vsid for vnic in vm.vnics if vnic.vsid}
    pas: Pas = {}
    before: dict[str, None] = {}
    for host in previous.hosts if previous else ():
        for pa in host.policy.provider_addresses:
            if not _in_pool(pa.provider_address, pool):
                continue
            before[pa.provider_address] = None
            if pa.virtual_subnet_id in needed.get(host.name, ()):
                pas[host.name, pa.virtual_subnet_id] = pa.provider_address
    taken = set(pas.values())
    fresh = (str(address) for address in pool.hosts() if str(address) not in before)
    free = itertools.chain(fresh, (address for address in before if address not in taken))
    for name, vsids in needed.items():
        for vsid in sorted(vsids):
            if (name, vsid) not in pas:
                pas[name, vsid] = next(free)
    return pas


def _in_pool(text: str, pool: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    """Whether an address is one of the pool's, less its network and broadcast addresses."""
    address = ipaddress.ip_address(text)
    return address in pool and address not in (pool.network_address, pool.broadcast_address)
