"""Change a running lab into what a topology file says, leaving alone what stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from testbed.errors import BadInput
from testbed.lab import build, first_commands, link, nic, store, team, vmm
from testbed.lab.build import Progress
from testbed.lab.lab import FABRIC, Lab
from testbed.lab.policy import drifted
from testbed.topology.diff import PlanDiff, diff, trunk_name
from testbed.topology.plan import CablePlan, Plan, SwitchPlan, TrunkPlan

if TYPE_CHECKING:
    from testbed.wiring.fabric import Wiring


def describe(changes: PlanDiff) -> dict[str, Any]:
    """The differences as plain data: {"hosts": {"added", "removed", "changed"}, ..., "policy"}."""
    described: dict[str, Any] = msgspec.to_builtins(changes)
    return described


def changes_to(lab: Lab, new: Plan) -> PlanDiff:
    """What has to be done to the running lab; a policy that was changed by hand counts as different.

    Where there is a VMM, that knows what its hosts are to have: theirs differs if it is not in step.
    """
    if (lab.plan.vmm is None) != (new.vmm is None):
        raise BadInput("a VMM can't be added to a running lab, nor removed: `testbed down` and `up` do it")
    changes = diff(lab.plan, new)
    if new.vmm is not None:
        changes = msgspec.structs.replace(changes, policy=())
    staying = {host.name for host in new.hosts} - {*changes.hosts.added, *changes.hosts.changed}
    policy = {*changes.policy, *drifted(lab, staying)}
    return msgspec.structs.replace(changes, policy=tuple(h.name for h in new.hosts if h.name in policy))


def apply(lab: Lab, new: Plan, progress: Progress) -> PlanDiff:
    """Make the running lab what ``new`` says; ``new`` was built with the lab's Plan as its previous.

    What can be refused is refused before anything is touched. Raises LabError.
    """
    changes = changes_to(lab, new)
    if changes:
        carry_out(lab, new, changes, progress)
    return changes


def carry_out(lab: Lab, new: Plan, changes: PlanDiff, progress: Progress, *, save: bool = True) -> None:
    """Make the changes that lead to ``new``. Raises LabError; the lab then is half of either.

    ``save``: as soon as anything of ``new`` may exist it is the Plan on record.
    """
    from testbed.wiring.errors import translated

    with translated(f"change {lab.record.name}"):
        progress("removing")
        _remove(lab, changes)
        if new.vmm is not None:
            vmm.converge(lab, new, changes.vms.changed)
        lab.plan = new
        if save:  # from here on `down` and a second `apply` know what may exist
            store.save_plan(lab.record.name, new)
        progress("adding")
        _add(lab, changes)
    progress("ready")
    build.wait_ready(lab, new.vms)
    fresh = {*changes.vms.added, *changes.vms.changed}
    first_commands.run(lab, [vm for vm in new.vms if vm.name in fresh])


def _remove(lab: Lab, changes: PlanDiff) -> None:
    from testbed.wiring import management
    from testbed.wiring.fabric import Wiring

    hosts = {*changes.hosts.removed, *changes.hosts.changed}
    vms = {*changes.vms.removed, *changes.vms.changed}
    for vm in lab.plan.vms:
        if vm.name in vms and vm.host not in hosts:
            for vnic in vm.vnics:
                lab.ask(vm.host, "detach-port", name=vnic.port)
    fabric = lab.plan.fabric
    team.uninstall(lab, hosts | _hosts_of({*changes.cables.removed, *changes.cables.changed}))
    Wiring(lab.netns(FABRIC), {}).remove(
        _named_switches(fabric.switches, {*changes.switches.removed, *changes.switches.changed}),
        _named_cables(fabric.cables, {*changes.cables.removed, *changes.cables.changed}),
        _named_trunks(fabric.trunks, {*changes.trunks.removed, *changes.trunks.changed}),
    )
    if lab.plan.vmm:
        management.remove(lab.netns(FABRIC), hosts, lab.plan.vmm)
    gone = sorted(hosts | vms)
    for name in gone:
        lab.forget(name)
    lab.engine.stop(lab.ref, gone)


def _add(lab: Lab, changes: PlanDiff) -> None:
    from testbed.wiring import management
    from testbed.wiring.fabric import Wiring

    plan, fabric = lab.plan, lab.plan.fabric
    hosts = [*changes.hosts.added, *changes.hosts.changed]
    vms = [*changes.vms.added, *changes.vms.changed]
    build.start_nodes(lab, hosts, vms)
    if plan.vmm:
        management.add(lab.netns(FABRIC), {name: lab.netns(name) for name in hosts}, plan.vmm, bridge=False)
    wiring = Wiring(lab.netns(FABRIC), {host.name: lab.netns(host.name) for host in plan.hosts})
    wiring.add(
        _named_switches(fabric.switches, {*changes.switches.added, *changes.switches.changed}),
        _named_cables(fabric.cables, {*changes.cables.added, *changes.cables.changed}),
        _named_trunks(fabric.trunks, {*changes.trunks.added, *changes.trunks.changed}),
        {host.name: host for host in plan.hosts},
        fabric.pa_mtu,
    )
    _replug(lab, changes)
    resync = set(changes.policy) if plan.vmm else set()
    build.configure_hosts(lab, {*hosts, *changes.policy} - resync)
    for name in sorted(resync):
        lab.ask(name, "resync")
    _switch(lab, wiring, changes)
    build.boot_vms(lab, [plan.vm(name) for name in vms])


def _replug(lab: Lab, changes: PlanDiff) -> None:
    """Hosts that stay open the NICs whose cables were made anew."""
    staying = {host.name for host in lab.plan.hosts} - {*changes.hosts.added, *changes.hosts.changed}
    fresh = _named_cables(lab.plan.fabric.cables, {*changes.cables.added, *changes.cables.changed})
    cables = [cable for cable in fresh if cable.host in staying]
    for cable in cables:
        lab.ask(cable.host, "replug", name=cable.nic)
    for host in dict.fromkeys(cable.host for cable in cables):
        nic.install(lab, host)
        team.install(lab, host)


def _switch(lab: Lab, wiring: Wiring, changes: PlanDiff) -> None:
    """What is switched while it runs: the offloads of NICs, wires and faults of cables."""
    plan = lab.plan
    for name in changes.nics:
        host, _, of_nic = name.partition(":")
        wanted = next(each for each in plan.host(host).nics if each.name == of_nic)
        nic.replace(lab, host, of_nic, wanted.offloads)
    rewired = [cable for cable in plan.fabric.cables if _cable_name(cable) in changes.rewired]
    for cable in rewired:
        wiring.set_wire(cable, cable.wire, nic.enabled(lab, cable))
    fresh = _named_cables(plan.fabric.cables, {*changes.cables.added, *changes.cables.changed})
    link.as_planned(lab, [*rewired, *fresh])


def _hosts_of(cables: set[str]) -> set[str]:
    return {name.partition(":")[0] for name in cables}


def _cable_name(cable: CablePlan) -> str:
    return f"{cable.host}:{cable.nic}"


def _named_cables(cables: tuple[CablePlan, ...], names: set[str]) -> list[CablePlan]:
    return [cable for cable in cables if _cable_name(cable) in names]


def _named_trunks(trunks: tuple[TrunkPlan, ...], names: set[str]) -> list[TrunkPlan]:
    return [trunk for trunk in trunks if trunk_name(trunk) in names]


def _named_switches(switches: tuple[SwitchPlan, ...], names: set[str]) -> list[SwitchPlan]:
    return [switch for switch in switches if switch.name in names]
