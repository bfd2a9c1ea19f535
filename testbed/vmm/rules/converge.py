"""Make the store what a changed Plan says, in one transaction, leaving alone what stays as it is."""

from __future__ import annotations

from collections.abc import Iterable

from testbed.topology.plan import NetworkPlan, Plan, SubnetPlan
from testbed.vmm.model import Converged, NewHost, NewNetwork, PlanOrder, Subnet
from testbed.vmm.rules import hosts, networks, placement
from testbed.vmm.rules.load import new_subnet, new_vm
from testbed.vmm.store.database import Transaction
from testbed.vmm.store.tables import HOSTS, NETWORKS, PORTS, SUBNETS, VMS


def converge(tx: Transaction, order: PlanOrder) -> Converged:
    """Networks, subnets, hosts and VMs of a Plan; PAs are the VMM's own choice.

    A VM that is there already stays as it is, with what it has learned, unless ``rebuilt`` names it or
    its subnet is another. Raises Refused, and then nothing has changed.
    """
    plan = order.plan
    wanted = {vm.name: vm for vm in plan.vms}
    changed = _changed_subnets(tx, plan)
    again = {*order.rebuilt, *_vms_of(tx, changed)}
    removed = [vm.name for vm in tx.select(VMS) if vm.name not in wanted or vm.name in again]
    for name in removed:
        placement.remove(tx, name)
    for vsid in changed:
        networks.remove_subnet(tx, vsid)
    _networks(tx, plan)
    for host in plan.hosts:
        if not tx.get(HOSTS, host.name):
            hosts.register(tx, NewHost(host.name, order.tokens.get(host.name)))
    placed = [vm for vm in plan.vms if not tx.get(VMS, vm.name)]
    for vm in placed:
        placement.place(tx, new_vm(vm, learning=plan.learning))
    gone = [host.name for host in tx.select(HOSTS) if host.name not in {each.name for each in plan.hosts}]
    for name in gone:
        hosts.remove(tx, name)
    return Converged(tuple(vm.name for vm in placed), tuple(removed), tuple(gone))


def _changed_subnets(tx: Transaction, plan: Plan) -> list[int]:
    """The VSIDs whose subnet is gone or another."""
    wanted = {
        subnet.vsid: _as_stored(network, subnet) for network in plan.networks for subnet in network.subnets
    }
    return [subnet.vsid for subnet in tx.select(SUBNETS) if wanted.get(subnet.vsid) != subnet]


def _as_stored(network: NetworkPlan, subnet: SubnetPlan) -> Subnet:
    return Subnet(
        subnet.vsid, network.rdid, subnet.prefixes, subnet.gateways, subnet.gateway_mac, subnet.multicast
    )


def _vms_of(tx: Transaction, vsids: Iterable[int]) -> set[str]:
    return {port.vm for vsid in vsids for port in tx.select(PORTS, vsid=vsid)}


def _networks(tx: Transaction, plan: Plan) -> None:
    """Networks that are gone, or called otherwise, have no subnets any more."""
    wanted = {network.rdid: network for network in plan.networks}
    for network in tx.select(NETWORKS):
        if network.rdid not in wanted:
            networks.remove_network(tx, network.rdid)
    for rdid, planned in wanted.items():
        if not tx.get(NETWORKS, rdid):
            networks.add_network(tx, NewNetwork(planned.name, rdid))
        for subnet in planned.subnets:
            if not tx.get(SUBNETS, subnet.vsid):
                networks.add_subnet(tx, new_subnet(planned, subnet))
