"""What the VMM makes of an address that a host has seen a VM use. The rule is in docs/vmm.md.

1. The MAC is that of a port on the reporting host, and the PA is that host's for the VSID.
2. The address can be a machine's of the VSID's prefixes.
3. Whose it is: a Static record of another MAC wins, as does an address that a pool has promised to
   somebody else. Of two Dynamic ones the older wins, unless its VM does not answer for it any more.
4. The port may have no more learned addresses than its limit says.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from testbed.topology.plan import LookupRecord
from testbed.vmm.model import Learned, LearnedAddress, LearnedResult, Port, Probed
from testbed.vmm.refusals import Conflict, Forbidden, Holder, Unusable
from testbed.vmm.rules import placement, policy, pools
from testbed.vmm.rules.addresses import Address, parse_address, unicast_mac, within
from testbed.vmm.store.database import Reader, Transaction
from testbed.vmm.store.tables import CUSTOMER_ROUTES, LEARNED, POOL_ADDRESSES, PORTS, PROVIDER_ADDRESSES

Again = Literal["known", "moved"]


class AddressConflict(Conflict):
    """Another MAC has the address; holder says which."""


class Contested(AddressConflict):
    """Another MAC has learned the address before: whose it is depends on whether its VM answers.

    claimant: the MAC that uses the address now. held: the record against it. asked: the host that can
    ask the VM; "": there is none.
    """

    def __init__(self, place: str, claimant: str, held: LookupRecord, asked: str) -> None:
        super().__init__(
            f"{place}: {held.mac_address} has learned it before, and answers for it",
            "give the VM another address",
            _holder(held),
        )
        self.claimant = claimant
        self.held = held
        self.asked = asked


def learn(tx: Transaction, host: str, report: Learned, silent: LookupRecord | None = None) -> LearnedResult:
    """Decide on a learned address. Raises Refused.

    silent: a Dynamic record whose VM does not answer: it stands against nobody.
    """
    port = _port(tx, host, report.vsid, report.mac)
    place = f"learned address {report.ca} of {port.port}"
    pa = _own_pa(tx, host, report)
    address = parse_address(place, report.ca)
    within(place, address, policy.subnet_of(tx, port.vsid).prefixes)
    replaced = _replaced(tx, place, port, address, report)
    held = policy.record_of_address(tx, port.vsid, str(address))
    record = LookupRecord(str(address), port.vsid, port.mac, pa, port.vm, type="Dynamic")
    result: Literal["added"] | Again = "added"
    if held is not None and held.mac_address == port.mac:
        result = _again(tx, host, report, held, pa)
    else:
        _refuse_limit(tx, place, port, replaced)
        _decide(tx, place, port, address, held, silent)
    if replaced is not None:
        _drop(tx, port, replaced, report.how)
    if result == "added":
        if held is not None:
            _take_over(tx, held, report.how)
        policy.put_record(tx, record)
        policy.address_event(tx, "Added", record, host, report.how)
        tx.put(LEARNED, _note(tx, record, host, report))
        _mark_pool(tx, port, address)
    kept = record if result == "added" else policy.record_of_address(tx, port.vsid, str(address))
    revision = tx.revision if tx.dirty else tx.revision - 1
    return LearnedResult(result, revision, kept)


def age(tx: Transaction, host: str, vsid: int, mac: str, ca: str) -> LearnedResult:
    """Remove a learned address that its VM has given up. One that is gone already stays gone."""
    port = _port(tx, host, vsid, mac)
    place = f"learned address {ca} of {port.port}"
    address = str(parse_address(place, ca))
    record = policy.record_of_address(tx, vsid, address)
    if record is None or record.mac_address != port.mac:
        return LearnedResult("gone", tx.revision - 1)
    if record.type != "Dynamic":
        raise Conflict(f"{place}: the record is {record.type}", "only Dynamic records age")
    _drop(tx, port, record, "aged")
    return LearnedResult("deleted", tx.revision, record)


def probed_address(reader: Reader, host: str, answer: Probed) -> tuple[str, str]:
    """MAC and CA of a host's answer to a probe. Raises Refused when the MAC is not one of its VMs'."""
    port = _port(reader, host, answer.vsid, answer.mac)
    return port.mac, str(parse_address("ca", answer.ca))


def note_conflict(tx: Transaction, host: str, report: Learned, conflict: AddressConflict) -> None:
    """The event of a refused address."""
    holder = conflict.holder
    tx.event(
        "address-conflict",
        report.mac,
        host,
        what=conflict.what,
        ca=report.ca,
        vsid=report.vsid,
        mac=report.mac,
        pa=report.pa,
        holder=holder and msgspec.structs.asdict(holder),
    )


def _port(reader: Reader, host: str, vsid: int, mac: str) -> Port:
    """The reporting host's port; whether another host has the MAC is not told."""
    port = policy.port_of_mac(reader, vsid, unicast_mac("mac", mac))
    if port is None or port.host != host or not vsid:
        raise Forbidden(
            f"host {host} has no port with the MAC {mac} in VSID {vsid}",
            "report only of the host's own ports",
        )
    return port


