"""VMs: placing and removing them, and the addresses that their ports have by policy."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import msgspec

from testbed.topology.naming import assign_macs
from testbed.topology.plan import CustomerRoute, LookupRecord
from testbed.vmm.model import Family, NewAdapter, NewVm, Port, PortChange, Subnet, Vm, VmView
from testbed.vmm.refusals import Conflict, Missing, Unusable
from testbed.vmm.rules import policy, pools
from testbed.vmm.rules.addresses import parse_address, unicast_mac, within
from testbed.vmm.rules.served import serves_network
from testbed.vmm.store.database import Reader, Transaction
from testbed.vmm.store.tables import (
    CUSTOMER_ROUTES,
    HOSTS,
    POOL_ADDRESSES,
    POOLS,
    PORTS,
    PREPARATIONS,
    VMS,
)

_EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}


def existing(reader: Reader, name: str) -> Vm:
    """The VM called ``name``."""
    if vm := reader.get(VMS, name):
        return vm
    raise Missing(f"there is no VM {name!r}", "use one that GET /v1/vms lists")


def view(reader: Reader, vm: Vm) -> VmView:
    """A VM with its ports."""
    prepared = reader.get(PREPARATIONS, vm.name)
    return VmView(
        vm.name, vm.host, tuple(reader.select(PORTS, vm=vm.name)), prepared.host if prepared else None
    )


def existing_port(reader: Reader, name: str) -> Port:
    """The port called ``name``."""
    if port := reader.get(PORTS, name):
        return port
    raise Missing(f"there is no port {name!r}", "use one that GET /v1/ports lists")


def known_host(reader: Reader, name: str) -> None:
    """Raise Unusable unless a host is registered."""
    if not reader.get(HOSTS, name):
        raise Unusable(f"there is no host {name!r}", "register it first (POST /v1/hosts)")


def place(tx: Transaction, order: NewVm) -> VmView:
    """A new VM on a host: its ports, addresses, records, and the host's PAs."""
    if tx.get(VMS, order.name):
        raise Conflict(f"VM {order.name} is placed already", "choose another name, or migrate it")
    known_host(tx, order.host)
    vm = Vm(order.name, order.host)
    tx.put(VMS, vm)
    for index, adapter in enumerate(order.adapters):
        _place_adapter(tx, vm, index, adapter)
    tx.event("vm", vm.name, vm.host, change="placed")
    return view(tx, vm)


def remove(tx: Transaction, name: str) -> None:
    """Remove a VM with its records, routes and addresses."""
    vm = existing(tx, name)
    drop_preparation(tx, name)
    for port in tx.select(PORTS, vm=name):
        if port.vsid:
            for record in policy.records_of_mac(tx, port.vsid, port.mac):
                drop_address(tx, port, record)
            _release_promises(tx, port)
        _unplug(tx, port)
    tx.delete(VMS, vm)
    tx.event("vm", name, vm.host, change="removed")


def change_port(tx: Transaction, name: str, order: PortChange) -> Port:
    """Give a port other addresses, or another limit of learned ones."""
    port = existing_port(tx, name)
    if order.dynamic_address_limit not in (None, port.dynamic_address_limit):
        port = msgspec.structs.replace(port, dynamic_address_limit=order.dynamic_address_limit)
        tx.put(PORTS, port)
    if order.addresses is None:
        return port
    if not port.vsid:
        raise Unusable(f"port {name} is not virtualised", "the VMM has addresses of virtual subnets only")
    wanted = _canonical(name, order.addresses)
    if set(wanted) == set(port.addresses):
        return port
    subnet = policy.subnet_of(tx, port.vsid)
    for record in policy.records_of_mac(tx, port.vsid, port.mac):
        gone = record.customer_address in port.addresses and record.customer_address not in wanted
        if gone or record.type in ("L2Only", "GatewayWildcard"):
            drop_address(tx, port, record)
    fresh = [address for address in wanted if address not in port.addresses]
    changed = msgspec.structs.replace(port, addresses=wanted)
    tx.put(PORTS, changed)
    pa = policy.provider_address(tx, port.host, port.vsid)
    for address in fresh:
        _take(tx, changed, subnet, address)
        _add_static(tx, changed, address, pa)
    for record in _wildcards(changed, subnet, pa):
        policy.put_record(tx, record)
    _default_routes(tx, changed, fresh)
    return changed


def plug(tx: Transaction, port: Port) -> str:
    """Put a port on its host. The host's PA for it; a host new to the network begins anew."""
    if not serves_network(tx, port.host, port.rdid):
        tx.reset(port.host)
    pa = policy.provider_address(tx, port.host, port.vsid)
    tx.put(PORTS, port)
    return pa


def left(tx: Transaction, host: str, port: Port) -> None:
    """Take from a host what it had for a port that is not there (any more)."""
    if not port.vsid:
        return
    policy.release_provider_address(tx, host, port.vsid)
    if not serves_network(tx, host, port.rdid):
        tx.reset(host)


def drop_preparation(tx: Transaction, vm: str) -> None:
    """No host is prepared for a VM any more; what it has for nothing else is taken from it."""
    there = tx.get(PREPARATIONS, vm)
    if there is None:
        return
    tx.delete(PREPARATIONS, there)
    for port in tx.select(PORTS, vm=vm):
        left(tx, there.host, port)


