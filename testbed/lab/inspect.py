"""The live state of a lab: what hosts, VMs and the fabric say now, not what the Plan said."""

from __future__ import annotations

import ipaddress
from typing import Any

from testbed.channel import Message
from testbed.errors import BadInput, LabError
from testbed.lab.lab import FABRIC, Lab
from testbed.processes import in_pid_namespace_of, pss_bytes
from testbed.topology.management import VMM


def inspect(lab: Lab) -> dict[str, Any]:
    """The shape that ``testbed inspect -f json`` prints."""
    hosts = [_host(lab, host.name) for host in lab.plan.hosts]
    vsids = {port["name"]: port["vsid"] for host in hosts for port in host.get("ports", [])}
    vms = [entry for vm in lab.plan.vms for entry in _vm(lab, vm.name, vsids)]
    settled = all(not host.pop("tentative", True) for host in hosts)
    settled = all(not vm.pop("tentative") for vm in vms) and settled
    return {
        "name": lab.record.name,
        "id": lab.record.id,
        "engine": lab.record.engine,
        "topology": lab.record.topology,
        "ready": lab.record.ready and settled,
        "phases": lab.record.phases,
        "fabric": {"switches": _switches(lab)},
        "vmm": _vmm(lab),
        "hosts": hosts,
        "vms": vms,
    }


def _host(lab: Lab, name: str) -> dict[str, Any]:
    try:
        status = lab.ask(name, "status")
    except LabError as error:
        return {"name": name, "error": str(error), "provider_addresses": [], "nics": [], "processes": []}
    return {
        "name": name,
        "tentative": bool(status["tentative"]),
        "provider_addresses": [entry["address"] for entry in status["provider_addresses"]],
        "provider_address_states": status["provider_addresses"],
        "wnv": status["wnv"],
        "flow_entropy": status["flow_entropy"],
        "extensions": status["extensions"],
        "nics": status["nics"],
        "team": status["team"],
        "ports": status["ports"],
        "lookup_records": status["lookup_records"],
        "vmm": status["vmm"],
        "processes": processes(lab, name, status),
    }


def processes(lab: Lab, host: str, status: Message | None = None) -> list[dict[str, Any]]:
    """The host's processes with their ids as this machine knows them and their memory (PSS)."""
    status = status or lab.ask(host, "status")
    outside = in_pid_namespace_of(lab.node(host).pid)
    return [
        {"pid": pid, "role": process["role"], "pss_bytes": pss_bytes(pid)}
        for process in status["processes"]
        if (pid := outside.get(process["pid"]))
    ]


def _vmm(lab: Lab) -> dict[str, Any] | None:
    """The VMM's revision and its processes; None where there is none."""
    plan = lab.plan.vmm
    if plan is None:
        return None
    base = {"name": VMM, "address": plan.address, "port": plan.port}
    try:
        revision = lab.vmm().get("/status")["revision"]
    except (LabError, BadInput) as error:
        return {**base, "error": str(error), "revision": None, "processes": []}
    found = in_pid_namespace_of(lab.node(VMM).pid)
    rows = [{"pid": pid, "role": "vmm", "pss_bytes": pss_bytes(pid)} for pid in found.values()]
    return {**base, "revision": revision, "processes": rows}


def _vm(lab: Lab, name: str, vsids: dict[str, int]) -> list[dict[str, Any]]:
    """One entry per adapter of the VM; nearly always that is one. ``vsids``: those of the ports, by name."""
    from testbed.wiring import guest

    vm = lab.plan.vm(name)
    base = {"name": name, "host": vm.host}
    try:
        live = guest.addresses(lab.netns(name))
    except LabError as error:
        return [{**base, "error": str(error), "addresses": [], "tentative": True}]
    entries = []
    for vnic in vm.vnics:
        found = live.get(vnic.interface, [])
        addresses = [ipaddress.ip_interface(entry["address"]) for entry in found]
        entries.append(
            {
                **base,
                "interface": vnic.interface,
                "network": vnic.network,
                "vsid": vsids.get(vnic.port, vnic.vsid),
                "mac": vnic.mac,
                "mtu": vnic.mtu,
                "addresses": [str(address.ip) for address in addresses if not address.is_link_local],
                "tentative": any(entry["tentative"] for entry in found),
            }
        )
    return entries


def _switches(lab: Lab) -> list[dict[str, Any]]:
    from testbed.wiring.fabric import bridge_ports

    live = bridge_ports(lab.netns(FABRIC))
    fabric = lab.plan.fabric
    names = {switch.interface: switch.name for switch in fabric.switches}
    peers: dict[str, dict[str, Any]] = {}
    for cable in fabric.cables:
        peers[cable.interface] = {"port": cable.port, "host": cable.host, "nic": cable.nic}
    for trunk in fabric.trunks:
        one, other = trunk.ends
        peers[one.interface] = {"port": one.port, "switch": other.switch}
        peers[other.interface] = {"port": other.port, "switch": one.switch}
    for aggregate in fabric.aggregates:
        nics = [cable.nic for cable in fabric.cables if cable.interface in aggregate.ports]
        _, _, port = aggregate.interface.rpartition("-")
        peers[aggregate.interface] = {"port": port, "host": aggregate.host, "members": nics}
    return [
        {
            "name": names[bridge],
            "ports": [{"interface": interface, **peers.get(interface, {})} for interface in ports],
        }
        for bridge, ports in live.items()
        if bridge in names
    ]


def counters(lab: Lab, host: str | None) -> list[dict[str, Any]]:
    """The counters (:class:`testbed.telemetry.Counter`) of one host, or of all."""
    return [each for name in _hosts(lab, host) for each in lab.ask(name, "counters")["counters"]]


def _hosts(lab: Lab, host: str | None) -> list[str]:
    """The host called ``host``, or all. Raises BadInput."""
    if host is None:
        return [each.name for each in lab.plan.hosts]
    lab.check_host(host)
    return [host]
