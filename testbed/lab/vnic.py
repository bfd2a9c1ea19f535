"""Adapters of VMs of a running lab: what they offload is shown and switched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from testbed.errors import BadInput
from testbed.lab.lab import Lab
from testbed.namespaces import in_netns
from testbed.nic.guest import GuestOffloads
from testbed.topology.plan import VmPlan, VnicPlan


def show(lab: Lab, port: str) -> dict[str, Any]:
    """{"host", "port", "virtual_subnet_id", "offloads": {"supported", "enabled"}}.

    Raises BadInput, LabError.
    """
    vm, _ = find(lab, port)
    return _described(vm.host, lab.ask(vm.host, "set-vnic", name=port, offloads={})["port"])


def change(lab: Lab, port: str, offloads: Mapping[str, bool]) -> dict[str, Any]:
    """Switch tasks of a VM's adapter, for all packets that come after; as :func:`show` afterwards.

    The receive side is the switch's doing, the transmit side a setting of the adapter in the guest. What is
    refused changes nothing, and packets that were accepted are not lost. Raises BadInput, LabError.
    """
    from testbed.nic.features import adapter_features, set_features

    vm, vnic = find(lab, port)
    now = msgspec.convert(show(lab, port)["offloads"], GuestOffloads).changed(offloads).in_use
    if not {"lso", "tx-checksum"}.isdisjoint(offloads):
        with in_netns(lab.netns(vm.name)):
            set_features(vnic.interface, adapter_features(lso=now.lso, checksum=now.tx_checksum))
    return _described(vm.host, lab.ask(vm.host, "set-vnic", name=port, offloads=dict(offloads))["port"])


def find(lab: Lab, port: str) -> tuple[VmPlan, VnicPlan]:
    """The VM and its adapter by the name of the port. Raises BadInput."""
    ports = {vnic.port: (vm, vnic) for vm in lab.plan.vms for vnic in vm.vnics}
    if port not in ports:
        raise BadInput(f"{lab.record.name} has no port {port!r}: one of {', '.join(ports) or 'none'}")
    return ports[port]


def port_of(vnic: VnicPlan) -> dict[str, Any]:
    """What a host is told of an adapter that is plugged into its switch."""
    offloads = msgspec.to_builtins(vnic.offloads)
    return {"name": vnic.port, "mac": vnic.mac, "vsid": vnic.vsid, "offloads": offloads}


def _described(host: str, port: dict[str, Any]) -> dict[str, Any]:
    return {
        "host": host,
        "port": port["name"],
        "virtual_subnet_id": port["vsid"],
        "offloads": port["offloads"],
    }
