"""Switches, ports and cables of a Plan; what a previous Plan of the same lab named is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from testbed.topology.impairments import faults
from testbed.topology.naming import InterfaceNames
from testbed.topology.plan import AggregatePlan, CablePlan, FabricPlan, SwitchPlan, TrunkEnd, TrunkPlan
from testbed.topology.schema import Host, Topology

Pair = frozenset[str]


def build_fabric(topology: Topology, previous: FabricPlan | None, macs: Mapping[str, str]) -> FabricPlan:
    """The fabric; ports are numbered p1, p2, .. on each switch in the order of the links.

    macs: of the switches, by "switch/NAME".
    """
    numbering = _Numbering(topology, previous)
    cables: list[CablePlan] = []
    trunks: list[TrunkPlan] = []
    for link in topology.links:
        first, second = link.endpoints
        if ":" not in first + second:
            trunks.append(TrunkPlan(numbering.trunk(first, second), link.wire))
            continue
        end, switch = (first, second) if ":" in first else (second, first)
        host, _, nic = end.partition(":")
        port = numbering.cable(host, nic, switch)
        cables.append(
            CablePlan(
                host=host,
                nic=nic,
                switch=switch,
                switch_interface=port.switch_interface,
                port=port.port,
                interface=port.interface,
                wire=link.wire,
                to_host=faults(link, "to-host"),
                from_host=faults(link, "from-host"),
            )
        )
    switches = tuple(SwitchPlan(name, numbering.switches[name]) for name in topology.fabric.switches)
    aggregates = tuple(
        _aggregate(host, [cable for cable in cables if cable.host == host.name], numbering, macs)
        for host in topology.hosts
        if host.team.mode != "SwitchIndependent"
    )
    return FabricPlan(topology.fabric.pa_mtu, switches, tuple(cables), tuple(trunks), aggregates)


def _aggregate(
    host: Host, cables: Sequence[CablePlan], numbering: _Numbering, macs: Mapping[str, str]
) -> AggregatePlan:
    assert host.team.mode != "SwitchIndependent"
    switch = cables[0].switch
    fast = host.team.lacp_timer == "Fast"
    return aggregate_of(
        cables, host.team.mode, numbering.aggregate(host.name, switch), macs[f"switch/{switch}"], fast=fast
    )


def aggregate_of(
    cables: Sequence[CablePlan], mode: Literal["Static", "Lacp"], interface: str, system: str, *, fast: bool
) -> AggregatePlan:
    """That of a host's cables, all to one switch. interface: its kernel name; system: the switch's MAC."""
    first = cables[0]
    return AggregatePlan(
        host=first.host,
        switch=first.switch,
        switch_interface=first.switch_interface,
        interface=interface,
        ports=tuple(cable.interface for cable in cables),
        mode=mode,
        fast=fast,
        system=system,
    )


class _Numbering:
    """Hands out ports and interface names; the names of what stays are reserved first."""

    def __init__(self, topology: Topology, previous: FabricPlan | None) -> None:
        self._cables: dict[tuple[str, str, str], TrunkEnd] = {}
        self._trunks: dict[Pair, tuple[TrunkEnd, TrunkEnd]] = {}
        names = set(topology.fabric.switches)
        self.switches: dict[str, str] = {}
        self._aggregates: dict[tuple[str, str], str] = {}
        if previous is not None:
            self._aggregates = {(each.host, each.switch): each.interface for each in previous.aggregates}
            self._keep(topology, previous)
            self.switches = {kept.name: kept.interface for kept in previous.switches if kept.name in names}
        ends = [*self._cables.values(), *(end for pair in self._trunks.values() for end in pair)]
        self._ports = {(end.switch, end.port) for end in ends}
        kept = [*self.switches.values(), *(end.interface for end in ends), *self._aggregates.values()]
        self._interfaces = InterfaceNames(kept)
        for name in topology.fabric.switches:
            if name not in self.switches:
                self.switches[name] = self._interfaces.take(name)

    def _keep(self, topology: Topology, previous: FabricPlan) -> None:
        """Note the ends of those cables and trunks of ``previous`` that the topology still has."""
        links = {frozenset(link.endpoints) for link in topology.links}
        for cable in previous.cables:
            if frozenset((f"{cable.host}:{cable.nic}", cable.switch)) in links:
                end = TrunkEnd(cable.switch, cable.switch_interface, cable.port, cable.interface)
                self._cables[cable.host, cable.nic, cable.switch] = end
        for trunk in previous.trunks:
            pair = frozenset(end.switch for end in trunk.ends)
            if pair in links:
                self._trunks[pair] = trunk.ends

    def cable(self, host: str, nic: str, switch: str) -> TrunkEnd:
        """The switch's end of a host's cable."""
        return self._cables.get((host, nic, switch)) or self._new(switch)

    def aggregate(self, host: str, switch: str) -> str:
        """The switch's port that stands for all cables of a host."""
        return self._aggregates.get((host, switch)) or self._interfaces.take(switch, "-lag1")

    def trunk(self, first: str, second: str) -> tuple[TrunkEnd, TrunkEnd]:
        """Both ends of the link between two switches."""
        kept = self._trunks.get(frozenset((first, second)))
        return kept or (self._new(first), self._new(second))

    def _new(self, switch: str) -> TrunkEnd:
        number = 1
        while (switch, f"p{number}") in self._ports:
            number += 1
        port = f"p{number}"
        self._ports.add((switch, port))
        return TrunkEnd(switch, self.switches[switch], port, self._interfaces.take(switch, f"-{port}"))
