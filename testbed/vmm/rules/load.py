"""Fill an empty store from a Plan, with just the policy that the Plan's hosts have."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from testbed.topology.plan import NetworkPlan, Plan, SubnetPlan, VmPlan
from testbed.vmm.model import (
    DYNAMIC_ADDRESS_LIMIT,
    HostProviderAddress,
    HostProviderRoute,
    NewAdapter,
    NewHost,
    NewNetwork,
    NewPool,
    NewSubnet,
    NewVm,
    Registration,
)
from testbed.vmm.refusals import Conflict
from testbed.vmm.rules import hosts, networks, orders, placement, pools
from testbed.vmm.store.database import Transaction
from testbed.vmm.store.tables import HOSTS, NETWORKS, POOLS

PA_POOL = "pa"


def load(
    tx: Transaction,
    plan: Plan,
    *,
    pa_pool: str | None = None,
    dynamic_address_limit: int = DYNAMIC_ADDRESS_LIMIT,
    tokens: Mapping[str, str] | None = None,
) -> list[Registration]:
    """Networks, hosts, PAs and VMs of a Plan. Raises Conflict when the store is not empty.

    pa_pool: the prefix of the PA network; default the Plan's. tokens: those that hosts have already.
    """
    if any(tx.count(table) for table in (NETWORKS, HOSTS, POOLS)):
        raise Conflict("the store is not empty", "load a Plan into a new store")
    _pa_pool(tx, plan, pa_pool or (plan.vmm.pa_pool if plan.vmm else None))
    for network in plan.networks:
        networks.add_network(tx, NewNetwork(network.name, network.rdid))
        for subnet in network.subnets:
            networks.add_subnet(tx, new_subnet(network, subnet))
    registered = [
        hosts.register(tx, NewHost(host.name, (tokens or {}).get(host.name))) for host in plan.hosts
    ]
    for host in plan.hosts:
        for pa in host.policy.provider_addresses:
            orders.add_provider_address(
                tx,
                HostProviderAddress(host.name, pa.provider_address, pa.prefix_length, pa.virtual_subnet_id),
            )
        for route in host.policy.provider_routes:
            orders.add_provider_route(
                tx, HostProviderRoute(host.name, route.destination_prefix, route.next_hop, route.metric)
            )
    for vm in plan.vms:
        placement.place(tx, new_vm(vm, dynamic_address_limit, learning=plan.learning))
    tx.event("loaded", plan.name)
    return registered


def _pa_pool(tx: Transaction, plan: Plan, given: str | None) -> None:
    prefixes = {
        str(ipaddress.ip_network(f"{pa.provider_address}/{pa.prefix_length}", strict=False))
        for host in plan.hosts
        for pa in host.policy.provider_addresses
    }
    for number, prefix in enumerate([given] if given else sorted(prefixes)):
        pools.add_pa_pool(tx, NewPool(f"{PA_POOL}{number or ''}", prefix))


def new_subnet(network: NetworkPlan, subnet: SubnetPlan) -> NewSubnet:
    """The order for a subnet of a Plan."""
    return NewSubnet(
        network.rdid, subnet.vsid, subnet.prefixes, subnet.gateways, subnet.gateway_mac, subnet.multicast
    )


def new_vm(vm: VmPlan, dynamic_address_limit: int = DYNAMIC_ADDRESS_LIMIT, *, learning: bool) -> NewVm:
    """The order for a VM of a Plan. Without ``learning`` its ports learn nothing."""
    adapters = tuple(
        NewAdapter(
            vsid=vnic.vsid,
            # those of VSID 0 are not the VMM's business
            addresses=tuple(text.partition("/")[0] for text in vnic.addresses) if vnic.vsid else (),
            mac=vnic.mac,
            interface=vnic.interface,
            is_gateway=vnic.is_gateway and vnic.vsid != 0,
            dynamic_address_limit=dynamic_address_limit if learning else 0,
        )
        for vnic in vm.vnics
    )
    return NewVm(vm.name, vm.host, adapters)
