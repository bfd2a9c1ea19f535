"""Learned records in the policy of one host, and the events that tell of them."""

from __future__ import annotations

from time import monotonic
from typing import NamedTuple

from testbed.errors import BadInput
from testbed.host.reporter import LearnedPolicy
from testbed.telemetry import EventLog
from testbed.topology.plan import LookupRecord
from testbed.wnv.objects import key_of
from testbed.wnv.policy import Change

KIND = "lookup-records"
_LIMIT = 8  # learned addresses of one adapter that are assumed before the VMM is asked: its own default
_WARY = 1.0  # seconds after a refusal in which a VM's claims hold only when the VMM has agreed
_TOLD = 10.0  # seconds in which the same refusal is one event
_REMEMBERED = 1024  # refusals


class Claim(NamedTuple):
    """A VM's adapter uses an address. how: arp, nd, dhcp or packet. All but the VSID is text."""

    port: str
    vsid: int
    mac: str
    ca: str
    how: str


class LearnedRecords:
    """Adds and drops Dynamic records of this host's VMs, at once; the VMM's word comes later."""

    def __init__(self, policy: LearnedPolicy, events: EventLog) -> None:
        self.policy = policy
        self._events = events
        self._wary: dict[str, float] = {}  # MAC -> until when
        self._refused: dict[Claim, float] = {}  # -> when

    def holder(self, claim: Claim) -> LookupRecord | None:
        """The record of the claimed address."""
        return self.policy.record_of(claim.vsid, claim.ca)

    def has(self, claim: Claim) -> bool:
        """Whether the address is the claimant's."""
        record = self.holder(claim)
        return record is not None and record.mac_address == claim.mac

    def older(self, claim: Claim) -> list[LookupRecord]:
        """Other addresses of the same adapter and family, Static or Dynamic."""
        family = ":" in claim.ca
        return [
            record
            for record in self.policy.records_of_mac(claim.vsid, claim.mac)
            if record.type in ("Static", "Dynamic")
            and record.customer_address != claim.ca
            and (":" in record.customer_address) is family
        ]

    def dynamic(self, vsid: int, mac: str) -> list[LookupRecord]:
        """The learned addresses of an adapter."""
        return [each for each in self.policy.records_of_mac(vsid, mac) if each.type == "Dynamic"]

    def add(self, claim: Claim) -> bool:
        """Give the claimant its address before anybody is asked; whether that could be done."""
        pa = self.policy.pa_of(claim.vsid)
        if pa is None or self.holder(claim) is not None or not self._is_trusted(claim):
            return False
        names = [each.vm_name for each in self.policy.records_of_mac(claim.vsid, claim.mac) if each.vm_name]
        name = names[0] if names else claim.port.partition(":")[0]
        record = LookupRecord(claim.ca, claim.vsid, claim.mac, pa, name, type="Dynamic")
        if not self._assume(Change(KIND, None, record)):
            return False
        self.tell("Added", record, claim.how)
        return True

    def drop(self, record: LookupRecord, how: str) -> bool:
        """Do without a record from now on; whether it was there."""
        if self.policy.record_of(record.virtual_subnet_id, record.customer_address) != record:
            return False
        if not self._assume(Change(KIND, record, None)):
            return False
        self.tell("Deleted", record, how)
        return True

    def retract(self, record: LookupRecord) -> None:
        """What was assumed of a record is given up: what the VMM says of it holds again."""
        self.policy.retract([(KIND, key_of(KIND, record))])

    def retract_claim(self, claim: Claim) -> None:
        """The same of a claimed address."""
        self.policy.retract([(KIND, (claim.ca, claim.vsid, claim.mac))])

    def refuse(self, claim: Claim, what: str) -> None:
        """Note that a claim has come to nothing."""
        now = monotonic()
        if len(self._wary) >= _REMEMBERED:
            self._wary = {mac: until for mac, until in self._wary.items() if until > now}
        self._wary[claim.mac] = now + _WARY
        if now - self._refused.get(claim, now - _TOLD) < _TOLD:
            return
        if len(self._refused) >= _REMEMBERED:
            self._refused.clear()
        self._refused[claim] = now
        record = self.holder(claim)
        conflict = record is not None and record.mac_address != claim.mac
        more = {"holder": record.mac_address} if record is not None and conflict else {}
        self._events.add(
            "address-conflict" if conflict else "address-refused",
            claim.port,
            what=what,
            mac=claim.mac,
            ca=claim.ca,
            vsid=claim.vsid,
            how=claim.how,
            **more,
        )

    def tell(self, reason: str, record: LookupRecord, how: str) -> None:
        """The event of an address: Added, Moved or Deleted, with the same fields as the VMM's."""
        self._events.add(
            "customer-address",
            record.vm_name or record.mac_address,
            reason=reason,
            mac=record.mac_address,
            ca=record.customer_address,
            vsid=record.virtual_subnet_id,
            pa=record.provider_address,
            how=how,
        )

    def _is_trusted(self, claim: Claim) -> bool:
        """No VM can make this host change its policy to and fro as fast as it sends."""
        if self._wary.get(claim.mac, 0.0) > monotonic():
            return False
        return len(self.dynamic(claim.vsid, claim.mac)) < _LIMIT

    def _assume(self, change: Change) -> bool:
        try:
            self.policy.assume([change])
        except BadInput:  # the policy has another idea by now
            return False
        return True
