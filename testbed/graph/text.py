"""A Graph as lines of text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.graph.model import Adapter, Graph, Host, State, Thing, Vm

Line = tuple[str, State]


def lines(graph: Graph) -> Iterator[Line]:
    """Each line with the state of what it tells, for its colour."""
    yield f"{graph.name}: {graph.summary}", "plain"
    for subnet in graph.subnets:
        yield f"network {subnet.network}, VSID {subnet.vsid}: {', '.join(subnet.prefixes)}", "plain"
    yield "fabric", "plain"
    for switch in graph.switches:
        count = sum(cable.switch == switch.id for cable in graph.cables)
        yield f"  switch {switch.name}: {count} {'cable' if count == 1 else 'cables'}", switch.state
    for trunk in graph.trunks:
        yield f"  trunk {trunk.name}", trunk.state
    if graph.vmm:
        address = next(value for label, value in graph.vmm.details if label == "address")
        yield f"  VMM {address}{_notes(graph.vmm)}", graph.vmm.state
    for host in graph.hosts:
        yield from _host(graph, host)


def _host(graph: Graph, host: Host) -> Iterator[Line]:
    switches = {switch.id: switch.name for switch in graph.switches}
    cables = {cable.nic: cable for cable in graph.cables if cable.host == host.id}
    team = f", team {' '.join(host.team.notes)}" if len(host.nics) > 1 else ""
    yield f"{host.name}{team}{_notes(host)}", host.state
    for nic in host.nics:
        cable = cables.get(nic.id)
        where = f" -- {switches[cable.switch]}:{cable.port}" if cable else ""
        yield f"  {nic.name.partition(':')[2]}{where}{_notes(nic)}", nic.state
    for vm in host.vms:
        yield f"  VM {vm.name}: {_adapters(vm)}{_notes(vm)}", vm.state


def _adapters(vm: Vm) -> str:
    return "; ".join(map(_adapter, vm.adapters))


def _adapter(adapter: Adapter) -> str:
    more = f" and {adapter.more} more" if adapter.more else ""
    return f"VSID {adapter.vsid}" + (f", {adapter.address}{more}" if adapter.address else "")


def _notes(thing: Thing) -> str:
    return f" ({', '.join(thing.notes)})" if thing.notes else ""
