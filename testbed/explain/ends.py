"""The two ends: the ports' virtual subnets, and what the guests' kernels have."""

from __future__ import annotations

import contextlib

from testbed.errors import LabError
from testbed.explain.model import Cause, Evidence, Findings, Weight
from testbed.explain.subject import Case, End, live_addresses
from testbed.lab.trace import Start
from testbed.wiring import observe

_PORT_SECURITY = "port-security"


def placement(case: Case) -> Findings:
    """Whether each port is in the virtual subnet that it is to be in, and whether the two may meet at all."""
    for end in case.ends:
        port, wanted = case.live_port(end), case.intended_vsid(end)
        asked = f"in which virtual subnet is {end.vnic.port}?"
        if port is None:
            yield Evidence(asked, f"{end.host}'s switch has no such port", ok=False)
            yield Cause("node-down", Weight.ROOT, f"{end.vm.name} is at no port of {end.host}'s switch")
        elif port["vsid"] != wanted:
            yield Evidence(asked, f"VSID {port['vsid']}, and it is to be {wanted}", ok=False)
            words = f"{end.vnic.port} is in the virtual subnet {port['vsid']} instead of {wanted}"
            yield Cause("wrong-vsid", Weight.PROVEN + 5, words)
        else:
            yield Evidence(asked, f"VSID {wanted}, as it is to be", ok=True)
    if case.target is not None:
        yield _meeting(case, case.source, case.target)


def _meeting(case: Case, source: End, target: End) -> Evidence:
    ours, theirs = source.vnic.network, target.vnic.network
    asked = "are both in one routing domain?"
    if ours == theirs:
        return Evidence(asked, f"yes, {ours}" if ours else "neither is virtualised", ok=True)
    case.separated = True
    names = [name or "not virtualised" for name in (ours, theirs)]
    return Evidence(asked, f"no: {source.vm.name} is in {names[0]}, {target.vm.name} in {names[1]}", ok=True)


def guests(case: Case) -> Findings:
    """Adapters, MACs and addresses, as the guests' kernels have them; who else has an address."""
    for end in case.ends:
        yield from _adapter(case, end)
        yield from _address(case, end)
    if case.source.address and case.address and (":" in case.source.address) != (":" in case.address):
        yield Evidence("have both an address of one family?", "no", ok=False)
        words = f"{case.source.vm.name} has no address of the family of {case.address}"
        yield Cause("guest-network", Weight.PROVEN, words)
    network = _network(case)
    for end in case.ends:
        yield from _others(case, end, network)


def _adapter(case: Case, end: End) -> Findings:
    link = observe.links(case.lab.netns(end.vm.name)).get(end.vnic.interface)
    asked = f"is {end.vnic.port} up in its guest, with its own MAC?"
    if link is None or not link.up:
        yield Evidence(asked, "it is down", ok=False)
        yield Cause(
            "guest-network", Weight.PROVEN, f"{end.vm.name} has its adapter {end.vnic.interface} down"
        )
    elif link.mac != end.vnic.mac:
        yield Evidence(asked, f"it has {link.mac} instead of {end.vnic.mac}", ok=False)
        yield _other_mac(case, end, link.mac)
    else:
        yield Evidence(asked, f"yes, {link.mac}, MTU {link.mtu}", ok=True)


def _other_mac(case: Case, end: End, mac: str) -> Cause:
    words = f"{end.vm.name} speaks with the MAC {mac}, which is not its port's ({end.vnic.mac})"
    for extension in case.lab.plan.host(end.host).extensions:
        if extension.name == _PORT_SECURITY and not extension.settings.get("mac_spoofing", False):
            drops = f"{end.host}'s extension port-security drops such packets"
            return Cause(_PORT_SECURITY, Weight.PROVEN, f"{words}, and {drops}")
    return Cause("guest-network", Weight.PROVEN, f"{words} and to which no record leads")


def _address(case: Case, end: End) -> Findings:
    asked = (
        f"has {end.vm.name} the address {end.address}?" if end.address else f"has {end.vm.name} an address?"
    )
    entries = live_addresses(case.lab, end.start)
    found = [each for each in entries if each["address"].partition("/")[0] == end.address]
    if not found:
        have = ", ".join(each["address"] for each in entries) or "none"
        yield Evidence(asked, f"no: its adapter has {have}", ok=False)
        what = (
            f"lacks its address {end.address}" if end.address else "has no address that fits the other end's"
        )
        yield Cause("guest-network", Weight.PROVEN, f"{end.vm.name} {what} (its guest has {have})")
    elif found[0]["duplicate"]:
        yield Evidence(asked, "its kernel has found it to be another machine's", ok=False)
        words = f"{end.address} of {end.vm.name} is a duplicate: its kernel has found another machine with it"
        yield Cause("duplicate-address", Weight.PROVEN, words)
    elif found[0]["tentative"]:
        yield Evidence(asked, "it is tentative still", ok=False)
        yield Cause(
            "guest-network", Weight.PROVEN, f"{end.vm.name} is still checking whether {end.address} is free"
        )
    else:
        yield Evidence(asked, "yes", ok=True)


def _others(case: Case, end: End, network: dict[str, set[str]]) -> Findings:
    """Adapters of the same network that have an end's address too."""
    if not end.address:
        return
    having = [
        port for port, addresses in network.items() if end.address in addresses and port != end.vnic.port
    ]
    asked = f"has another adapter of its network {end.address} too?"
    if not having:
        yield Evidence(asked, "no", ok=True)
        return
    where = ", ".join(having)
    yield Evidence(asked, f"yes: {where}", ok=False)
    words = (
        f"{end.address} of {end.vnic.port} is a duplicate: {where} has it too, and only one can be reached"
    )
    own = any(each.vnic.port in having for each in case.ends)  # then its packets never leave it
    yield Cause("duplicate-address", Weight.PROVEN + 1 if own else Weight.SUSPECT + 5, words)


def _network(case: Case) -> dict[str, set[str]]:
    """The live addresses of all adapters in the ends' network, by port."""
    found: dict[str, set[str]] = {}
    for vm in case.lab.plan.vms:
        for vnic in vm.vnics:
            if vnic.network == case.source.vnic.network:
                with contextlib.suppress(LabError):  # a VM that is down has no address
                    entries = live_addresses(case.lab, Start(vm, vnic))
                    found[vnic.port] = {each["address"].partition("/")[0] for each in entries}
    return found


def provider_addresses(case: Case) -> Findings:
    """Whether each end's host has a PA in use for the virtual subnet."""
    for end in case.ends:
        vsid = end.vnic.vsid
        if vsid and (len(case.hosts) > 1 or case.target is None):
            yield from _provider_address(case, end.host, vsid)


def _provider_address(case: Case, host: str, vsid: int) -> Findings:
    found = case.provider_addresses(host, vsid)
    asked = f"which provider address has {host} for VSID {vsid}?"
    said = ", ".join(f"{each['address']} ({each['state']})" for each in found) or "none"
    in_use = bool(case.preferred(host, vsid))
    yield Evidence(asked, said, ok=in_use)
    if in_use:
        return
    for each in found:
        if each["state"] == "Duplicate":
            words = f"the provider address {each['address']} of {host} is a duplicate: another machine has it"
            yield Cause("duplicate-address", Weight.PROVEN + 3, words)
            return
    words = f"{host} has no provider address in use for VSID {vsid} ({said})"
    yield Cause("provider-address", Weight.PROVEN, words)
