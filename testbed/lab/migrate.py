"""Live migration: a VM goes to another host with its processes, addresses, MTU and connections.

The VM's devices stay where they are, in the VM; what moves are the queues by which a switch reads them. The
target is made ready first (docs/migration.md), so that the VM is unreachable only from the moment the
old switch lets go until every host knows where the VM is now.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import msgspec
from msgspec import Struct

from testbed.errors import LabError, TestbedError
from testbed.lab import store, vmm
from testbed.lab.lab import Lab
from testbed.lab.vms import known_vm
from testbed.lab.vnic import port_of
from testbed.signals import undisturbed
from testbed.topology.plan import VmPlan

PREPARE_SECONDS = 30.0
FOLLOW_SECONDS = 10.0


class Migrated(Struct, frozen=True):
    """Milliseconds of each phase. blackout: from the source's letting go until all hosts concerned know.

    without_switch: the part of it in which no switch read the VM's queues.
    """

    vm: str
    source: str
    target: str
    prepare: float = 0.0
    without_switch: float = 0.0
    blackout: float = 0.0


def migrate(lab: Lab, name: str, target: str) -> Migrated:
    """Move a VM. Raises BadInput, or LabError; then the VM is where it was."""
    vm = known_vm(lab, name)
    lab.check_host(target)
    client = lab.vmm()
    if vm.host == target:
        return Migrated(name, target, target)
    began = time.monotonic()
    client.post(f"/vms/{name}/migrate", {"host": target, "phase": "prepare"})
    try:
        _wait_ready(lab, vm, target)
    except BaseException:
        with undisturbed(), contextlib.suppress(TestbedError):
            client.post(f"/vms/{name}/migrate", {"host": target, "phase": "cancel"})
        raise
    prepared = time.monotonic()
    with undisturbed():  # from here on it is finished or undone
        left, arrived = _move_ports(lab, vm, target)
        known = _commit(lab, vm, target)
        moved = msgspec.structs.replace(vm, host=target)
        vms = tuple(moved if each.name == name else each for each in lab.plan.vms)
        lab.plan = msgspec.structs.replace(lab.plan, vms=vms)
        store.save_plan(lab.record.name, lab.plan)
    return Migrated(name, vm.host, target, _ms(prepared - began), _ms(arrived - left), _ms(known - left))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _wait_ready(lab: Lab, vm: VmPlan, target: str) -> None:
    """Until the target uses the PAs that the VMM gave it for the VM's virtual subnets.

    A host that is new to a network gets the network's policy together with them.
    """
    deadline = time.monotonic() + PREPARE_SECONDS
    vsids = {vnic.vsid for vnic in vm.vnics if vnic.vsid}
    given = lab.vmm().get("/provider-addresses", host=target)
    wanted = {
        (each["virtual_subnet_id"], each["provider_address"])
        for each in given
        if each["virtual_subnet_id"] in vsids
    }
    while True:
        states = {
            (each["vsid"], each["address"]): each["state"]
            for each in lab.ask(target, "status")["provider_addresses"]
        }
        waiting = sorted(pa for vsid, pa in wanted if states.get((vsid, pa)) != "Preferred")
        if not waiting:
            return
        if duplicate := [pa for vsid, pa in wanted if states.get((vsid, pa)) == "Duplicate"]:
            raise LabError(f"{target}: another machine has the provider address {', '.join(duplicate)}")
        if time.monotonic() > deadline:
            raise LabError(f"{target}: it does not use the provider address {', '.join(waiting)} yet")
        time.sleep(0.01)  # a poll with a deadline


def _move_ports(lab: Lab, vm: VmPlan, target: str) -> tuple[float, float]:
    """Hand all queues of a VM over; when the first was let go, and when the last was taken.

    What fails is undone, so far as the source host is there.
    """
    queues: dict[str, list[int]] = {}
    ports: dict[str, dict[str, Any]] = {}  # as they are: offloads may have been switched
    left = time.monotonic()
    try:
        for vnic in vm.vnics:
            told, queues[vnic.port] = lab.host(vm.host).call("hand-over-port", name=vnic.port)
            ports[vnic.port] = {**port_of(vnic), "offloads": told["port"]["offloads"]}
        for name, handed in queues.items():
            _attach(lab, target, ports[name], handed)
    except BaseException as error:
        with contextlib.suppress(TestbedError):
            _back(lab, vm, target, queues, ports)
            lab.vmm().post(f"/vms/{vm.name}/migrate", {"host": target, "phase": "cancel"})
        raise LabError(f"{vm.name} stays on {vm.host}: {error}") from error
    finally:
        for handed in queues.values():
            for queue in handed:
                os.close(queue)
    return left, time.monotonic()


def _attach(lab: Lab, host: str, port: dict[str, Any], queues: list[int]) -> None:
    lab.host(host).call("attach-port", queues, port=port, moved=True)


def _back(
    lab: Lab, vm: VmPlan, target: str, queues: dict[str, list[int]], ports: dict[str, dict[str, Any]]
) -> None:
    for name, handed in queues.items():
        with contextlib.suppress(TestbedError):
            lab.ask(target, "detach-port", name=name)
        _attach(lab, vm.host, ports[name], handed)


def _commit(lab: Lab, vm: VmPlan, target: str) -> float:
    """Have the VMM move the records; when the last of the hosts concerned has followed."""
    client = lab.vmm()
    view = client.post(f"/vms/{vm.name}/migrate", {"host": target})
    networks = {port["rdid"] for port in view["ports"]} - {""}
    hosts: list[dict[str, Any]] = client.get("/hosts")
    concerned = [
        host["name"] for host in hosts if host["watching"] and not networks.isdisjoint(host["networks"])
    ]
    vmm.wait_in_step(lab, concerned, time.monotonic() + FOLLOW_SECONDS, view["revision"])
    return time.monotonic()
