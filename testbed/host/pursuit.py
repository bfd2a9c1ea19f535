"""One claim of an address, from its first sight until the VMM has decided (docs/learning.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from testbed.host.learned import Claim, LearnedRecords
from testbed.host.prober import Prober
from testbed.host.reporter import Outcome, Reporter
from testbed.topology.plan import LookupRecord

_CONFLICT = 409
_AGAIN, _TRIES = 1.0, 5  # seconds between reports of a contested claim, and how many there are
_LOOK = 0.02  # seconds between looks whether the VMM has decided meanwhile

_LATER = (0.1, 0.4, 2.0)  # seconds from a decided claim to another look at older addresses, and on

_NEW = ("added", "moved", "known")

PortOf: TypeAlias = Callable[[int, str], str | None]


class Pursuit:
    """``run`` may be called again when it came to no end; what has been found out is kept.

    ``port_of(vsid, mac)``: the port of a VM of this host.
    """

    def __init__(self, claim: Claim, records: LearnedRecords, prober: Prober, port_of: PortOf) -> None:
        self.claim = claim
        self._records = records
        self._prober = prober
        self._port_of = port_of
        self._assumed = False
        self._told = False  # of the address, by an event
        self._silent: list[LookupRecord] = []  # older addresses that the VM gave up, not reported yet
        self._dropped: list[LookupRecord] = []  # and those of them that are gone here already

    async def run(self, reporter: Reporter | None) -> bool:
        """Whether the claim has come to its end; if not, the VMM is away."""
        if self._records.policy.pa_of(self.claim.vsid) is None:
            return False  # the VMM has not told this host yet where it is
        self._assume()
        if reporter is None:
            await self._decide_alone()
            return True
        first = asyncio.create_task(self._report(reporter))
        try:
            await self._probe_older()
            if self._assumed:
                self._drop_silent()
            outcome = await first
        finally:
            first.cancel()
        if outcome.status == "contested":
            outcome = await self._contest(reporter)
        return await self._finish(reporter, outcome)

    def give_up(self) -> None:
        """Nobody is to decide any more: the VM is gone."""
        self._retract()

    # ---- steps ------------------------------------------------------------------------------

    def _assume(self) -> None:
        if not self._records.has(self.claim):  # the VMM's whole policy may have ended an assumption
            self._assumed = self._told = self._records.add(self.claim)

    async def _probe_older(self) -> None:
        older = {record.customer_address: record for record in self._records.older(self.claim)}
        silent = await self._prober.silent(self.claim.port, older)
        self._silent += [older[ca] for ca in silent if older[ca] not in self._silent]

    def _drop_silent(self) -> None:
        for record in self._silent:
            if record not in self._dropped and self._records.drop(record, self.claim.how):
                self._dropped.append(record)

    async def _report(self, reporter: Reporter, replaced: LookupRecord | None = None) -> Outcome:
        claim, pa = self.claim, self._records.policy.pa_of(self.claim.vsid)
        report: dict[str, str | int] = {
            "mac": claim.mac,
            "ca": claim.ca,
            "vsid": claim.vsid,
            "pa": pa or "",
            "how": claim.how,
        }
        if replaced is not None:
            report["replaces"] = replaced.customer_address
        return await reporter.learned(report)

    async def _contest(self, reporter: Reporter) -> Outcome:
        """The VMM has the holder asked, and tells all hosts if that is silent."""
        self._retract()
        deadline = asyncio.get_running_loop().time()
        for _ in range(_TRIES):
            deadline += _AGAIN
            await self._come(deadline)
            outcome = await self._report(reporter)
            if outcome.status != "contested":
                return outcome
        return Outcome("refused", "the VMM has not decided between two VMs that claim the address")

    async def _come(self, deadline: float) -> None:
        """Until the VMM has told this host that the address is the claimant's, but not for ever."""
        while not self._records.has(self.claim) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_LOOK)

    async def _finish(self, reporter: Reporter, outcome: Outcome) -> bool:
        if outcome.status == "refused" and outcome.code == _CONFLICT and self._silent:
            # there may be no room for one address more, but there is for another one
            outcome = await self._report(reporter, self._silent[0])
            if outcome.status in _NEW:
                self._replaced(self._silent[0])
        if outcome.status == "away":
            return False
        if outcome.status not in _NEW:
            self._retract()
            self._records.refuse(self.claim, outcome.what)
            return True
        await self._come(asyncio.get_running_loop().time() + _AGAIN)
        self._tell()
        self._drop_silent()
        return await self._report_replaced(reporter) and await self._look_again(reporter)

    async def _look_again(self, reporter: Reporter) -> bool:
        """A VM may take its new address first and give up the older one after that."""
        for pause in _LATER:
            if not self._records.older(self.claim):
                break
            await asyncio.sleep(pause)
            if not self._records.has(self.claim):
                break
            await self._probe_older()
            self._drop_silent()
            if not await self._report_replaced(reporter):
                return False
        return True

    async def _report_replaced(self, reporter: Reporter) -> bool:
        for record in [*self._silent]:
            outcome = await self._report(reporter, record)
            if outcome.status == "away":
                return False
            self._replaced(record)
            if outcome.status not in _NEW:  # such as the next hop of a route: it stays
                self._records.retract(record)
                self._records.refuse(self.claim, outcome.what)
        return True

    async def _decide_alone(self) -> None:
        """Without a VMM: a VM of this host that has learned the address can be asked; others are right."""
        held = self._records.holder(self.claim)
        if held is not None and held.mac_address != self.claim.mac:
            port = self._port_of(held.virtual_subnet_id, held.mac_address)
            if held.type != "Dynamic" or port is None or await self._prober.answers(port, self.claim.ca):
                self._records.refuse(self.claim, f"it is that of {held.mac_address}")
                return
            self._records.drop(held, self.claim.how)
            self._assume()
        if not self._records.has(self.claim):
            self._records.refuse(self.claim, "the VM claims too many addresses")
            return
        await self._probe_older()
        self._drop_silent()

    # ---- ends -------------------------------------------------------------------------------

    def _tell(self) -> None:
        record = self._records.holder(self.claim)
        if not self._told and record is not None and self._records.has(self.claim):
            self._records.tell("Added", record, self.claim.how)
            self._told = True

    def _replaced(self, record: LookupRecord) -> None:
        self._silent.remove(record)

    def _retract(self) -> None:
        """Back to what the VMM said last, the older addresses too."""
        if self._assumed:
            self._records.retract_claim(self.claim)
            self._assumed = self._told = False
        for record in self._dropped:
            self._records.retract(record)
        self._dropped = []
