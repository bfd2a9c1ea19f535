"""IP pools: which addresses are in use, and the lowest that is free.

A CA pool belongs to a subnet and a family, and knows every address of the subnet that a VM has; what
it gives out is its range. PA pools give every host one PA for each VSID it has VMs of.
"""

from __future__ import annotations

import ipaddress

from testbed.topology.plan import LookupRecord
from testbed.vmm.model import AddressRange, AddressState, NewPool, Pool, PoolAddress, Purpose
from testbed.vmm.refusals import Conflict, Missing, Unusable
from testbed.vmm.rules.addresses import Address, Prefix, bounds, parse_address, parse_prefix, within
from testbed.vmm.store.database import Reader, Transaction
from testbed.vmm.store.tables import LOOKUP_RECORDS, POOL_ADDRESSES, POOLS, position

GATEWAY = "default gateway"  # owner of the addresses of gateways


def ca_pool_name(vsid: int, version: int) -> str:
    """The name of a subnet's pool for one family."""
    return f"{vsid}-ipv{version}"


def ca_pool(reader: Reader, vsid: int, address: Address) -> Pool:
    """The pool that knows a CA of a subnet; the address lies in one of its prefixes."""
    return existing(reader, ca_pool_name(vsid, address.version))


def existing(reader: Reader, name: str) -> Pool:
    """The pool called ``name``."""
    if pool := reader.get(POOLS, name):
        return pool
    names = ", ".join(each.name for each in reader.select(POOLS)) or "none"
    raise Missing(f"there is no pool {name!r}", f"use one of: {names}")


def make_pool(
    tx: Transaction, name: str, purpose: Purpose, vsid: int, prefix: Prefix, part: AddressRange | None
) -> Pool:
    """A pool of a prefix; ``part`` limits what it gives out."""
    first, last = bounds(prefix)
    if part is not None:
        first = parse_address(f"{name}: first", part.first)
        last = parse_address(f"{name}: last", part.last)
        for address in (first, last):
            within(f"{name}: range", address, (str(prefix),))
        if int(first) > int(last):
            raise Unusable(f"{name}: the range ends before it begins", "give the lower address as first")
    pool = Pool(name, purpose, vsid, str(prefix), str(first), str(last))
    tx.put(POOLS, pool)
    return pool


def add_pa_pool(tx: Transaction, order: NewPool) -> Pool:
    """A new PA pool."""
    if tx.get(POOLS, order.name):
        raise Conflict(f"there is a pool {order.name} already", "choose another name")
    prefix = parse_prefix(f"pool {order.name}: prefix", order.prefix)
    if prefix.is_multicast or prefix.is_link_local or prefix.is_loopback:
        raise Unusable(
            f"pool {order.name}: {prefix} has no addresses of hosts", "give a prefix of the PA network"
        )
    for other in tx.select(POOLS, purpose="pa"):
        there = ipaddress.ip_network(other.prefix)
        if prefix.version != there.version:
            raise Unusable(
                f"pool {order.name}: the PA network has addresses of IPv{there.version}",
                "give a prefix of that family",
            )
        if prefix.overlaps(there):
            raise Conflict(f"pool {order.name}: {prefix} overlaps {other.name}", "give another prefix")
    return make_pool(tx, order.name, "pa", 0, prefix, order.range)


def remove_pool(tx: Transaction, name: str) -> None:
    """Remove a PA pool of which no address is in use."""
    pool = existing(tx, name)
    if pool.purpose == "ca":
        raise Conflict(f"pool {name} belongs to subnet {pool.vsid}", "remove the subnet")
    for item in tx.select(POOL_ADDRESSES, pool=name):
        if item.state != "released":
            raise Conflict(f"pool {name}: {item.address} is {item.owner}'s", "release it first")
    drop(tx, pool)


def drop(tx: Transaction, pool: Pool) -> None:
    """Remove a pool and what it knows."""
    for item in tx.select(POOL_ADDRESSES, pool=pool.name):
        tx.delete(POOL_ADDRESSES, item)
    tx.delete(POOLS, pool)


def order_allocation(tx: Transaction, name: str, owner: str) -> PoolAddress:
    """Have a pool give an address to an owner of any kind."""
    pool = existing(tx, name)
    address = allocate(tx, pool, owner)
    return PoolAddress(name, address, "allocated", owner, tx.revision)


def allocate(tx: Transaction, pool: Pool, owner: str) -> str:
    """The lowest free address, which is ``owner``'s from now on."""
    address = _lowest_free(tx, pool) or _longest_released(tx, pool)
    if address is None:
        raise Conflict(
            f"pool {pool.name} is exhausted: all of {pool.first} to {pool.last} is in use",
            "release an address, or use a larger prefix",
        )
    mark(tx, pool, address, "allocated", owner)
    return address


def reserve(tx: Transaction, pool: Pool, text: str, owner: str) -> PoolAddress:
    """Keep a free address from being given out."""
    place = f"pool {pool.name}"
    address = parse_address(place, text)
    within(place, address, (pool.prefix,))
    refuse_taken(tx, pool, address, "")
    return mark(tx, pool, str(address), "reserved", owner)