def _own_pa(reader: Reader, host: str, report: Learned) -> str:
    own = reader.get(PROVIDER_ADDRESSES, host, report.vsid)
    pa = str(parse_address("pa", report.pa))
    if own is None or own.provider_address != pa:
        has = own.provider_address if own else "none"
        raise Conflict(
            f"{pa} is not the PA of host {host} for VSID {report.vsid} ({has} is)",
            "apply the host's policy, then report again",
        )
    return pa


def _replaced(
    reader: Reader, place: str, port: Port, address: Address, report: Learned
) -> LookupRecord | None:
    """The record of the older address that the MAC gave up; None when there is none (any more)."""
    if report.replaces is None:
        return None
    older = parse_address(f"{place}: replaces", report.replaces)
    if older.version != address.version:
        raise Unusable(
            f"{place}: {older} is of the other family", "replaces names an address of the same one"
        )
    if older == address:
        return None
    record = policy.record_of_address(reader, port.vsid, str(older))
    if record is None or record.mac_address != port.mac:
        return None
    if port.dynamic_address_limit == 0:
        raise Conflict(f"{place}: the port learns no addresses", "raise its dynamic_address_limit")
    if reader.exists(CUSTOMER_ROUTES, routing_domain_id=port.rdid, next_hop=str(older)):
        raise Conflict(f"{place}: {older} is the next hop of a customer route", "change the route first")
    return record


def _again(tx: Transaction, host: str, report: Learned, held: LookupRecord, pa: str) -> Again:
    """The MAC has the address already: a Dynamic record follows the PA, others are as they should be."""
    if held.type != "Dynamic" or held.provider_address == pa:
        return "known"
    moved = msgspec.structs.replace(held, provider_address=pa)
    policy.put_record(tx, moved, held)
    policy.address_event(tx, "Moved", moved, host, report.how)
    tx.put(LEARNED, _note(tx, moved, host, report))
    return "moved"


def _decide(
    tx: Transaction,
    place: str,
    port: Port,
    address: Address,
    held: LookupRecord | None,
    silent: LookupRecord | None,
) -> None:
    """Raise Conflict unless the address may become the port's."""
    if held is not None:
        if held.type != "Dynamic":
            raise AddressConflict(
                f"{place}: it is that of {held.mac_address} by a {held.type} record",
                "give the VM another address, or change the policy",
                _holder(held),
            )
        if held != silent:
            owner = policy.port_of_mac(tx, held.virtual_subnet_id, held.mac_address)
            raise Contested(place, port.mac, held, owner.host if owner else "")
        return
    item = tx.get(POOL_ADDRESSES, pools.ca_pool(tx, port.vsid, address).name, str(address))
    if item is not None and item.state == "allocated" and item.owner not in (port.port, port.vm):
        raise AddressConflict(
            f"{place}: the pool has given it to {item.owner}", "give the VM another address, or release it"
        )


def _holder(held: LookupRecord) -> Holder:
    return Holder(
        held.customer_address, held.virtual_subnet_id, held.mac_address, held.provider_address, held.type
    )


def _refuse_limit(reader: Reader, place: str, port: Port, replaced: LookupRecord | None) -> None:
    learned = [
        record
        for record in policy.records_of_mac(reader, port.vsid, port.mac)
        if record.type == "Dynamic" and record != replaced
    ]
    if len(learned) >= port.dynamic_address_limit:
        raise Conflict(
            f"{place}: {len(learned)} addresses are learned, the limit is {port.dynamic_address_limit}",
            "have the VM give one up, or raise the port's dynamic_address_limit",
        )


def _take_over(tx: Transaction, held: LookupRecord, how: str) -> None:
    """The holder did not answer: its record goes."""
    owner = policy.port_of_mac(tx, held.virtual_subnet_id, held.mac_address)
    if owner is not None:
        _drop(tx, owner, held, how)
    else:  # an administrator's record of a MAC without a port
        policy.drop_record(tx, held)


def _drop(tx: Transaction, port: Port, record: LookupRecord, how: str) -> None:
    """Remove a record; if it was one of the port's own addresses, the port has it no more."""
    placement.drop_address(tx, port, record, how)
    if record.customer_address in port.addresses:
        rest = tuple(address for address in port.addresses if address != record.customer_address)
        tx.put(PORTS, msgspec.structs.replace(port, addresses=rest))


def _note(tx: Transaction, record: LookupRecord, host: str, report: Learned) -> LearnedAddress:
    return LearnedAddress(
        record.virtual_subnet_id, record.customer_address, record.mac_address, host, report.how, tx.time
    )


def _mark_pool(tx: Transaction, port: Port, address: Address) -> None:
    """The pool knows a learned address as in use; one that is reserved or the port's own stays that."""
    pool = pools.ca_pool(tx, port.vsid, address)
    if tx.get(POOL_ADDRESSES, pool.name, str(address)) is None:
        pools.mark(tx, pool, str(address), "learned", port.port)
