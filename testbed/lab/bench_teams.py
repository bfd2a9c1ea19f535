"""Teams that a bench gives the hosts on its path, as `apply` would; at the end the lab is what it was.

A host can't take over another team while it runs: hosts on the path are started anew with their VMs.
What was changed on their NICs, cables and team members since the lab came up is done again each time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from testbed.errors import BadInput, LabError, TestbedError
from testbed.lab import link, store
from testbed.lab import nic as nics
from testbed.lab import team as team_of
from testbed.lab.apply import carry_out
from testbed.lab.build import Progress
from testbed.lab.lab import Lab
from testbed.nic.offloads import Offloads
from testbed.perf.plan import Cell
from testbed.signals import deferred
from testbed.topology.diff import diff
from testbed.topology.plan import Plan
from testbed.topology.reteam import NONE, name_of, with_team

ACTIVE_SECONDS = 20.0  # until all members of a new team work; one that came and went is held back for 8 s


class NotPutBack(LabError):
    """The lab has a team that it is not to have, or is half built."""


def plan_of(plan: Plan, hosts: Sequence[str], team: str | None) -> Plan:
    """The Plan of a lab whose hosts on the path have a team; None: as they are.

    The first of ``hosts`` is to have what is asked, another one with a single NIC stays as it is. Raises
    BadInput for a team that they can't have.
    """
    if team is None:
        return plan
    changed = with_team(plan, hosts, team)
    if team != NONE and len(plan.host(hosts[0]).nics) == 1:
        raise BadInput(
            f"{hosts[0]} has one NIC, so its team is none, not {team}: use a lab in which it has several"
        )
    return changed


def grouped(plan: Plan, hosts: Sequence[str], cells: Sequence[Cell]) -> list[Cell]:
    """The cells, those of one team next to each other, those of the lab's own team first."""

    def group(cell: Cell) -> str:
        try:
            return "" if plan_of(plan, hosts, cell.team) == plan else str(cell.team)
        except BadInput:
            return ""  # nothing is switched for it

    order = [*dict.fromkeys(["", *map(group, cells)])]
    return sorted(cells, key=lambda cell: order.index(group(cell)))


class Teams:
    """Switches the team of hosts on the path; at the end of a ``with`` block it is what it was."""

    def __init__(self, lab: Lab, hosts: Sequence[str]) -> None:
        self._lab = lab
        self._hosts = hosts
        self._own = lab.plan
        self._by_hand: _ByHand | None = None  # known before anything is switched

    def __enter__(self) -> Teams:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the hosts the lab's own team. Raises NotPutBack."""
        self.switch(None, lambda _: None)

    def switch(self, team: str | None, progress: Progress) -> None:
        """Give the hosts a team; None: the lab's own.

        Raises BadInput before anything is done, or LabError, and then they have the lab's own again,
        or NotPutBack.
        """
        before, wanted = self._lab.plan, plan_of(self._own, self._hosts, team)
        if wanted == before:
            return
        self._by_hand = self._by_hand or _ByHand(self._lab, self._hosts)
        with deferred():
            if wanted == self._own:
                self._put_back(before, progress)
                return
            try:
                # on record first: whoever is killed meanwhile leaves a lab of which `apply` of the lab's own
                # topology makes all these hosts anew
                store.save_plan(self._lab.record.name, wanted)
                self._become(wanted, progress)
            except BaseException:
                self._clear(before)
                self._put_back(wanted, progress)
                raise

    def _become(self, wanted: Plan, progress: Progress) -> None:
        lab = self._lab
        carry_out(lab, wanted, diff(lab.plan, wanted), progress, save=False)
        assert self._by_hand
        self._by_hand.repeat(lab)
        _wait_active(lab, self._hosts, self._by_hand.failed)

    def _put_back(self, from_plan: Plan, progress: Progress) -> None:
        lab, lab.plan = self._lab, from_plan
        try:
            self._become(self._own, progress)
        except TestbedError as error:
            remedy = (
                f"`testbed apply {lab.record.name} FILE` with its topology file does it, or `down` and `up`"
            )
            raise NotPutBack(
                f"the team of {', '.join(self._hosts)} is not put back: {error}; {remedy}"
            ) from error
        store.save_plan(lab.record.name, self._own)

    def _clear(self, before: Plan) -> None:
        """Whatever was being removed or made: no aggregate is left that the next step knows nothing of."""
        for plan in (before, self._own):
            self._lab.plan = plan
            with contextlib.suppress(TestbedError, OSError):
                team_of.uninstall(self._lab, self._hosts)


class _ByHand:
    """What may have been changed on hosts since the lab came up, and a host that is made anew forgets."""

    def __init__(self, lab: Lab, hosts: Collection[str]) -> None:
        self._nics = {(host, nic["name"]): nic for host in hosts for nic in nics.show(lab, host)}
        self._cables = {
            end: link.show(lab, end)
            for end in (
                f"{cable.host}:{cable.nic}" for cable in lab.plan.fabric.cables if cable.host in hosts
            )
        }
        members = {
            (host, each["name"]): each for host in hosts for each in team_of.show(lab, host)["members"]
        }
        self._given_up = [key for key, each in members.items() if each["fault"] == "administrative"]
        self.failed = {key for key, each in members.items() if each["state"] == "Failed"}

    def repeat(self, lab: Lab) -> None:
        """The same on the hosts as they are now, as far as they have these NICs."""
        there = {(host.name, nic.name) for host in lab.plan.hosts for nic in host.nics}
        for (host, name), told in self._nics.items():
            if (host, name) in there:
                self._repeat_nic(lab, host, name, told)
        for end, told in self._cables.items():
            if tuple(end.split(":")) in there:
                link.replace(lab, end, {way: link.faults(each) for way, each in told["ways"].items()})
                if not told["up"]:
                    link.set_up(lab, end, up=False)
        for host, name in self._given_up:
            if (host, name) in there and len(lab.plan.host(host).nics) > 1:
                team_of.set_member(lab, host, name, failed=True)

    def _repeat_nic(self, lab: Lab, host: str, name: str, told: Any) -> None:
        now = next(each for each in nics.show(lab, host) if each["name"] == name)
        if now["offloads"] != told["offloads"]:
            nics.replace(lab, host, name, msgspec.convert(told["offloads"], Offloads))
        if now["rss"] != told["rss"]:
            rss = {**told["rss"], "key": bytes.fromhex(told["rss"]["key"])}
            nics.change(lab, host, [name], {}, rss)


def _wait_active(lab: Lab, hosts: Sequence[str], failed: Collection[tuple[str, str]]) -> None:
    """Until all members work, but those that did not before. Raises LabError."""
    deadline = time.monotonic() + ACTIVE_SECONDS
    for host in hosts:
        while waiting := [
            f"{host}:{each['name']} ({each['fault']})"
            for each in team_of.show(lab, host)["members"]
            if each["state"] == "Failed" and (host, each["name"]) not in failed
        ]:
            if time.monotonic() > deadline:
                raise LabError(
                    f"members of the team {name_of(lab.plan.host(host))} do not work: {', '.join(waiting)}"
                )
            time.sleep(0.02)  # a poll with a deadline
