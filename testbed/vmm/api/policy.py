"""Routes of single policy objects: add, set, remove, list, as the NetWNV cmdlets do.

PATCH and DELETE take parts of a key and mean all objects that have them.
"""

from __future__ import annotations

from litestar import Router, delete, get, patch, post
from litestar.params import FromQuery, JSONBody

from testbed.topology.plan import CustomerRoute, LookupRecord
from testbed.vmm.api.errors import errors
from testbed.vmm.api.parts import TheStore
from testbed.vmm.model import (
    CustomerRouteChange,
    HostProviderAddress,
    HostProviderRoute,
    LookupRecordChange,
    NewCustomerRoute,
    NewLookupRecord,
    ProviderAddressChange,
    ProviderRouteChange,
)
from testbed.vmm.rules import orders
from testbed.vmm.store.tables import CUSTOMER_ROUTES, LOOKUP_RECORDS, PROVIDER_ADDRESSES, PROVIDER_ROUTES

# ---- lookup records ----


@get("/lookup-records", responses=errors(), sync_to_thread=False)
def list_lookup_records(
    store: TheStore, virtual_subnet_id: FromQuery[int | None] = None
) -> list[LookupRecord]:
    """All lookup records, or those of a VSID."""
    where = {"virtual_subnet_id": virtual_subnet_id} if virtual_subnet_id is not None else {}
    return store.select(LOOKUP_RECORDS, **where)


@post("/lookup-records", responses=errors(409, 413, 422), sync_to_thread=False)
def add_lookup_record(store: TheStore, data: JSONBody[NewLookupRecord]) -> LookupRecord:
    """Add a lookup record."""
    with store.change() as tx:
        return orders.add_record(tx, data)


@patch("/lookup-records", responses=errors(404, 409, 413, 422), sync_to_thread=False)
def set_lookup_records(store: TheStore, data: JSONBody[LookupRecordChange]) -> list[LookupRecord]:
    """Change all lookup records that are meant; the answer has them as they are now."""
    with store.change() as tx:
        return orders.set_records(tx, orders.given(data))


@delete("/lookup-records", status_code=200, responses=errors(404, 409, 422), sync_to_thread=False)
def remove_lookup_records(
    store: TheStore,
    customer_address: FromQuery[str | None] = None,
    virtual_subnet_id: FromQuery[int | None] = None,
    mac_address: FromQuery[str | None] = None,
) -> list[LookupRecord]:
    """Remove all lookup records that are meant; the answer has them as they were."""
    values = {
        "customer_address": customer_address,
        "virtual_subnet_id": virtual_subnet_id,
        "mac_address": mac_address,
    }
    with store.change() as tx:
        return orders.remove_records(tx, orders.stated(values))


# ---- customer routes ----


@get("/customer-routes", responses=errors(), sync_to_thread=False)
def list_customer_routes(
    store: TheStore, virtual_subnet_id: FromQuery[int | None] = None
) -> list[CustomerRoute]:
    """All customer routes, or those of a VSID."""
    where = {"virtual_subnet_id": virtual_subnet_id} if virtual_subnet_id is not None else {}
    return store.select(CUSTOMER_ROUTES, **where)


@post("/customer-routes", responses=errors(409, 413, 422), sync_to_thread=False)
def add_customer_route(store: TheStore, data: JSONBody[NewCustomerRoute]) -> CustomerRoute:
    """Add a customer route."""
    with store.change() as tx:
        return orders.add_customer_route(tx, data)


@patch("/customer-routes", responses=errors(404, 409, 413, 422), sync_to_thread=False)
def set_customer_routes(store: TheStore, data: JSONBody[CustomerRouteChange]) -> list[CustomerRoute]:
    """Change all customer routes that are meant; the answer has them as they are now."""
    with store.change() as tx:
        return orders.set_customer_routes(tx, orders.given(data))


