"""Writing policy objects, so that each change reaches the log of those whom it concerns."""

from __future__ import annotations

import ipaddress

from testbed.topology.plan import CustomerRoute, LookupRecord
from testbed.vmm.model import HostProviderAddress, HostProviderRoute, Port, Subnet
from testbed.vmm.refusals import Conflict, Unusable
from testbed.vmm.rules import pools
from testbed.vmm.rules.served import serves_subnet
from testbed.vmm.store.database import Reader, Transaction, host_scope, network_scope
from testbed.vmm.store.tables import (
    CUSTOMER_ROUTES,
    LEARNED,
    LOOKUP_RECORDS,
    PORTS,
    PROVIDER_ADDRESSES,
    PROVIDER_ROUTES,
    SUBNETS,
)
from testbed.wnv.objects import is_group, outside_address
from testbed.wnv.policy import Change

UNSPECIFIED = {4: "0.0.0.0", 6: "::"}


def subnet_of(reader: Reader, vsid: int) -> Subnet:
    """The subnet with a VSID."""
    if subnet := reader.get(SUBNETS, vsid):
        return subnet
    raise Unusable(f"there is no subnet with VSID {vsid}", "add it first (POST /v1/subnets)")


def put_record(tx: Transaction, record: LookupRecord, old: LookupRecord | None = None) -> None:
    """Add a record, or write it anew (same key)."""
    rdid = subnet_of(tx, record.virtual_subnet_id).rdid
    if old is None:
        _refuse_taken(tx, record)
    _refuse_outside(tx, record)
    tx.put(LOOKUP_RECORDS, record)
    tx.log(network_scope(rdid), Change("lookup-records", old, record))


def drop_record(tx: Transaction, record: LookupRecord) -> None:
    """Remove a record, and what is known of its learning."""
    forget_learning(tx, record)
    tx.delete(LOOKUP_RECORDS, record)
    rdid = subnet_of(tx, record.virtual_subnet_id).rdid
    tx.log(network_scope(rdid), Change("lookup-records", record, None))


def records_of_mac(reader: Reader, vsid: int, mac: str) -> list[LookupRecord]:
    """The records of an adapter."""
    return reader.select(LOOKUP_RECORDS, mac_address=mac, virtual_subnet_id=vsid)


def record_of_address(reader: Reader, vsid: int, address: str) -> LookupRecord | None:
    """The record of a CA."""
    found = reader.select(LOOKUP_RECORDS, virtual_subnet_id=vsid, customer_address=address)
    return found[0] if found else None


def put_customer_route(tx: Transaction, route: CustomerRoute, old: CustomerRoute | None = None) -> None:
    """Add a route, or write it anew (same key)."""
    subnet = subnet_of(tx, route.virtual_subnet_id)
    if subnet.rdid != route.routing_domain_id:
        raise Conflict(
            f"VSID {route.virtual_subnet_id} belongs to the routing domain {subnet.rdid}",
            "use that routing domain",
        )
    tx.put(CUSTOMER_ROUTES, route)
    tx.log(network_scope(subnet.rdid), Change("customer-routes", old, route))


def drop_customer_route(tx: Transaction, route: CustomerRoute) -> None:
    """Remove a route."""
    tx.delete(CUSTOMER_ROUTES, route)
    tx.log(network_scope(route.routing_domain_id), Change("customer-routes", route, None))


def put_provider_address(
    tx: Transaction, item: HostProviderAddress, old: HostProviderAddress | None = None
) -> None:
    """Add a host's PA, or write it anew (same key)."""
    tx.put(PROVIDER_ADDRESSES, item)
    tx.log(host_scope(item.host), Change("provider-addresses", old and old.bare(), item.bare()))


def drop_provider_address(tx: Transaction, item: HostProviderAddress) -> None:
    """Remove a host's PA and give it back to its pool, if no other VSID of the host has it."""
    tx.delete(PROVIDER_ADDRESSES, item)
    tx.log(host_scope(item.host), Change("provider-addresses", item.bare(), None))
    pool = pools.pa_pool_of(tx, item.provider_address)
    if pool and not pools.in_policy(tx, pool, item.provider_address):
        pools.forget(tx, pool, item.provider_address)


