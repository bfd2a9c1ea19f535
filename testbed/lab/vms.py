"""VMs of a running lab, added, removed and given other addresses through the VMM, in one step each."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from testbed.errors import BadInput, LabError, TestbedError
from testbed.lab import build, store, vmm
from testbed.lab.lab import Lab
from testbed.signals import undisturbed
from testbed.topology.naming import vm_mtu
from testbed.topology.plan import Plan, SubnetPlan, VmPlan, VnicPlan

SETTLE_SECONDS = 30.0


def add(lab: Lab, name: str, host: str, vsid: int, addresses: Sequence[str], *, learn: bool) -> VmPlan:
    """A new VM with one adapter; without addresses it is given one of each family from the pools.

    ``learn``: it is to take its address by itself, so it gets none. Raises BadInput with the VMM's
    reason; what fails later is undone.
    """
    if name in lab.node_names():
        raise BadInput(f"{lab.record.name} has a node {name!r} already: choose another name")
    lab.check_host(host)
    network, subnet = _subnet(lab, vsid)
    families = sorted({ipaddress.ip_network(prefix).version for prefix in subnet.prefixes})
    adapter: dict[str, Any] = {"vsid": vsid, "addresses": list(addresses)}
    if not addresses and not learn:
        adapter["allocate"] = families
    view = lab.vmm().post("/vms", {"name": name, "host": host, "adapters": [adapter]})
    with _undone(lab, name):
        vm = VmPlan(name, host, (_vnic(lab, view["ports"][0], network, subnet),))
        _wait_for_host(lab, host)
        lab.plan = msgspec.structs.replace(lab.plan, vms=(*lab.plan.vms, vm))
        build.start_nodes(lab, [], [name])
        build.boot_vms(lab, [vm])
        build.wait_ready(lab, [vm])
        store.save_plan(lab.record.name, lab.plan)
    return vm


def remove(lab: Lab, name: str) -> None:
    """End a VM; its records and addresses go with it."""
    vm = known_vm(lab, name)
    lab.vmm().delete(f"/vms/{name}")
    with contextlib.suppress(LabError):  # the host is down: nothing to unplug
        for vnic in vm.vnics:
            lab.ask(vm.host, "detach-port", name=vnic.port)
    lab.forget(name)
    lab.engine.stop(lab.ref, [name])
    lab.plan = _without(lab, name)
    store.save_plan(lab.record.name, lab.plan)


def set_address(lab: Lab, name: str, interface: str, addresses: Sequence[str]) -> VmPlan:
    """Give a VM's adapter other addresses by policy, and the guest with it. Raises BadInput.

    Those of a family of which none is given stay.
    """
    from testbed.wiring import guest

    vm = known_vm(lab, name)
    vnic = next((each for each in vm.vnics if each.interface == interface), None)
    if vnic is None:
        known = ", ".join(each.interface for each in vm.vnics)
        raise BadInput(f"{name} has no adapter {interface!r}: one of {known}")
    old = [text.partition("/")[0] for text in vnic.addresses]
    wanted = [*map(_canonical, addresses), *_of_other_families(vnic.addresses, addresses)]
    client, path = lab.vmm(), f"/ports/{vnic.port}"
    # Old and new ones both, while the guest has the one or the other: what it uses and the policy does not
    # have would be learned, and take the place of what the policy has and it does not answer for.
    client.patch(path, {"addresses": [*wanted, *(each for each in old if each not in wanted)]})
    _, subnet = _subnet(lab, vnic.vsid)
    changed = msgspec.structs.replace(vnic, addresses=_with_lengths(wanted, subnet))
    try:
        guest.change_addresses(lab.netns(name), vnic, changed)
    except BaseException:
        client.patch(path, {"addresses": old})
        raise
    client.patch(path, {"addresses": wanted})
    new = msgspec.structs.replace(vm, vnics=tuple(changed if each is vnic else each for each in vm.vnics))
    vms = tuple(new if each is vm else each for each in lab.plan.vms)
    lab.plan = msgspec.structs.replace(lab.plan, vms=vms)
    store.save_plan(lab.record.name, lab.plan)
    guest.wait_until_settled(lab.netns(name), new, time.monotonic() + SETTLE_SECONDS)
    return new


def _canonical(text: str) -> str:
    """An address as it is written here; what is none is for the VMM to refuse."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _of_other_families(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """The old addresses, without their lengths, of families that the new ones do not have."""
    given = {":" in text for text in new}
    return [text.partition("/")[0] for text in old if (":" in text) not in given]


def _vnic(lab: Lab, port: dict[str, Any], network: str, subnet: SubnetPlan) -> VnicPlan:
    fabric = lab.plan.fabric
    version = ipaddress.ip_network(lab.plan.vmm.pa_pool).version if lab.plan.vmm else 4
    return VnicPlan(
        interface=port["interface"],
        port=port["port"],
        vsid=subnet.vsid,
        mac=port["mac"],
        mtu=vm_mtu(fabric.pa_mtu, version, subnet.vsid),
        network=network,
        addresses=_with_lengths(port["addresses"], subnet),
        gateways=subnet.gateways,
    )


def _with_lengths(addresses: Sequence[str], subnet: SubnetPlan) -> tuple[str, ...]:
    networks = [ipaddress.ip_network(prefix) for prefix in subnet.prefixes]
    return tuple(
        f"{text}/{network.prefixlen}"
        for text in addresses
        for network in networks
        if ipaddress.ip_address(text) in network
    )


def _subnet(lab: Lab, vsid: int) -> tuple[str, SubnetPlan]:
    """The network's name and the subnet. Raises BadInput."""
    known = {
        subnet.vsid: (network.name, subnet) for network in lab.plan.networks for subnet in network.subnets
    }
    if vsid not in known:
        raise BadInput(f"{lab.record.name} has no VSID {vsid}: one of {', '.join(map(str, known))}")
    return known[vsid]


def known_vm(lab: Lab, name: str) -> VmPlan:
    """The VM called ``name``. Raises BadInput."""
    try:
        return lab.plan.vm(name)
    except KeyError:
        known = ", ".join(vm.name for vm in lab.plan.vms) or "none"
        raise BadInput(f"{lab.record.name} has no VM {name!r}: one of {known}") from None


def _wait_for_host(lab: Lab, host: str) -> None:
    """Until the host has what the VMM told it of the VM's network; its PAs are waited for with the VM."""
    revision = lab.vmm().get("/status")["revision"]
    vmm.wait_in_step(lab, [host], time.monotonic() + SETTLE_SECONDS, revision)


def _without(lab: Lab, name: str) -> Plan:
    return msgspec.structs.replace(lab.plan, vms=tuple(vm for vm in lab.plan.vms if vm.name != name))


@contextlib.contextmanager
def _undone(lab: Lab, name: str) -> Iterator[None]:
    """Take back what is there of a new VM when the block fails, whatever the reason."""
    try:
        yield
    except BaseException:
        with undisturbed(), contextlib.suppress(TestbedError):
            remove(lab, name) if any(vm.name == name for vm in lab.plan.vms) else lab.vmm().delete(
                f"/vms/{name}"
            )
        raise
