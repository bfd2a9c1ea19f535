"""What learning needs of its surroundings: the host's policy, and somebody to report to (the VMM)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Protocol

from testbed.topology.plan import LookupRecord
from testbed.wnv.policy import Change

Status = Literal["added", "moved", "known", "contested", "deleted", "gone", "refused", "away"]


class Outcome(NamedTuple):
    """What became of a report.

    contested: another VM has the address and is being asked; report again. refused: with ``what`` was said
    and the HTTP status ``code``. away: nobody took the report.
    """

    status: Status
    what: str = ""
    code: int = 0


class Reporter(Protocol):
    """Carries reports to the VMM. None of these raises for what the VMM or the network does."""

    async def learned(self, report: dict[str, str | int]) -> Outcome:
        """A VM uses an address. report: mac, ca, vsid, pa, how, and perhaps replaces."""

    async def withdraw(self, vsid: int, mac: str, ca: str) -> Outcome:
        """A VM does not answer for a learned address any more."""

    async def probed(self, vsid: int, mac: str, ca: str, answered: bool) -> None:
        """What came of asking one of this host's VMs on the VMM's behalf."""


class LearnedPolicy(Protocol):
    """The host's policy. CAs, PAs and MACs are canonical text."""

    def record_of(self, vsid: int, ca: str) -> LookupRecord | None:
        """The lookup record of a CA."""

    def records_of_mac(self, vsid: int, mac: str) -> list[LookupRecord]:
        """The lookup records of a VM's adapter."""

    def pa_of(self, vsid: int) -> str | None:
        """The host's own PA of a VSID."""

    def on_link(self, vsid: int, ca: str) -> bool:
        """Whether a CA lies in a prefix of the virtual subnet."""

    def assume(self, changes: list[Change]) -> None:
        """Changes that hold until the VMM speaks of their objects. Raises BadInput."""

    def retract(self, refs: Iterable[tuple[str, tuple[Any, ...]]]) -> None:
        """Give up what was assumed of some objects: kind and key of each."""
