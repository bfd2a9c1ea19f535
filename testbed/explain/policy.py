"""What each host's policy says of the other end, beside where that really is, and what the VMM says."""

from __future__ import annotations

import ipaddress
from typing import Any

from testbed.errors import BadInput, LabError
from testbed.explain.model import Cause, Evidence, Findings, Weight
from testbed.explain.subject import Case, End

_ENCAP = "TranslationMethodEncap"
_ON_LINK = ("0.0.0.0", "::")
Record = dict[str, Any]


def policies(case: Case) -> Findings:
    """For each way: the record of where it goes, the route in the network, the route to the other host."""
    for here, there in case.ways:
        if there.vnic.vsid and there.address:
            yield from _records(case, here, there)
            yield from _routes(case, here, there)


def _records(case: Case, here: End, there: End) -> Findings:
    """The records that ``here``'s host has of ``there``'s address."""
    host, vsid = here.host, there.vnic.vsid
    everything = case.policy(host, "lookup-records")
    found = [
        each
        for each in everything
        if (each["customer_address"], each["virtual_subnet_id"]) == (there.address, vsid)
    ]
    asked = f"what does {host} know of {there.address} in VSID {vsid}?"
    if not found and _by_mac(everything, there):
        case.by_mac = True
        yield Evidence(
            asked, "its MAC alone: the record says that the VM takes its address by itself", ok=True
        )
        return
    if not found:
        yield Evidence(asked, "nothing: there is no lookup record", ok=False)
        yield _lacking(case, host, there, everything)
        return
    for record in found:
        said = f"MAC {record['mac_address']} at PA {record['provider_address']}, {record['type']}"
        wrong = [*_differences(case, record, there)]
        yield Evidence(asked, f"{said}: {'; '.join(wrong)}" if wrong else said, ok=not wrong)
        if wrong:
            yield _stale(case, host, there, wrong)
        elif record["unusable"] and len(case.hosts) > 1:
            yield from _no_way(case, host, record)


def _by_mac(everything: list[Record], there: End) -> bool:
    """Whether a record without an address (L2Only, GatewayWildcard) leads to the VM."""
    wanted = there.vnic.mac, there.vnic.vsid
    return any(
        (each["mac_address"], each["virtual_subnet_id"]) == wanted
        for each in everything
        if each["customer_address"] == _ON_LINK[":" in there.address]
    )


def _lacking(case: Case, host: str, there: End, everything: list[Record]) -> Cause:
    mac = there.vnic.mac
    for each in everything:
        if (each["customer_address"], each["mac_address"]) == (there.address, mac):
            vsid = each["virtual_subnet_id"]
            words = (
                f"{host} has the lookup record of {there.address} in VSID {vsid} instead of {there.vnic.vsid}"
            )
            return Cause("wrong-vsid", Weight.PROVEN + 2, words)
    words = f"{host} has no lookup record of {there.address} ({there.vm.name}) in VSID {there.vnic.vsid}"
    owner = _owners(case, there)
    if owner is not None and not owner:
        return Cause("missing-record", Weight.PROVEN + 1, f"{words}, and the VMM has none either")
    return _with_owner(case, host, Cause("missing-record", Weight.PROVEN + 1, words))


def _stale(case: Case, host: str, there: End, wrong: list[str]) -> Cause:
    words = f"{host}'s lookup record of {there.address} ({there.vm.name}) is stale: {'; '.join(wrong)}"
    owner = _owners(case, there)
    if owner and all([*_differences(case, each, there)] for each in owner):
        return Cause("stale-record", Weight.PROVEN + 1, f"{words}, and so is the VMM's")
    return _with_owner(case, host, Cause("stale-record", Weight.PROVEN + 1, words))


def _with_owner(case: Case, host: str, cause: Cause) -> Cause:
    """What a host lacks because it can't be told, is the fault of that."""
    if host in case.cut_off:
        return Cause("vmm-away", Weight.ROOT, f"{host} is cut off from the VMM, and so {cause.sentence}")
    if case.vmm_error:
        words = f"the VMM, which would put it right, does not answer, and {cause.sentence}"
        return Cause("vmm-away", Weight.ROOT, words)
    return cause


def _differences(case: Case, record: Record, there: End) -> list[str]:
    """What of a record is not so: where the VM really is, its host and its port say."""
    found = []
    if record["mac_address"] != there.vnic.mac:
        found.append(f"its MAC is {record['mac_address']}, and {there.vm.name} has {there.vnic.mac}")
    here = {each["address"] for each in case.provider_addresses(there.host, there.vnic.vsid)}
    pa = record["provider_address"]
    if record["rule"] == _ENCAP and here and pa not in here:
        known = ", ".join(sorted(here))
        found.append(f"it leads to {pa}{_whose(case, pa)}, and {there.vm.name} is on {there.host} ({known})")
    return found


def _whose(case: Case, pa: str) -> str:
    for host in case.lab.plan.hosts:
        try:
            addresses = case.status(host.name)["provider_addresses"]
        except LabError:  # a host that is down tells nothing
            continue
        if any(each["address"] == pa for each in addresses):
            return f" of {host.name}"
    return ", which no host has"


def _owners(case: Case, there: End) -> list[Record] | None:
    """The VMM's records of an address; None where there is no VMM that tells."""
    if case.lab.plan.vmm is None or case.vmm_error:
        return None
    try:
        found = case.lab.vmm().get("/lookup-records", virtual_subnet_id=there.vnic.vsid)
    except (LabError, BadInput):
        return None
    return [each for each in found if each["customer_address"] == there.address]


def _no_way(case: Case, host: str, record: Record) -> Findings:
    """The record is right, and its PA can't be reached from here."""
    pa = record["provider_address"]
    if pa in {each["address"] for each in case.status(host)["provider_addresses"]}:
        return  # its own, which is asked about elsewhere
    yield Evidence(f"does a route of the PA network lead from {host} to {pa}?", "no", ok=False)
    words = f"{host} has no route of the PA network to {pa}: neither on-link nor a provider route"
    yield Cause("pa-route", Weight.PROVEN, words)


def _routes(case: Case, here: End, there: End) -> Findings:
    """Whether the network's routes on ``here``'s host lead to ``there``'s address."""
    host, vsid, address = here.host, there.vnic.vsid, ipaddress.ip_address(there.address)
    routes = [
        each
        for each in case.policy(host, "customer-routes")
        if each["virtual_subnet_id"] == vsid and each["next_hop"] in _ON_LINK
    ]
    leading = [each for each in routes if address in ipaddress.ip_network(each["destination_prefix"])]
    asked = f"does a customer route of {host} lead to {there.address}?"
    if leading:
        yield Evidence(asked, f"yes, {leading[0]['destination_prefix']} on-link in VSID {vsid}", ok=True)
        return
    yield Evidence(asked, "no", ok=False)
    words = f"{host} has no customer route of VSID {vsid} to {there.address}"
    yield _with_owner(case, host, Cause("missing-route", Weight.PROVEN, words))