@delete("/customer-routes", status_code=200, responses=errors(404, 409, 422), sync_to_thread=False)
def remove_customer_routes(
    store: TheStore,
    routing_domain_id: FromQuery[str | None] = None,
    virtual_subnet_id: FromQuery[int | None] = None,
    destination_prefix: FromQuery[str | None] = None,
    next_hop: FromQuery[str | None] = None,
) -> list[CustomerRoute]:
    """Remove all customer routes that are meant; the answer has them as they were."""
    values = {
        "routing_domain_id": routing_domain_id,
        "virtual_subnet_id": virtual_subnet_id,
        "destination_prefix": destination_prefix,
        "next_hop": next_hop,
    }
    with store.change() as tx:
        return orders.remove_customer_routes(tx, orders.stated(values))


# ---- PAs ----


@get("/provider-addresses", responses=errors(), sync_to_thread=False)
def list_provider_addresses(store: TheStore, host: FromQuery[str | None] = None) -> list[HostProviderAddress]:
    """All PAs, or those of a host."""
    where = {"host": host} if host is not None else {}
    return store.select(PROVIDER_ADDRESSES, **where)


@post("/provider-addresses", responses=errors(409, 413, 422), sync_to_thread=False)
def add_provider_address(store: TheStore, data: JSONBody[HostProviderAddress]) -> HostProviderAddress:
    """Add a PA."""
    with store.change() as tx:
        return orders.add_provider_address(tx, data)


@patch("/provider-addresses", responses=errors(404, 409, 413, 422), sync_to_thread=False)
def set_provider_addresses(
    store: TheStore, data: JSONBody[ProviderAddressChange]
) -> list[HostProviderAddress]:
    """Change all PAs that are meant; the answer has them as they are now."""
    with store.change() as tx:
        return orders.set_provider_addresses(tx, orders.given(data))


@delete("/provider-addresses", status_code=200, responses=errors(404, 409, 422), sync_to_thread=False)
def remove_provider_addresses(
    store: TheStore,
    host: FromQuery[str],
    provider_address: FromQuery[str | None] = None,
    virtual_subnet_id: FromQuery[int | None] = None,
) -> list[HostProviderAddress]:
    """Remove all PAs that are meant; the answer has them as they were."""
    values = {"host": host, "provider_address": provider_address, "virtual_subnet_id": virtual_subnet_id}
    with store.change() as tx:
        return orders.remove_provider_addresses(tx, orders.stated(values))


# ---- routes of the PA space ----


@get("/provider-routes", responses=errors(), sync_to_thread=False)
def list_provider_routes(store: TheStore, host: FromQuery[str | None] = None) -> list[HostProviderRoute]:
    """All routes of the PA space, or those of a host."""
    where = {"host": host} if host is not None else {}
    return store.select(PROVIDER_ROUTES, **where)


@post("/provider-routes", responses=errors(409, 413, 422), sync_to_thread=False)
def add_provider_route(store: TheStore, data: JSONBody[HostProviderRoute]) -> HostProviderRoute:
    """Add a route of the PA space."""
    with store.change() as tx:
        return orders.add_provider_route(tx, data)


@patch("/provider-routes", responses=errors(404, 409, 413, 422), sync_to_thread=False)
def set_provider_routes(store: TheStore, data: JSONBody[ProviderRouteChange]) -> list[HostProviderRoute]:
    """Change all routes of the PA space that are meant; the answer has them as they are now."""
    with store.change() as tx:
        return orders.set_provider_routes(tx, orders.given(data))


@delete("/provider-routes", status_code=200, responses=errors(404, 409, 422), sync_to_thread=False)
def remove_provider_routes(
    store: TheStore,
    host: FromQuery[str],
    destination_prefix: FromQuery[str | None] = None,
    next_hop: FromQuery[str | None] = None,
) -> list[HostProviderRoute]:
    """Remove all routes of the PA space that are meant; the answer has them as they were."""
    values = {"host": host, "destination_prefix": destination_prefix, "next_hop": next_hop}
    with store.change() as tx:
        return orders.remove_provider_routes(tx, orders.stated(values))


ROUTER = Router(
    "/",
    route_handlers=[
        list_lookup_records,
        add_lookup_record,
        set_lookup_records,
        remove_lookup_records,
        list_customer_routes,
        add_customer_route,
        set_customer_routes,
        remove_customer_routes,
        list_provider_addresses,
        add_provider_address,
        set_provider_addresses,
        remove_provider_addresses,
        list_provider_routes,
        add_provider_route,
        set_provider_routes,
        remove_provider_routes,
    ],
    tags=["policy"],
)
