"""What a bench switches on a running lab while it measures; all of it is put back, however that ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from testbed.errors import BadInput
from testbed.lab import nic as nics
from testbed.lab.lab import FABRIC, Lab
from testbed.namespaces import in_netns
from testbed.nic.features import guest_features, set_features
from testbed.nic.offloads import Offloads
from testbed.topology.plan import CablePlan, VmPlan
from testbed.topology.schema import Wire


def offloads_of(text: str) -> Offloads:
    """Of a NIC as plans write it: "modern", or "modern,nvgre=off" with tasks switched. Raises BadInput."""
    from testbed.topology.profiles import Profiles
    from testbed.topology.schema import Nic

    profile, *switches = text.split(",")
    wanted = {}
    for switch in switches:
        task, _, value = switch.partition("=")
        if value not in ("on", "off"):
            raise BadInput(f"NIC {text!r}: write it like modern,nvgre=off")
        wanted[task] = value == "on"
    try:
        return Profiles(Path.cwd()).offloads(Nic(name="nic", profile=profile)).changed(wanted)
    except BadInput as error:
        raise BadInput(f"NIC {text!r}: {error}") from None


@contextlib.contextmanager
def of_nics(lab: Lab, hosts: set[str], profile: str | None) -> Iterator[bool]:
    """The NICs of some hosts are of a profile meanwhile. Whether they join what comes encapsulated."""
    if profile is None:
        yield all(
            {"nvgre", "rsc", "nvgre-rsc"} <= {*each["offloads"]["enabled"]}
            for host in hosts
            for each in nics.show(lab, host)
        )
        return
    wanted = offloads_of(profile)
    before = [
        (host, nic["name"], msgspec.convert(nic["offloads"], Offloads))
        for host in sorted(hosts)
        for nic in nics.show(lab, host)
    ]
    try:
        for host, name, _ in before:
            nics.replace(lab, host, name, wanted)
        yield wanted.nvgre.rsc
    finally:
        for host, name, offloads in before:
            nics.replace(lab, host, name, offloads)


@contextlib.contextmanager
def of_guests(lab: Lab, vms: tuple[VmPlan, ...], lso: bool | None) -> Iterator[bool]:
    """Whether the VMs may hand over super-packets meanwhile."""
    planned = all(vm.vnics[0].offloads.in_use.lso for vm in vms)
    if lso is None:
        yield planned
        return
    try:
        for vm in vms:
            with in_netns(lab.netns(vm.name)):
                set_features(vm.vnics[0].interface, guest_features(lso=lso))
        yield lso
    finally:
        for vm in vms:
            with in_netns(lab.netns(vm.name)):
                set_features(vm.vnics[0].interface, guest_features(lso=vm.vnics[0].offloads.in_use.lso))


@contextlib.contextmanager
def of_wire(lab: Lab, client: VmPlan, server: VmPlan, wire: Wire | None) -> Iterator[Wire]:
    """The wire of the cables while measuring; afterwards they are what they were."""
    from testbed.wiring.fabric import Wiring

    on_path = [cable for cable in lab.plan.fabric.cables if cable.host in (client.host, server.host)]
    planned = _wire_of(on_path)
    if wire is None or not on_path:
        yield planned
        return
    wiring = Wiring(lab.netns(FABRIC), {cable.host: lab.netns(cable.host) for cable in on_path})
    try:
        for cable in on_path:
            wiring.set_wire(cable, wire, nics.enabled(lab, cable))
        yield wire
    finally:
        for cable in on_path:
            wiring.set_wire(cable, cable.wire, nics.enabled(lab, cable))


def _wire_of(cables: list[CablePlan]) -> Wire:
    return "frames" if not cables or any(cable.wire == "frames" for cable in cables) else "aggregated"
