"""Orders on single policy objects: add, set, remove, with the rules of the NetWNV cmdlets.

As in testbed.wnv.policy, ``set`` and ``remove`` take parts of a key and mean all objects that have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from testbed.topology.plan import CustomerRoute, LookupRecord
from testbed.vmm.model import HostProviderAddress, HostProviderRoute
from testbed.vmm.refusals import Conflict, Malformed, Missing, Unusable
from testbed.vmm.rules import policy, pools
from testbed.vmm.rules.addresses import parse_address
from testbed.vmm.rules.served import serves_subnet
from testbed.vmm.store.database import Reader, Transaction
from testbed.vmm.store.tables import (
    CUSTOMER_ROUTES,
    HOSTS,
    LOOKUP_RECORDS,
    POOL_ADDRESSES,
    PROVIDER_ADDRESSES,
    PROVIDER_ROUTES,
    Table,
)
from testbed.wnv import objects

T = TypeVar("T", bound=Struct)
Given = Mapping[str, Any]


def given(order: Struct) -> dict[str, Any]:
    """The fields of an order that are not None."""
    return stated(msgspec.structs.asdict(order))


def stated(values: Given) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def find(reader: Reader, table: Table[T], kind: str, values: Given) -> list[T]:
    """The objects whose keys have the parts of a key among ``values``. Raises Missing, Malformed."""
    key = objects.KINDS[kind].key
    wanted = {name: value for name, value in values.items() if name in key}
    if not wanted:
        raise Malformed(f"{kind}: it is not said which", f"give at least one of {', '.join(key)}")
    host = {"host": values["host"]} if "host" in values else {}
    wanted = host | objects.partial(kind, wanted)
    if found := reader.select(table, **wanted):
        return found
    asked = " ".join(f"{name} {value}" for name, value in wanted.items())
    raise Missing(f"{kind}: there is none with {asked}", f"use one that GET /v1/{kind} lists")


# ---- lookup records -----------------------------------------------------------------------


def add_record(tx: Transaction, order: LookupRecord) -> LookupRecord:
    """Add a lookup record."""
    record = objects.convert("lookup-records", msgspec.structs.asdict(order))
    assert isinstance(record, LookupRecord)
    policy.put_record(tx, record)
    _event(tx, "lookup-records", record, "added")
    return record


def set_records(tx: Transaction, values: Given) -> list[LookupRecord]:
    """Change all records that are meant."""
    return _set(tx, LOOKUP_RECORDS, "lookup-records", values, policy.put_record)


def remove_records(tx: Transaction, values: Given) -> list[LookupRecord]:
    """Remove all records that are meant."""
    found = find(tx, LOOKUP_RECORDS, "lookup-records", values)
    for record in found:
        policy.drop_record(tx, record)
        pool = pools.of_record(tx, record)
        item = pool and tx.get(POOL_ADDRESSES, pool.name, record.customer_address)
        if pool and item and item.state == "learned":
            pools.forget(tx, pool, record.customer_address)
        _event(tx, "lookup-records", record, "removed")
    return found


# ---- customer routes ----------------------------------------------------------------------


def add_customer_route(tx: Transaction, order: CustomerRoute) -> CustomerRoute:
    """Add a customer route."""
    route = objects.convert("customer-routes", msgspec.structs.asdict(order))
    assert isinstance(route, CustomerRoute)
    _refuse_present(tx, CUSTOMER_ROUTES, "customer-routes", route)
    policy.put_customer_route(tx, route)
    _event(tx, "customer-routes", route, "added")
    return route


def set_customer_routes(tx: Transaction, values: Given) -> list[CustomerRoute]:
    """Change all routes that are meant."""
    return _set(tx, CUSTOMER_ROUTES, "customer-routes", values, policy.put_customer_route)


def remove_customer_routes(tx: Transaction, values: Given) -> list[CustomerRoute]:
    """Remove all routes that are meant."""
    found = find(tx, CUSTOMER_ROUTES, "customer-routes", values)
    for route in found:
        policy.drop_customer_route(tx, route)
        _event(tx, "customer-routes", route, "removed")
    return found


# ---- provider addresses and routes --------------------------------------------------------


def add_provider_address(tx: Transaction, order: HostProviderAddress) -> HostProviderAddress:
    """Give a host a PA for a VSID of which it has none: one PA per VSID and host."""
    _known_host(tx, order.host)
    checked = objects.convert("provider-addresses", msgspec.structs.asdict(order.bare()))
    item = msgspec.convert({"host": order.host, **msgspec.structs.asdict(checked)}, HostProviderAddress)
    policy.subnet_of(tx, item.virtual_subnet_id)
    if there := tx.get(PROVIDER_ADDRESSES, item.host, item.virtual_subnet_id):
        raise Conflict(
            f"host {item.host} has the PA {there.provider_address} for VSID {item.virtual_subnet_id}",
            "remove that first",
        )
    owners = tx.select(PROVIDER_ADDRESSES, provider_address=item.provider_address)
    if owners and owners[0].host != item.host:
        raise Conflict(f"{item.provider_address} is a PA of host {owners[0].host}", "choose another address")
    if not owners and (pool := pools.pa_pool_of(tx, item.provider_address)):
        owner = f"{item.host}/{item.virtual_subnet_id}"
        pools.take(tx, pool, parse_address("provider_address", item.provider_address), owner)
    policy.put_provider_address(tx, item)
    _event(tx, "provider-addresses", checked, "added", item.host)
    return item


def set_provider_addresses(tx: Transaction, values: Given) -> list[HostProviderAddress]:
    """Change the prefix length of a host's PAs."""
    return _set(tx, PROVIDER_ADDRESSES, "provider-addresses", values, policy.put_provider_address)