def drop_address(tx: Transaction, port: Port, record: LookupRecord, how: str = "policy") -> None:
    """Remove a port's record with what hangs on it: the pool's address, and routes by a gateway.

    how: what the event says was the cause.
    """
    address = record.customer_address
    policy.drop_record(tx, record)
    policy.address_event(tx, "Deleted", record, port.host, how)
    if pool := pools.of_record(tx, record):
        item = tx.get(POOL_ADDRESSES, pool.name, address)
        if item is not None and item.owner == port.port:
            pools.forget(tx, pool, address)
    if port.is_gateway and address not in policy.UNSPECIFIED.values():
        for route in tx.select(CUSTOMER_ROUTES, routing_domain_id=port.rdid, next_hop=address):
            policy.drop_customer_route(tx, route)


def _place_adapter(tx: Transaction, vm: Vm, index: int, adapter: NewAdapter) -> None:
    interface = adapter.interface or f"eth{index}"
    name = f"{vm.name}:{interface}"
    mac = unicast_mac(name, adapter.mac) if adapter.mac else _free_mac(tx, f"{vm.name}/{index}")
    if tx.get(PORTS, name):
        raise Conflict(f"port {name} is there already", "give the adapters interfaces of different names")
    if taken := tx.select(PORTS, mac=mac):
        raise Conflict(f"port {name}: {mac} is the MAC of {taken[0].port}", "choose another MAC")
    port = Port(
        port=name,
        vm=vm.name,
        host=vm.host,
        interface=interface,
        mac=mac,
        vsid=adapter.vsid,
        rdid="",
        is_gateway=adapter.is_gateway,
        dynamic_address_limit=adapter.dynamic_address_limit,
    )
    if adapter.vsid == 0:
        if adapter.addresses or adapter.allocate or adapter.is_gateway:
            remedy = "leave addresses, allocate and is_gateway out"
            raise Unusable(f"port {name}: VSID 0 is not virtualised", remedy)
        tx.put(PORTS, port)
        return
    subnet = policy.subnet_of(tx, adapter.vsid)
    port = msgspec.structs.replace(port, rdid=subnet.rdid, addresses=_canonical(name, adapter.addresses))
    for address in port.addresses:
        _take(tx, port, subnet, address)
    allocated = tuple(_allocate(tx, port, family) for family in dict.fromkeys(adapter.allocate))
    port = msgspec.structs.replace(port, addresses=port.addresses + allocated)
    pa = plug(tx, port)
    for address in port.addresses:
        _add_static(tx, port, address, pa)
    for record in _wildcards(port, subnet, pa):
        policy.put_record(tx, record)
    _default_routes(tx, port, list(port.addresses))


def _free_mac(reader: Reader, identity: str) -> str:
    """The MAC that the adapter of a Plan would have, or the next such one that no port has."""
    taken: list[str] = []
    while True:
        mac = assign_macs([identity], taken)[identity]
        if not reader.exists(PORTS, mac=mac):
            return mac
        taken.append(mac)


def _canonical(port: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(parse_address(f"port {port}: addresses", text)) for text in texts))


def _take(tx: Transaction, port: Port, subnet: Subnet, text: str) -> None:
    address = parse_address(f"port {port.port}", text)
    within(f"port {port.port}", address, subnet.prefixes)
    pools.take(tx, pools.ca_pool(tx, port.vsid, address), address, port.port)


def _allocate(tx: Transaction, port: Port, family: Family) -> str:
    name = pools.ca_pool_name(port.vsid, family)
    if not (pool := tx.get(POOLS, name)):
        raise Unusable(
            f"port {port.port}: subnet {port.vsid} has no IPv{family} prefix", "leave the family out"
        )
    return pools.allocate(tx, pool, port.port)


def _add_static(tx: Transaction, port: Port, address: str, pa: str) -> None:
    record = LookupRecord(address, port.vsid, port.mac, pa, port.vm)
    old = policy.record_of_address(tx, port.vsid, address)
    if old and old.mac_address == port.mac:  # it had learned the address: from now on it is policy
        policy.forget_learning(tx, old)
        policy.put_record(tx, record, old)
        return
    policy.put_record(tx, record)
    policy.address_event(tx, "Added", record, port.host)


def _wildcards(port: Port, subnet: Subnet, pa: str) -> Iterator[LookupRecord]:
    """For each family of the subnet: L2Only without addresses, GatewayWildcard for a way out."""
    for version in sorted({ipaddress.ip_network(prefix).version for prefix in subnet.prefixes}):
        unspecified = policy.UNSPECIFIED[version]
        if not port.addresses:
            yield LookupRecord(unspecified, port.vsid, port.mac, pa, port.vm, type="L2Only")
        elif port.is_gateway:
            yield LookupRecord(unspecified, port.vsid, port.mac, pa, port.vm, type="GatewayWildcard")


def _default_routes(tx: Transaction, port: Port, addresses: list[str]) -> None:
    for address in addresses if port.is_gateway else ():
        everything = _EVERYTHING[ipaddress.ip_address(address).version]
        policy.put_customer_route(tx, CustomerRoute(port.rdid, port.vsid, everything, address))


def _unplug(tx: Transaction, port: Port) -> None:
    tx.delete(PORTS, port)
    left(tx, port.host, port)


def _release_promises(tx: Transaction, port: Port) -> None:
    """Addresses that pools hold for a port without a record."""
    query = "SELECT pool, address FROM pool_addresses WHERE owner = ?"
    for pool, address in tx.connection.execute(query, [port.port]).fetchall():
        pools.forget(tx, pools.existing(tx, pool), address)
