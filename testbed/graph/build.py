"""From a Plan, and what a running lab tells of itself, to a Graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from testbed.graph.model import Adapter, Cable, Graph, Host, Live, State, Subnet, Thing, Trunk, Vm, worst
from testbed.nic.faults import WAYS, Faults, Way, described
from testbed.topology.management import VMM
from testbed.topology.plan import CablePlan, FabricPlan, HostPlan, Plan, TrunkPlan, VmPlan

_ARROWS: dict[Way, str] = {
    "to-host": "\N{DOWNWARDS ARROW}",
    "from-host": "\N{UPWARDS ARROW}",
}  # switches are drawn on top
_BOTH = "\N{UP DOWN ARROW}"
Details = list[tuple[str, str]]


def build(plan: Plan, live: Live | None = None) -> Graph:
    """The picture of a Plan; with ``live`` that of the lab that runs it."""
    return _Builder(plan, live).graph()


class _Builder:
    """Ids of all things, then the things."""

    def __init__(self, plan: Plan, live: Live | None) -> None:
        self.plan = plan
        self.live = live
        self._ids: dict[tuple[str, str], str] = {}
        self._residents: dict[str, list[VmPlan]] = {host.name: [] for host in plan.hosts}
        for vm in plan.vms:
            self._residents[vm.host].append(vm)
        self._cables_of: dict[str, list[CablePlan]] = {host.name: [] for host in plan.hosts}
        for cable in plan.fabric.cables:
            self._cables_of[cable.host].append(cable)

    def graph(self) -> Graph:
        plan, live = self.plan, self.live
        hosts = tuple(self._host(host) for host in plan.hosts)
        return Graph(
            name=plan.name,
            summary=_summary(plan, live),
            engine=live.engine if live else "",
            subnets=tuple(_subnets(plan)),
            switches=tuple(self._switch(switch.name, plan.fabric) for switch in plan.fabric.switches),
            vmm=self._vmm(),
            hosts=hosts,
            cables=tuple(self._cable(cable) for cable in plan.fabric.cables),
            trunks=tuple(self._trunk(trunk) for trunk in plan.fabric.trunks),
        )

    def _id(self, kind: str, name: str) -> str:
        """That of a thing; a number, whatever the name is made of."""
        return self._ids.setdefault((kind, name), f"t{len(self._ids) + 1}")

    # ---- fabric ---------------------------------------------------------------------------

    def _switch(self, name: str, fabric: FabricPlan) -> Thing:
        cables = [cable for cable in fabric.cables if cable.switch == name]
        trunks = [trunk for trunk in fabric.trunks if name in (end.switch for end in trunk.ends)]
        related = [self._id("cable", _end(cable)) for cable in cables]
        related += [self._id("trunk", _trunk_name(trunk)) for trunk in trunks]
        hosts = [cable.host for cable in cables]
        details = [
            ("cables", str(len(cables))),
            ("trunks", ", ".join(map(_trunk_name, trunks)) or "none"),
            ("MTU of the PA network", str(fabric.pa_mtu)),
        ]
        vsids = self._vsids(vm for host in dict.fromkeys(hosts) for vm in self._residents[host])
        return Thing(
            id=self._id("switch", name),
            kind="switch",
            name=name,
            details=tuple(details),
            related=tuple(related),
            vsids=vsids,
        )

    def _cable(self, cable: CablePlan) -> Cable:
        faults = self._faults(cable)
        details: Details = [
            ("switch", f"{cable.switch}, port {cable.port}"),
            ("NIC", _end(cable)),
            ("wire", cable.wire),
        ]
        if self.live:
            details.append(("carrier", "up" if self._is_up(cable) else "down"))
        for way in WAYS:
            said = described(faults[way]) if way in faults else "unknown: the host does not answer"
            details.append((way, said or "no faults, no rate"))
        return Cable(
            id=self._id("cable", _end(cable)),
            kind="cable",
            name=f"{_end(cable)} - {cable.switch}",
            state=self._cable_state(cable),
            notes=self._cable_notes(cable),
            details=tuple(details),
            related=(
                self._id("switch", cable.switch),
                self._id("host", cable.host),
                self._id("nic", _end(cable)),
            ),
            vsids=self._vsids(self._residents[cable.host]),
            switch=self._id("switch", cable.switch),
            port=cable.port,
            host=self._id("host", cable.host),
            nic=self._id("nic", _end(cable)),
        )

    def _faults(self, cable: CablePlan) -> dict[Way, Faults]:
        if self.live is None:
            return {"to-host": cable.to_host, "from-host": cable.from_host}
        return self.live.cables[_end(cable)].ways

    def _is_up(self, cable: CablePlan) -> bool:
        return self.live is None or self.live.cables[_end(cable)].up

    def _cable_state(self, cable: CablePlan) -> State:
        faults = self._faults(cable).values()
        if not self._is_up(cable) or any(each.black_hole for each in faults):
            return "bad"
        if any(described(each) for each in faults):
            return "warn"
        return "good" if self.live else "plain"

    def _cable_notes(self, cable: CablePlan) -> tuple[str, ...]:
        """Down, and what it does to frames; one note where both ways are alike."""
        notes = [] if self._is_up(cable) else ["link down"]
        said = {_ARROWS[way]: described(faults) for way, faults in self._faults(cable).items()}
        if len(said) == len(WAYS) and len(set(said.values())) == 1:
            said = {_BOTH: next(iter(said.values()))}
        notes += [f"{arrow} {words}" for arrow, words in said.items() if words]
        return tuple(notes)

    def _trunk(self, trunk: TrunkPlan) -> Trunk:
        one, other = trunk.ends
        switches = self._id("switch", one.switch), self._id("switch", other.switch)
        return Trunk(
            id=self._id("trunk", _trunk_name(trunk)),
            kind="trunk",
            name=_trunk_name(trunk),
            details=(
                ("ends", f"{one.switch} port {one.port}, {other.switch} port {other.port}"),
                ("wire", trunk.wire),
            ),
            related=switches,
            switches=switches,
            ports=(one.port, other.port),
        )

    def _vmm(self) -> Thing | None:
        plan = self.plan.vmm
        if plan is None:
            return None
        told = (self.live.vmm if self.live else None) or {}
        details: Details = [("address", f"{plan.address}:{plan.port}"), ("PA pool", plan.pa_pool)]
        if "revision" in told:
            details.append(("revision", str(told["revision"])))
        if "error" in told:
            details.append(("error", str(told["error"])))
        return Thing(
            id=self._id("vmm", VMM),
            kind="VMM",
            name=VMM,
            state=self._seen("error" in told),
            notes=("not running",) if "error" in told else (),
            details=tuple(details),
        )

    # ---- hosts ----------------------------------------------------------------------------

    def _host(self, plan: HostPlan) -> Host:
        told = self.live.hosts.get(plan.name, {}) if self.live else {}
        residents = self._residents[plan.name]
        vms = tuple(self._vm(vm) for vm in residents)
        nics = tuple(self._nic(plan, index) for index in range(len(plan.nics)))
        notes, details = _host_words(plan, told)
        return Host(
            id=self._id("host", plan.name),
            kind="host",
            name=plan.name,
            state=self._seen("error" in told, bool(notes)),
            notes=notes,
            details=tuple(details),
            related=tuple(
                [self._id("cable", _end(cable)) for cable in self._cables_of[plan.name]]
                + [vm.id for vm in vms]
            ),
            vsids=self._vsids(residents),
            nics=nics,
            team=self._team(plan, nics),
            vms=vms,
        )

    def _nic(self, host: HostPlan, index: int) -> Thing:
        nic = host.nics[index]
        name = f"{host.name}:{nic.name}"
        cable = next((each for each in self._cables_of[host.name] if each.nic == nic.name), None)
        members = self.live.members.get(host.name, []) if self.live else []
        member = next((each for each in members if each["name"] == nic.name), None)
        details: Details = [
            ("MAC", nic.mac),
            ("MTU", str(nic.mtu)),
            ("profile", nic.profile),
            ("receive queues", str(nic.queues)),
        ]
        notes, states = [], [self._seen(bad=False)]
        if member:
            fault = f": {member['fault']}" if member["fault"] else ""
            details.append(("team member", member["state"] + fault))
            notes.append(member["state"].lower() + fault)
            states.append("bad" if member["state"] == "Failed" else "good")
        elif nic.name == host.team.standby:
            notes.append("standby")
        if cable:
            notes += self._cable_notes(cable)
            states.append(self._cable_state(cable))
        else:
            notes.append("no cable")
        return Thing(
            id=self._id("nic", name),
            kind="NIC",
            name=name,
            state=worst(states),
            notes=tuple(notes),
            details=tuple(details),
            related=(self._id("host", host.name), *([self._id("cable", name)] if cable else [])),
            vsids=self._vsids(self._residents[host.name]),
        )

    def _team(self, host: HostPlan, nics: tuple[Thing, ...]) -> Thing:
        team = host.team
        members = self.live.members.get(host.name, []) if self.live else []
        failed = [each["name"] for each in members if each["state"] == "Failed"]
        details: Details = [
            ("mode", team.mode),
            ("load balancing", team.algorithm),
            ("primary", team.primary),
            ("standby", team.standby or "none"),
        ]
        if members:
            details.append(("failed members", ", ".join(failed) or "none"))
        return Thing(
            id=self._id("team", host.name),
            kind="team",
            name=f"team of {host.name}",
            state=self._seen(bool(members) and len(failed) == len(members), bool(failed)),
            notes=(team.mode, team.algorithm),
            details=tuple(details),
            related=(self._id("host", host.name), *(nic.id for nic in nics)),
            vsids=self._vsids(self._residents[host.name]),
        )

    def _vm(self, vm: VmPlan) -> Vm:
        entries = self.live.vms.get(vm.name, []) if self.live else []
        error = next((str(entry["error"]) for entry in entries if "error" in entry), "")
        told = {entry["interface"]: entry for entry in entries if "interface" in entry}
        adapters, details = [], [("host", vm.host)]
        for vnic in vm.vnics:
            now = told.get(vnic.interface, {})
            planned = [address.partition("/")[0] for address in vnic.addresses]
            addresses = now.get("addresses", []) if self.live else planned
            vsid = now.get("vsid", vnic.vsid)
            adapters.append(Adapter(vsid, addresses[0] if addresses else "", max(0, len(addresses) - 1)))
            details += [
                (vnic.interface, f"VSID {vsid}" + (f" ({vnic.network})" if vnic.network else "")),
                ("addresses", ", ".join(addresses) or "none"),
                ("MAC", vnic.mac),
                ("MTU", str(vnic.mtu)),
            ]
        details += _vm_words(vm, error)
        return Vm(
            id=self._id("vm", vm.name),
            kind="VM",
            name=vm.name,
            state=self._seen(bool(error)),
            notes=("not running",) if error else (),
            details=tuple(details),
            related=(self._id("host", vm.host),),
            vsids=tuple(dict.fromkeys(adapter.vsid for adapter in adapters)),
            adapters=tuple(adapters),
        )

    def _seen(self, bad: bool, warn: bool = False) -> State:
        if self.live is None:
            return "plain"
        return "bad" if bad else "warn" if warn else "good"

    def _vsids(self, vms: Iterable[VmPlan]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(vnic.vsid for vm in vms for vnic in vm.vnics))


def _host_words(plan: HostPlan, told: dict[str, Any]) -> tuple[tuple[str, ...], Details]:
    """Notes on what is wrong with a host, and its details."""
    notes: list[str] = []
    details: Details = [
        ("WNV", plan.wnv),
        ("extensions", ", ".join(each.name for each in plan.extensions) or "none"),
        ("learning", "on" if plan.learning else "off"),
    ]
    if "error" in told:
        return ("not running",), [*details, ("error", str(told["error"]))]
    if not told:
        addresses = [(pa.provider_address, pa.virtual_subnet_id, "") for pa in plan.policy.provider_addresses]
    else:
        addresses = [
            (pa["address"], pa["vsid"], pa["state"]) for pa in told.get("provider_address_states", [])
        ]
    for address, vsid, state in addresses:
        details.append(("provider address", f"{address} (VSID {vsid}{', ' if state else ''}{state})"))
        if state not in ("", "Preferred"):
            notes.append(f"PA {state.lower()}")
    if told:
        details.append(("lookup records", str(told.get("lookup_records", 0))))
    if vmm := told.get("vmm"):
        details.append(("VMM", f"connected, revision {vmm['revision']}" if vmm["connected"] else "away"))
        if not vmm["connected"]:
            notes.append("VMM away")
    return tuple(dict.fromkeys(notes)), details


def _vm_words(vm: VmPlan, error: str) -> Details:
    details: Details = []
    if vm.image:
        details.append(("image", vm.image))
    if vm.command:
        details.append(("command", " ".join(vm.command)))
    if vm.shared_disk:
        details.append(("shared disk", vm.shared_disk))
    if error:
        details.append(("error", error))
    return details


def _summary(plan: Plan, live: Live | None) -> str:
    def count(number: int, what: str) -> str:
        return f"{number} {what}{'' if number == 1 else 's'}"

    words = ", ".join(
        [
            count(len(plan.hosts), "host"),
            count(len(plan.vms), "VM"),
            count(len(plan.networks), "network"),
        ]
    )
    if live is None:
        return f"{words}; as planned"
    return f"{words}; running, engine {live.engine}, {'ready' if live.ready else 'not ready'}"


def _subnets(plan: Plan) -> Iterable[Subnet]:
    for hue, network in enumerate(plan.networks):
        for shade, subnet in enumerate(network.subnets):
            yield Subnet(subnet.vsid, network.name, subnet.prefixes, hue, shade)


def _end(cable: CablePlan) -> str:
    return f"{cable.host}:{cable.nic}"


def _trunk_name(trunk: TrunkPlan) -> str:
    one, other = trunk.ends
    return f"{one.switch}:{one.port} - {other.switch}:{other.port}"
