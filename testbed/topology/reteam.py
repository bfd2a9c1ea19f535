"""Another team for hosts of a Plan: what the Plan would be if its topology file said so."""

from __future__ import annotations

from collections.abc import Collection
from typing import get_args

import msgspec

from testbed.errors import BadInput
from testbed.topology.fabric import aggregate_of
from testbed.topology.naming import InterfaceNames, assign_macs
from testbed.topology.plan import AggregatePlan, CablePlan, FabricPlan, HostPlan, Plan, TeamPlan
from testbed.topology.schema import LoadBalancing, TeamingMode

NONE = "none"


def name_of(host: HostPlan) -> str:
    """A host's team in a word: "none" for one NIC, or "SwitchIndependent/Dynamic"."""
    return f"{host.team.mode}/{host.team.algorithm}" if len(host.nics) > 1 else NONE


def parse(text: str) -> tuple[TeamingMode, LoadBalancing] | None:
    """Mode and algorithm of such a word, None for "none". Raises BadInput."""
    if text == NONE:
        return None
    mode, _, algorithm = text.partition("/")
    for known in get_args(TeamingMode):
        for balancing in get_args(LoadBalancing):
            if (mode, algorithm) == (known, balancing):
                return known, balancing
    modes, algorithms = ", ".join(get_args(TeamingMode)), ", ".join(get_args(LoadBalancing))
    remedy = f"write {NONE}, or MODE/ALGORITHM with a mode of {modes}, and an algorithm of {algorithms}"
    raise BadInput(f"team {text!r}: {remedy}")


def with_team(plan: Plan, hosts: Collection[str], text: str) -> Plan:
    """The Plan in which these hosts have the team ``text``; hosts of one NIC stay as they are.

    "none" leaves them the NIC that is the team's primary, and its cable. Raises BadInput for a team
    that a host can't have.
    """
    wanted = parse(text)
    changed = {
        host.name: _alone(host) if wanted is None else _teamed(host, plan.fabric, *wanted)
        for host in plan.hosts
        if host.name in hosts and len(host.nics) > 1
    }
    return msgspec.structs.replace(
        plan,
        hosts=tuple(changed.get(host.name, host) for host in plan.hosts),
        fabric=_fabric(plan, changed),
    )


def _alone(host: HostPlan) -> HostPlan:
    """With its primary alone, or the NIC on which the filter below the switch is."""
    bound = [nic.name for nic in host.nics if nic.wnv_binding]
    kept = host.team.primary if not bound or host.team.primary in bound else bound[0]
    nics = tuple(nic for nic in host.nics if nic.name == kept)
    return msgspec.structs.replace(host, nics=nics, team=TeamPlan(primary=kept))


def _teamed(host: HostPlan, fabric: FabricPlan, mode: TeamingMode, algorithm: LoadBalancing) -> HostPlan:
    if mode != "SwitchIndependent":
        ends = sorted({cable.switch for cable in _cables(fabric, host.name)})
        if len(ends) > 1:
            raise BadInput(
                f"{host.name} can't have {mode}: it is with one switch, not with {', '.join(ends)}"
            )
        if host.team.standby:
            why = f"it has no standby members, and {host.team.standby} is one"
            raise BadInput(f"{host.name} can't have {mode}: {why}")
    return msgspec.structs.replace(
        host, team=msgspec.structs.replace(host.team, mode=mode, algorithm=algorithm)
    )


def _fabric(plan: Plan, changed: dict[str, HostPlan]) -> FabricPlan:
    """Without the cables of NICs that are gone, and with an aggregate for each team that has a partner."""
    nics = {(host.name, nic.name) for host in changed.values() for nic in host.nics}
    cables = tuple(
        cable for cable in plan.fabric.cables if cable.host not in changed or (cable.host, cable.nic) in nics
    )
    fabric = msgspec.structs.replace(plan.fabric, cables=cables)
    kept = {each.host: each for each in plan.fabric.aggregates}
    names = _names(plan)
    aggregates = []
    for host in plan.hosts:
        if host.name not in changed:
            aggregates += [kept[host.name]] if host.name in kept else []
        elif (team := changed[host.name].team).has_partner:
            aggregates.append(_aggregate(plan, _cables(fabric, host.name), team, kept.get(host.name), names))
    return msgspec.structs.replace(fabric, aggregates=tuple(aggregates))


def _aggregate(
    plan: Plan, cables: list[CablePlan], team: TeamPlan, before: AggregatePlan | None, names: InterfaceNames
) -> AggregatePlan:
    """As :func:`testbed.topology.fabric.build_fabric` would make it for a new lab."""
    assert team.mode != "SwitchIndependent"
    switch = cables[0].switch
    fast = team.lacp_timer == "Fast"
    if before:
        return aggregate_of(cables, team.mode, before.interface, before.system, fast=fast)
    return aggregate_of(cables, team.mode, names.take(switch, "-lag1"), _mac(plan, switch), fast=fast)


def _names(plan: Plan) -> InterfaceNames:
    """Of the fabric's interfaces, those of the Plan taken."""
    fabric = plan.fabric
    ends = [end.interface for trunk in fabric.trunks for end in trunk.ends]
    ends += [cable.interface for cable in fabric.cables] + [each.interface for each in fabric.aggregates]
    return InterfaceNames([*(switch.interface for switch in fabric.switches), *ends])


def _mac(plan: Plan, switch: str) -> str:
    """A switch's, which a Plan has only where it is an aggregate's."""
    taken = [nic.mac for host in plan.hosts for nic in host.nics]
    taken += [vnic.mac for vm in plan.vms for vnic in vm.vnics]
    taken += [subnet.gateway_mac for network in plan.networks for subnet in network.subnets]
    return assign_macs((f"switch/{each.name}" for each in plan.fabric.switches), taken)[f"switch/{switch}"]


def _cables(fabric: FabricPlan, host: str) -> list[CablePlan]:
    return [cable for cable in fabric.cables if cable.host == host]
