"""Routes of networks, subnets and pools."""

from __future__ import annotations

from litestar import Router, delete, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Struct

from testbed.vmm.api.errors import errors
from testbed.vmm.api.parts import TheStore
from testbed.vmm.model import (
    Allocation,
    Network,
    NewNetwork,
    NewPool,
    NewSubnet,
    Pool,
    PoolAddress,
    Release,
    Reservation,
    Subnet,
)
from testbed.vmm.rules import networks, pools
from testbed.vmm.store.tables import NETWORKS, POOL_ADDRESSES, POOLS, SUBNETS


class PoolView(Struct, frozen=True):
    """A pool and its addresses that are not free."""

    pool: Pool
    addresses: tuple[PoolAddress, ...]


@get("/networks", responses=errors(), sync_to_thread=False)
def list_networks(store: TheStore) -> list[Network]:
    """All VM networks."""
    return store.select(NETWORKS)


@post("/networks", responses=errors(409, 413, 422), sync_to_thread=False)
def add_network(store: TheStore, data: JSONBody[NewNetwork]) -> Network:
    """Add a VM network."""
    with store.change() as tx:
        return networks.add_network(tx, data)


@get("/networks/{rdid:str}", responses=errors(404), sync_to_thread=False)
def get_network(store: TheStore, rdid: FromPath[str]) -> Network:
    """A VM network by its RDID, in braces or not."""
    return networks.network_of(store, rdid)


@delete("/networks/{rdid:str}", responses=errors(404, 409), sync_to_thread=False)
def remove_network(store: TheStore, rdid: FromPath[str]) -> None:
    """Remove a VM network without subnets."""
    with store.change() as tx:
        networks.remove_network(tx, rdid)


@get("/subnets", responses=errors(), sync_to_thread=False)
def list_subnets(store: TheStore) -> list[Subnet]:
    """All virtual subnets."""
    return store.select(SUBNETS)


@post("/subnets", responses=errors(409, 413, 422), sync_to_thread=False)
def add_subnet(store: TheStore, data: JSONBody[NewSubnet]) -> Subnet:
    """Add a virtual subnet with its pools, gateways' records and on-link routes."""
    with store.change() as tx:
        return networks.add_subnet(tx, data)


@get("/subnets/{vsid:int}", responses=errors(404), sync_to_thread=False)
def get_subnet(store: TheStore, vsid: FromPath[int]) -> Subnet:
    """A virtual subnet by its VSID."""
    return networks.existing_subnet(store, vsid)


@delete("/subnets/{vsid:int}", responses=errors(404, 409), sync_to_thread=False)
def remove_subnet(store: TheStore, vsid: FromPath[int]) -> None:
    """Remove a virtual subnet without adapters."""
    with store.change() as tx:
        networks.remove_subnet(tx, vsid)


@get("/pools", responses=errors(), sync_to_thread=False)
def list_pools(store: TheStore) -> list[Pool]:
    """All IP pools: CA pools are called VSID-ipv4 and VSID-ipv6."""
    return store.select(POOLS)


@post("/pools", responses=errors(409, 413, 422), sync_to_thread=False)
def add_pool(store: TheStore, data: JSONBody[NewPool]) -> Pool:
    """Add a PA pool."""
    with store.change() as tx:
        return pools.add_pa_pool(tx, data)


@get("/pools/{name:str}", responses=errors(404), sync_to_thread=False)
def get_pool(store: TheStore, name: FromPath[str]) -> PoolView:
    """A pool and its addresses that are not free."""
    pool = pools.existing(store, name)
    return PoolView(pool, tuple(store.select(POOL_ADDRESSES, pool=name)))


@delete("/pools/{name:str}", responses=errors(404, 409), sync_to_thread=False)
def remove_pool(store: TheStore, name: FromPath[str]) -> None:
    """Remove a PA pool of which no address is in use."""
    with store.change() as tx:
        pools.remove_pool(tx, name)


@post("/pools/{name:str}/allocate", responses=errors(404, 409, 413), sync_to_thread=False)
def allocate(store: TheStore, name: FromPath[str], data: JSONBody[Allocation]) -> PoolAddress:
    """Take the lowest free address."""
    with store.change() as tx:
        return pools.order_allocation(tx, name, data.owner)


@post("/pools/{name:str}/reserve", responses=errors(404, 409, 413, 422), sync_to_thread=False)
def reserve(store: TheStore, name: FromPath[str], data: JSONBody[Reservation]) -> PoolAddress:
    """Keep a free address from being given out."""
    with store.change() as tx:
        return pools.reserve(tx, pools.existing(tx, name), data.address, data.owner)


@post("/pools/{name:str}/release", status_code=204, responses=errors(404, 409, 413), sync_to_thread=False)
def release(store: TheStore, name: FromPath[str], data: JSONBody[Release]) -> None:
    """Free an address that nothing uses."""
    with store.change() as tx:
        pools.release(tx, pools.existing(tx, name), data.address)


ROUTER = Router(
    "/",
    route_handlers=[
        list_networks,
        add_network,
        get_network,
        remove_network,
        list_subnets,
        add_subnet,
        get_subnet,
        remove_subnet,
        list_pools,
        add_pool,
        get_pool,
        remove_pool,
        allocate,
        reserve,
        release,
    ],
    tags=["networks"],
)
