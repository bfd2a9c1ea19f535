"""What hosts and the VMM know of addresses that VMs take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.testing.waiting import until

if TYPE_CHECKING:
    from testbed.testing.host import Host
    from testbed.testing.lab import LiveLab
    from testbed.testing.vm import Vm

SECONDS = 15.0


def hosts(lab: LiveLab) -> list[Host]:
    """Those that report addresses of their VMs."""
    return [host for host in lab.hosts if host.is_r2 and host.plan.learning]


def concerned(lab: LiveLab, vm: Vm) -> list[Host]:
    """The hosts that have to know a VM's addresses: its own, and those with VMs of its network."""
    names = {each.host for each in lab.vms if each.network == vm.network}
    return [host for host in lab.hosts if host.name in names]


def records(lab: LiveLab, vm: Vm, address: str) -> dict[str, list[tuple[str, str, str]]]:
    """By host what it knows of an address of the VM's virtual subnet: type, MAC, PA."""
    return {
        host.name: [
            (each["type"], each["mac_address"], each["provider_address"])
            for each in host.lookup_records(vm.vsid, address)
        ]
        for host in concerned(lab, vm)
    }


def known_everywhere(lab: LiveLab, vm: Vm, address: str) -> None:
    """Wait until every host that has to knows a learned address: at this VM's MAC, and a PA of its host."""
    pas = lab.host(vm.host).provider_addresses(vm.vsid)
    wanted = [[("Dynamic", vm.mac, pa)] for pa in sorted(pas)]
    found: dict[str, list[tuple[str, str, str]]] = {}

    def known() -> bool:
        found.update(records(lab, vm, address))
        return all(each in wanted for each in found.values())

    try:
        until(known, f"{address} is known to be {vm}'s", SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}: {vm} on {vm.host} has {vm.mac}, PA {sorted(pas)}; {found}") from None


def forgotten_everywhere(lab: LiveLab, vm: Vm, address: str) -> None:
    """Wait until no host has a record of an address of the VM's virtual subnet."""
    until(
        lambda: not any(records(lab, vm, address).values()),
        f"no host has a record of {address}, which {vm} has given up",
        SECONDS,
    )