def remove_provider_addresses(tx: Transaction, values: Given) -> list[HostProviderAddress]:
    """Take PAs from a host; not those of a VSID that it serves."""
    found = find(tx, PROVIDER_ADDRESSES, "provider-addresses", values)
    for item in found:
        if serves_subnet(tx, item.host, item.virtual_subnet_id):
            raise Conflict(
                f"host {item.host} has VMs of VSID {item.virtual_subnet_id}", "migrate or remove them first"
            )
        policy.drop_provider_address(tx, item)
        _event(tx, "provider-addresses", item.bare(), "removed", item.host)
    return found


def add_provider_route(tx: Transaction, order: HostProviderRoute) -> HostProviderRoute:
    """Give a host a route of the PA space."""
    _known_host(tx, order.host)
    checked = objects.convert("provider-routes", msgspec.structs.asdict(order.bare()))
    item = msgspec.convert({"host": order.host, **msgspec.structs.asdict(checked)}, HostProviderRoute)
    _refuse_present(tx, PROVIDER_ROUTES, "provider-routes", item)
    policy.put_provider_route(tx, item)
    _event(tx, "provider-routes", checked, "added", item.host)
    return item


def set_provider_routes(tx: Transaction, values: Given) -> list[HostProviderRoute]:
    """Change the metric of a host's routes."""
    return _set(tx, PROVIDER_ROUTES, "provider-routes", values, policy.put_provider_route)


def remove_provider_routes(tx: Transaction, values: Given) -> list[HostProviderRoute]:
    """Take routes from a host."""
    found = find(tx, PROVIDER_ROUTES, "provider-routes", values)
    for item in found:
        policy.drop_provider_route(tx, item)
        _event(tx, "provider-routes", item.bare(), "removed", item.host)
    return found


# ---- common -------------------------------------------------------------------------------


def _set(
    tx: Transaction, table: Table[T], kind: str, values: Given, put: Callable[[Transaction, T, T], None]
) -> list[T]:
    known = objects.KINDS[kind]
    found = find(tx, table, kind, values)
    new_values = objects.partial(kind, {name: values[name] for name in known.changeable if name in values})
    if not new_values:
        raise Malformed(f"{kind}: nothing to set", f"give at least one of {', '.join(known.changeable)}")
    changed = []
    for old in found:
        new = msgspec.structs.replace(old, **new_values)
        bare = new.bare() if isinstance(new, HostProviderAddress | HostProviderRoute) else new
        objects.checked(kind, bare)  # type: ignore[arg-type]  # a struct of the kind's table
        if new != old:
            put(tx, new, old)
            _event(tx, kind, bare, "changed", getattr(new, "host", ""))
        changed.append(new)
    return changed


def _event(tx: Transaction, kind: str, item: Struct, change: str, host: str = "") -> None:
    tx.event("policy", kind, host, change=change, **msgspec.structs.asdict(item))


def _known_host(reader: Reader, name: str) -> None:
    if not reader.get(HOSTS, name):
        raise Unusable(f"there is no host {name!r}", "register it first (POST /v1/hosts)")


def _refuse_present(reader: Reader, table: Table[T], kind: str, item: T) -> None:
    if reader.get(table, *table.key_of(item)):
        named = " ".join(map(str, table.key_of(item)))
        raise Conflict(f"{kind}: {named} is there already", "set its fields, or remove it first")
