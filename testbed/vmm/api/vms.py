"""Routes of VMs and their ports."""

from __future__ import annotations

import msgspec
from litestar import Router, delete, get, patch, post, put
from litestar.params import FromPath, FromQuery, JSONBody

from testbed.vmm.api.errors import errors
from testbed.vmm.api.parts import TheStore
from testbed.vmm.model import Converged, Migration, NewVm, PlanOrder, Port, PortChange, VmView
from testbed.vmm.rules import migration, placement
from testbed.vmm.rules.converge import converge
from testbed.vmm.store.tables import PORTS, PREPARATIONS, VMS


@get("/vms", responses=errors(), sync_to_thread=False)
def list_vms(store: TheStore, host: FromQuery[str | None] = None) -> list[VmView]:
    """All VMs, or those of one host."""
    where = {"host": host} if host is not None else {}
    ports: dict[str, list[Port]] = {}
    for port in store.select(PORTS, **where):
        ports.setdefault(port.vm, []).append(port)
    prepared = {each.vm: each.host for each in store.select(PREPARATIONS)}
    return [
        VmView(vm.name, vm.host, tuple(ports.get(vm.name, ())), prepared.get(vm.name))
        for vm in store.select(VMS, **where)
    ]


@post("/vms", responses=errors(409, 413, 422), sync_to_thread=False)
def place_vm(store: TheStore, data: JSONBody[NewVm]) -> VmView:
    """Place a VM on a host: addresses, records and PAs in one step."""
    with store.change() as tx:
        return placement.place(tx, data)


@get("/vms/{name:str}", responses=errors(404), sync_to_thread=False)
def get_vm(store: TheStore, name: FromPath[str]) -> VmView:
    """A VM and its ports."""
    return placement.view(store, placement.existing(store, name))


@delete("/vms/{name:str}", responses=errors(404), sync_to_thread=False)
def remove_vm(store: TheStore, name: FromPath[str]) -> None:
    """Remove a VM with its records and addresses."""
    with store.change() as tx:
        placement.remove(tx, name)


@post("/vms/{name:str}/migrate", status_code=200, responses=errors(404, 409, 413, 422), sync_to_thread=False)
def migrate_vm(store: TheStore, name: FromPath[str], data: JSONBody[Migration]) -> VmView:
    """Move a VM to another host, in one step or prepared: its records are Moved to that host's PAs."""
    with store.change() as tx:
        view = migration.migrate(tx, name, data)
    return msgspec.structs.replace(view, revision=store.revision)


@get("/ports", responses=errors(), sync_to_thread=False)
def list_ports(
    store: TheStore, host: FromQuery[str | None] = None, vsid: FromQuery[int | None] = None
) -> list[Port]:
    """All ports, or those of a host or a VSID."""
    where = {"host": host, "vsid": vsid}
    return store.select(PORTS, **{name: value for name, value in where.items() if value is not None})


@get("/ports/{port:str}", responses=errors(404), sync_to_thread=False)
def get_port(store: TheStore, port: FromPath[str]) -> Port:
    """A port by its name, such as blue1:eth0."""
    return placement.existing_port(store, port)


@patch("/ports/{port:str}", responses=errors(404, 409, 413, 422), sync_to_thread=False)
def change_port(store: TheStore, port: FromPath[str], data: JSONBody[PortChange]) -> Port:
    """Give a port other addresses, or another limit of learned ones."""
    with store.change() as tx:
        return placement.change_port(tx, port, data)


@put("/plan", responses=errors(409, 413, 422), sync_to_thread=False)
def follow_plan(store: TheStore, data: JSONBody[PlanOrder]) -> Converged:
    """Follow a changed Plan: networks, subnets, hosts and VMs, in one step."""
    with store.change() as tx:
        return converge(tx, data)


ROUTER = Router(
    "/",
    route_handlers=[
        list_vms,
        place_vm,
        get_vm,
        remove_vm,
        migrate_vm,
        list_ports,
        get_port,
        change_port,
        follow_plan,
    ],
    tags=["vms"],
)
