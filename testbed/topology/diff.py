"""What has to be done to a running lab so that it becomes what a new Plan says."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from testbed.nic.faults import Faults
from testbed.nic.offloads import Offloads
from testbed.topology.plan import CablePlan, HostPolicy, Plan, TrunkPlan

_GOOD: dict[str, Any] = {"wire": "frames", "to_host": Faults(), "from_host": Faults()}


class Changes(Struct, frozen=True):
    """Names of objects of one kind. changed: to be removed and added again."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


class PlanDiff(Struct, frozen=True):
    """The difference of two Plans.

    Cables are named "host1:nic1", trunks "tor1--tor2". A cable to another switch, a VM on another
    host, or anything attached to something changed is itself changed. rewired: cables and trunks
    of which only the wire or the faults differ. nics: "host1:nic1", of which only profile and offloads
    differ. policy: hosts of which only the policy differs.
    """

    hosts: Changes
    vms: Changes
    switches: Changes
    cables: Changes
    trunks: Changes
    rewired: tuple[str, ...] = ()
    nics: tuple[str, ...] = ()
    policy: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        kinds = (self.hosts, self.vms, self.switches, self.cables, self.trunks)
        return any(kinds) or bool(self.rewired or self.nics or self.policy)


def diff(old: Plan, new: Plan) -> PlanDiff:
    """What changes from one Plan to another; ``new`` should be built with ``old`` as its previous."""
    hosts = _changes(_bare_hosts(old), _bare_hosts(new))
    mtu = old.fabric.pa_mtu != new.fabric.pa_mtu
    old_switches = {switch.name: switch for switch in old.fabric.switches}
    new_switches = {switch.name: switch for switch in new.fabric.switches}
    switches = _changes(old_switches, new_switches, also=set(new_switches) if mtu else set())
    rebuilt = {*hosts.changed, *switches.changed}  # hosts and switches share one set of names
    new_vms = {vm.name: vm for vm in new.vms}
    vms = _changes(
        {vm.name: vm for vm in old.vms},
        new_vms,
        also={name for name, vm in new_vms.items() if vm.host in rebuilt},
    )
    old_cables, new_cables = _cables(old), _cables(new)
    cables = _changes(
        _without_wire(old_cables),
        _without_wire(new_cables),
        also={
            name for name, cable in new_cables.items() if not rebuilt.isdisjoint((cable.host, cable.switch))
        },
    )
    old_trunks = {trunk_name(trunk): trunk for trunk in old.fabric.trunks}
    new_trunks = {trunk_name(trunk): trunk for trunk in new.fabric.trunks}
    trunks = _changes(
        _without_wire(old_trunks),
        _without_wire(new_trunks),
        also={
            name
            for name, trunk in new_trunks.items()
            if not rebuilt.isdisjoint(end.switch for end in trunk.ends)
        },
    )
    rewired = [
        *_rewired(old_cables, new_cables, cables.changed),
        *_rewired(old_trunks, new_trunks, trunks.changed),
    ]
    nics = _nics(old, new, hosts.changed)
    policy = _policy(old, new, hosts.changed)
    return PlanDiff(hosts, vms, switches, cables, trunks, tuple(rewired), nics, policy)


def _cables(plan: Plan) -> dict[str, CablePlan]:
    return {f"{cable.host}:{cable.nic}": cable for cable in plan.fabric.cables}


def _without_wire(links: Mapping[str, CablePlan | TrunkPlan]) -> dict[str, object]:
    good: dict[type, dict[str, Any]] = {CablePlan: _GOOD, TrunkPlan: {"wire": "frames"}}
    return {name: msgspec.structs.replace(link, **good[type(link)]) for name, link in links.items()}


def _rewired(
    old: Mapping[str, CablePlan | TrunkPlan],
    new: Mapping[str, CablePlan | TrunkPlan],
    changed: Collection[str],
) -> Iterator[str]:
    for name, link in new.items():
        if name in old and name not in changed and old[name] != link:
            yield name


def trunk_name(trunk: TrunkPlan) -> str:
    """Name of a trunk, "tor1--tor2": its switches in alphabetical order."""
    return "--".join(sorted(end.switch for end in trunk.ends))


def _bare_hosts(plan: Plan) -> dict[str, object]:
    """Hosts without what a running host takes over in place: its policy, its NICs' offloads."""
    return {
        host.name: msgspec.structs.replace(
            host,
            policy=HostPolicy(),
            nics=tuple(msgspec.structs.replace(nic, profile="", offloads=Offloads()) for nic in host.nics),
        )
        for host in plan.hosts
    }


def _nics(old: Plan, new: Plan, rebuilt: Collection[str]) -> tuple[str, ...]:
    before = {(host.name, nic.name): nic for host in old.hosts for nic in host.nics}
    return tuple(
        f"{host.name}:{nic.name}"
        for host in new.hosts
        for nic in host.nics
        if host.name not in rebuilt and before.get((host.name, nic.name), nic).offloads != nic.offloads
    )


def _policy(old: Plan, new: Plan, rebuilt: Collection[str]) -> tuple[str, ...]:
    before = {host.name: host.policy for host in old.hosts}
    return tuple(
        host.name
        for host in new.hosts
        if host.name not in rebuilt and before.get(host.name, host.policy) != host.policy
    )


def _changes(old: Mapping[str, object], new: Mapping[str, object], also: Collection[str] = ()) -> Changes:
    """Compare objects by name; those named in ``also`` count as different."""
    return Changes(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed=tuple(
            name for name, value in new.items() if name in old and (name in also or old[name] != value)
        ),
    )
