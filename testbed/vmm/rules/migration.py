"""Moving a VM to another host, in one step or in two.

``prepare`` has the target told of the VM's networks and given its PAs, so that it is ready when the VM
comes; ``commit`` moves the records; ``cancel`` takes the preparation back.
"""

from __future__ import annotations

import msgspec

from testbed.topology.plan import LookupRecord
from testbed.vmm.model import Migration, Preparation, Vm, VmView
from testbed.vmm.refusals import Conflict, Malformed
from testbed.vmm.rules import placement, policy
from testbed.vmm.rules.served import serves_network
from testbed.vmm.store.database import Transaction
from testbed.vmm.store.tables import LEARNED, PORTS, PREPARATIONS, PROVIDER_ADDRESSES, VMS


def migrate(tx: Transaction, name: str, order: Migration) -> VmView:
    """Do what a phase asks for. Raises Refused."""
    vm = placement.existing(tx, name)
    if order.phase == "cancel":
        return _cancel(tx, vm, order.host)
    if order.host is None:
        raise Malformed(f"migration of {name}: it is not said where to", "give host")
    placement.known_host(tx, order.host)
    return _prepare(tx, vm, order.host) if order.phase == "prepare" else commit(tx, vm, order.host)


def commit(tx: Transaction, vm: Vm, target: str) -> VmView:
    """Move a VM: its records name the target's PAs from now on. Any preparation of it is over."""
    if target == vm.host:
        placement.drop_preparation(tx, vm.name)
        return placement.view(tx, vm)
    moved = Vm(vm.name, target)
    tx.put(VMS, moved)
    for port in tx.select(PORTS, vm=vm.name):
        there = msgspec.structs.replace(port, host=target)
        if port.vsid:
            before = tx.get(PROVIDER_ADDRESSES, port.host, port.vsid)
            after = placement.plug(tx, there)
            for record in policy.records_of_mac(tx, port.vsid, port.mac):
                # others stay: what is not encapsulated names an outside address, not a host's PA
                if before and record.provider_address == before.provider_address:
                    move_record(tx, record, after, target)
        else:
            tx.put(PORTS, there)
        placement.left(tx, port.host, port)
    placement.drop_preparation(tx, vm.name)
    tx.event("vm", vm.name, target, change="migrated", source=vm.host)
    return placement.view(tx, moved)


def move_record(tx: Transaction, record: LookupRecord, pa: str, host: str) -> None:
    """Have a record name another PA, of the host on which its VM is now."""
    moved = msgspec.structs.replace(record, provider_address=pa)
    policy.put_record(tx, moved, record)
    policy.address_event(tx, "Moved", moved, host)
    key = record.virtual_subnet_id, record.customer_address, record.mac_address
    if learned := tx.get(LEARNED, *key):
        tx.put(LEARNED, msgspec.structs.replace(learned, host=host))


def _prepare(tx: Transaction, vm: Vm, target: str) -> VmView:
    if target == vm.host:
        raise Conflict(f"VM {vm.name} is on host {target} already", "choose another host")
    there = tx.get(PREPARATIONS, vm.name)
    if there is not None and there.host == target:
        return placement.view(tx, vm)
    placement.drop_preparation(tx, vm.name)
    for port in tx.select(PORTS, vm=vm.name):
        if port.vsid:
            if not serves_network(tx, target, port.rdid):
                tx.reset(target)
            policy.provider_address(tx, target, port.vsid)
    tx.put(PREPARATIONS, Preparation(vm.name, target))
    tx.event("vm", vm.name, target, change="prepared", source=vm.host)
    return placement.view(tx, vm)


def _cancel(tx: Transaction, vm: Vm, target: str | None) -> VmView:
    """target: only a preparation for that host; a late order doesn't end one for another."""
    there = tx.get(PREPARATIONS, vm.name)
    if there is not None and target in (None, there.host):
        placement.drop_preparation(tx, vm.name)
        tx.event("vm", vm.name, there.host, change="cancelled", source=vm.host)
    return placement.view(tx, vm)