def release(tx: Transaction, pool: Pool, text: str) -> None:
    """Free an address that nobody uses."""
    address = str(parse_address(f"pool {pool.name}", text))
    item = tx.get(POOL_ADDRESSES, pool.name, address)
    if item is None or item.state == "released":
        raise Missing(f"pool {pool.name}: {address} is free", "release only what was allocated or reserved")
    if item.owner == GATEWAY:
        raise Conflict(f"pool {pool.name}: {address} is the default gateway", "leave it")
    if in_policy(tx, pool, address):
        remedy = "take the address from the VM, or remove its record"
        raise Conflict(f"pool {pool.name}: {address} is in use by {item.owner}", remedy)
    forget(tx, pool, address)


def take(tx: Transaction, pool: Pool, address: Address, owner: str) -> None:
    """Have ``owner`` use an address that is free, or promised to it."""
    refuse_taken(tx, pool, address, owner)
    mark(tx, pool, str(address), "allocated", owner)


def refuse_taken(reader: Reader, pool: Pool, address: Address, owner: str) -> None:
    """Raise Conflict unless the address is free, or ``owner`` has it already."""
    item = reader.get(POOL_ADDRESSES, pool.name, str(address))
    if item is not None and item.state != "released" and item.owner != owner:
        raise Conflict(f"{address} is {item.state} already, for {item.owner}", "choose another address")
    if item is None and in_policy(reader, pool, str(address)):
        raise Conflict(f"{address} has a policy object already", "choose another address")


def mark(tx: Transaction, pool: Pool, address: str, state: AddressState, owner: str) -> PoolAddress:
    """Note who has an address."""
    item = PoolAddress(pool.name, address, state, owner, tx.revision)
    tx.put(POOL_ADDRESSES, item)
    return item


def forget(tx: Transaction, pool: Pool, address: str) -> None:
    """An address is free again: a CA at once, a PA after all that were never used."""
    item = tx.get(POOL_ADDRESSES, pool.name, address)
    if item is None:
        return
    if pool.purpose == "pa":
        mark(tx, pool, address, "released", item.owner)
    else:
        tx.delete(POOL_ADDRESSES, item)


def in_policy(reader: Reader, pool: Pool, address: str) -> bool:
    """Whether a policy object has the address: of the subnet's records, or of any host's PAs."""
    if pool.purpose == "pa":
        query = "SELECT EXISTS (SELECT 1 FROM provider_addresses WHERE provider_address = ?)"
        return bool(reader.connection.execute(query, [address]).fetchone()[0])
    return reader.exists(LOOKUP_RECORDS, virtual_subnet_id=pool.vsid, customer_address=address)


def of_record(reader: Reader, record: LookupRecord) -> Pool | None:
    """The pool that knows a record's CA, if there is one."""
    version = ipaddress.ip_address(record.customer_address).version
    pool = reader.get(POOLS, ca_pool_name(record.virtual_subnet_id, version))
    known = pool and ipaddress.ip_address(record.customer_address) in ipaddress.ip_network(pool.prefix)
    return pool if known else None


def pa_pool_of(reader: Reader, address: str) -> Pool | None:
    """The PA pool in which an address lies."""
    for pool in reader.select(POOLS, purpose="pa"):
        if ipaddress.ip_address(address) in ipaddress.ip_network(pool.prefix):
            return pool
    return None


def pa_version(reader: Reader) -> int:
    """The family of the PA network; 4 as long as there is no PA pool."""
    for pool in reader.select(POOLS, purpose="pa"):
        return ipaddress.ip_network(pool.prefix).version
    return 4


def a_pa_pool(reader: Reader) -> list[Pool]:
    """All PA pools. Raises Conflict when there are none."""
    if pools := reader.select(POOLS, purpose="pa"):
        return pools
    raise Conflict("there is no PA pool", "add one first (POST /v1/pools)")


def _lowest_free(tx: Transaction, pool: Pool) -> str | None:
    query = "SELECT position FROM pool_addresses WHERE pool = ? AND position >= ? ORDER BY position"
    rows = tx.connection.execute(query, [pool.name, position(pool.first)])
    taken = rows.fetchone()
    make = type(ipaddress.ip_address(pool.first))
    candidate, last = int(ipaddress.ip_address(pool.first)), int(ipaddress.ip_address(pool.last))
    while candidate <= last:
        if taken is not None and int.from_bytes(taken[0], "big") == candidate:
            taken = rows.fetchone()
        elif not in_policy(tx, pool, address := str(make(candidate))):
            return address
        candidate += 1
    return None


def _longest_released(tx: Transaction, pool: Pool) -> str | None:
    query = (
        "SELECT address FROM pool_addresses WHERE pool = ? AND state = 'released' "
        "AND position BETWEEN ? AND ? ORDER BY revision, position LIMIT 1"
    )
    row = tx.connection.execute(query, [pool.name, position(pool.first), position(pool.last)]).fetchone()
    return None if row is None else str(row[0])