def put_provider_route(
    tx: Transaction, item: HostProviderRoute, old: HostProviderRoute | None = None
) -> None:
    """Add a host's route of the PA space, or write it anew (same key)."""
    tx.put(PROVIDER_ROUTES, item)
    tx.log(host_scope(item.host), Change("provider-routes", old and old.bare(), item.bare()))


def drop_provider_route(tx: Transaction, item: HostProviderRoute) -> None:
    """Remove a host's route of the PA space."""
    tx.delete(PROVIDER_ROUTES, item)
    tx.log(host_scope(item.host), Change("provider-routes", item.bare(), None))


def provider_address(tx: Transaction, host: str, vsid: int) -> str:
    """The host's PA for a VSID: the one it has, else a new one of a PA pool."""
    if there := tx.get(PROVIDER_ADDRESSES, host, vsid):
        return there.provider_address
    candidates = pools.a_pa_pool(tx)
    for number, pool in enumerate(candidates, 1):
        try:
            address = pools.allocate(tx, pool, f"{host}/{vsid}")
        except Conflict:
            if number == len(candidates):
                raise
        else:
            length = ipaddress.ip_network(pool.prefix).prefixlen
            put_provider_address(tx, HostProviderAddress(host, address, length, vsid))
            return address
    raise AssertionError


def release_provider_address(tx: Transaction, host: str, vsid: int) -> None:
    """Take the PA of a VSID from a host that serves it no more."""
    there = tx.get(PROVIDER_ADDRESSES, host, vsid)
    if there and not serves_subnet(tx, host, vsid):
        drop_provider_address(tx, there)


def forget_learning(tx: Transaction, record: LookupRecord) -> None:
    """A record is no longer one that came from learning."""
    key = record.virtual_subnet_id, record.customer_address, record.mac_address
    if there := tx.get(LEARNED, *key):
        tx.delete(LEARNED, there)


def address_event(tx: Transaction, reason: str, record: LookupRecord, host: str, how: str = "policy") -> None:
    """The object change "CustomerAddress" of wnvapi: Added, Moved or Deleted. No event for wildcards."""
    if record.customer_address in UNSPECIFIED.values():
        return
    tx.event(
        "customer-address",
        record.vm_name or record.mac_address,
        host,
        reason=reason,
        mac=record.mac_address,
        ca=record.customer_address,
        vsid=record.virtual_subnet_id,
        pa=record.provider_address,
        how=how,
    )


def port_of_mac(reader: Reader, vsid: int, mac: str) -> Port | None:
    """The port of an adapter."""
    found = reader.select(PORTS, mac=mac)
    return found[0] if found and found[0].vsid == vsid else None


def _refuse_taken(tx: Transaction, record: LookupRecord) -> None:
    key = record.virtual_subnet_id, record.customer_address, record.mac_address
    place = f"lookup record {record.customer_address} of VSID {record.virtual_subnet_id}"
    if tx.get(LOOKUP_RECORDS, *key):
        raise Conflict(f"{place}: it is there already", "set its fields, or remove it first")
    if record.customer_address in UNSPECIFIED.values():
        return
    if other := record_of_address(tx, record.virtual_subnet_id, record.customer_address):
        raise Conflict(f"{place}: it is there with the MAC {other.mac_address}", "remove that record first")


def _refuse_outside(tx: Transaction, record: LookupRecord) -> None:
    """Without encapsulation, an address of the PA network stands for one VM."""
    outside = outside_address(record)
    if outside is None or is_group(ipaddress.ip_address(outside)):
        return
    for other in tx.select(LOOKUP_RECORDS, outside=outside):
        same = (
            other.virtual_subnet_id == record.virtual_subnet_id
            and other.customer_address == record.customer_address
        )
        if not same:
            raise Conflict(
                f"without encapsulation {outside} stands for one VM, and is that of "
                f"{other.customer_address} in VSID {other.virtual_subnet_id}",
                "use another address, or the rule TranslationMethodEncap",
            )
