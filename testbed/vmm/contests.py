"""Claims of an address that another VM has learned: the holder's host is asked whether it has it still.

Contests are in memory: a VMM that starts anew has none, and claimants report again anyhow. The rule is
in docs/vmm.md.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from testbed.topology.plan import LookupRecord
from testbed.vmm.distribution import Hub
from testbed.vmm.model import Learned, LearnedResult, Probe, Probed
from testbed.vmm.refusals import Refused
from testbed.vmm.reports import Reports
from testbed.vmm.rules import learning
from testbed.vmm.store.database import Store

DEADLINE = 1.0  # seconds a holder's host has to answer
REMEMBERED = 1.5  # seconds an answer holds: claimants report again after one, and hear of it
MOST = 8  # contests of one claimant at a time, answered ones too: no VM can have all others probed


@dataclass
class _Contest:
    """A claim that waits. host, report: who made it last, and how. refusal: what it gets if it fails."""

    host: str
    report: Learned
    refusal: learning.Contested
    answered: bool = False
    timer: asyncio.TimerHandle | None = None

    @property
    def key(self) -> tuple[int, str]:
        held = self.refusal.held
        return held.virtual_subnet_id, held.customer_address


class Contests:
    """Decides on learned addresses; a claim waits here while the holder is asked."""

    def __init__(self, store: Store, hub: Hub, reports: Reports) -> None:
        self._store = store
        self._hub = hub
        self._reports = reports
        self._open: dict[tuple[int, str], _Contest] = {}  # by VSID and CA

    def learn(self, host: str, report: Learned) -> LearnedResult:
        """Decide on a report, or have the holder asked. Raises Refused."""
        try:
            return self._decide(host, report)
        except learning.Contested as refusal:
            return self._claim(_Contest(host, report, refusal))

    def probed(self, host: str, answer: Probed) -> None:
        """A host's word on its own VM: decides the contest that asked for it. Raises Refused."""
        mac, ca = learning.probed_address(self._store, host, answer)
        contest = self._open.get((answer.vsid, ca))
        if contest is None or contest.answered:
            return
        if (contest.refusal.asked, contest.refusal.held.mac_address) != (host, mac):
            return
        if answer.answered:
            contest.answered = True
            self._end_in(REMEMBERED, contest)
            self._note(contest.host, contest.report, contest.refusal)
        else:
            self._end(contest)

    def _decide(self, host: str, report: Learned, silent: LookupRecord | None = None) -> LearnedResult:
        """silent: the record whose VM does not answer."""
        try:
            with self._store.change() as tx:
                return learning.learn(tx, host, report, silent)
        except learning.Contested:
            raise
        except learning.AddressConflict as conflict:
            self._note(host, report, conflict)
            raise

    def _claim(self, claim: _Contest) -> LearnedResult:
        held = claim.refusal.held
        contest = self._open.get(claim.key)
        if contest is not None and contest.refusal.held != held:  # it is moved, or another VM's by now
            self._forget(contest)
            contest = None
        if contest is None:
            return self._begin(claim)
        if contest.answered:
            self._note(claim.host, claim.report, claim.refusal)
            raise claim.refusal
        if contest.refusal.claimant == claim.refusal.claimant:
            contest.host, contest.report = claim.host, claim.report
        return self._contested()  # another claimant's turn comes when this one's is over

    def _begin(self, claim: _Contest) -> LearnedResult:
        refusal = claim.refusal
        mine = sum(contest.refusal.claimant == refusal.claimant for contest in self._open.values())
        if mine < MOST:
            vsid, ca = claim.key
            if not self._hub.probe(refusal.asked, Probe(vsid, refusal.held.mac_address, ca)):
                return self._decide(claim.host, claim.report, refusal.held)  # nobody can vouch for the holder
            self._open[claim.key] = claim
            self._end_in(DEADLINE, claim)
        return self._contested()

    def _contested(self) -> LearnedResult:
        return LearnedResult("contested", self._store.revision)

    def _end_in(self, seconds: float, contest: _Contest) -> None:
        if contest.timer is not None:
            contest.timer.cancel()
        contest.timer = asyncio.get_running_loop().call_later(seconds, self._end, contest)

    def _end(self, contest: _Contest) -> None:
        """Time is up, or the holder is silent: then the claim is decided as things are now."""
        self._forget(contest)
        if contest.answered:
            return
        with suppress(Refused):  # the claimant hears of it when it reports again
            self._decide(contest.host, contest.report, contest.refusal.held)

    def _forget(self, contest: _Contest) -> None:
        if contest.timer is not None:
            contest.timer.cancel()
        if self._open.get(contest.key) is contest:
            del self._open[contest.key]

    def _note(self, host: str, report: Learned, conflict: learning.AddressConflict) -> None:
        if self._reports.is_news(host, report):
            with self._store.change() as tx:
                learning.note_conflict(tx, host, report, conflict)
