"""Membership in PA multicast groups: the host's side of IGMPv3 and MLDv2, with the older versions.

A host wants all sources of a group, so its filter is always "exclude nobody". While a querier of
IGMPv2 or MLDv1 is heard, the host speaks that version (RFC 3376 section 7.2.1, RFC 3810 section
8.2.1); IGMPv1 is not spoken. Others' reports do not silence the host's own: a switch that snoops
must hear each member.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

from testbed.host.pa.link import TeamLink
from testbed.host.pa.timers import PaTimers
from testbed.packets import igmp, mld
from testbed.packets.datagram import Datagram, multicast_mac
from testbed.packets.igmp import IS_EXCLUDE, TO_EXCLUDE, TO_INCLUDE, Query, Record

ROBUSTNESS = 2  # reports of each change
_QUERY_INTERVAL = 125.0  # of a querier that has not told its own
_RECORDS = 64  # per report: 64 of IPv6 are 1288 bytes


def link_local(mac: bytes) -> bytes:
    """fe80:: and the modified EUI-64 of a MAC (RFC 4291 appendix A): the source of MLD messages.

    It is unique because the MAC is, and it is nobody's to reach: nothing answers for it.
    """
    return b"\xfe\x80" + bytes(6) + bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:]


class Groups:
    """The groups of one family. ``source()``: the address that reports come from."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: TeamLink,
        timers: PaTimers,
        version: int,
        source: Callable[[], bytes],
    ) -> None:
        self._loop, self._link, self._timers = loop, link, timers
        self._version, self._source = version, source
        self._members: set[bytes] = set()
        self._changes: dict[bytes, tuple[int, int]] = {}  # record kind, reports left
        self._retransmit: asyncio.TimerHandle | None = None
        self._answers: dict[bytes, asyncio.TimerHandle] = {}  # by group; b"" is the one for all groups
        self._query_interval = _QUERY_INTERVAL
        self._older_until = 0.0

    def set(self, wanted: set[bytes]) -> None:
        """Make these the groups. Changes are reported at once, and once more after a random time."""
        for group in wanted - self._members:
            self._changes[group] = (TO_EXCLUDE, ROBUSTNESS)
        for group in self._members - wanted:
            self._changes[group] = (TO_INCLUDE, ROBUSTNESS)
            self._cancel(group)
        if wanted != self._members:
            self._members = set(wanted)
            self._report_changes()

    def tell(self) -> None:
        """Report all groups at once: the host hears them at another place now."""
        if self._members:
            self._send([Record(IS_EXCLUDE, group) for group in sorted(self._members)])

    def close(self) -> None:
        """Leave all groups; this is said only once."""
        self.set(set())
        if self._retransmit:
            self._retransmit.cancel()
        for group in list(self._answers):
            self._cancel(group)

    def heard(self, query: Query) -> None:
        """Answer a query after a random part of its time (RFC 3376 section 5.2).

        One for certain sources of a group is answered like one for the group.
        """
        if query.older:
            interval = ROBUSTNESS * self._query_interval + query.max_response
            self._older_until = self._loop.time() + interval
        elif query.interval:
            self._query_interval = query.interval
        delay = random.random() * query.max_response
        if query.is_general:
            self._answer(b"", delay)
        elif query.group in self._members:
            self._answer(query.group, delay)

    def _answer(self, group: bytes, delay: float) -> None:
        due = self._loop.time() + delay
        pending = [self._answers[key] for key in {b"", group} & self._answers.keys()]
        if any(timer.when() <= due for timer in pending):
            return  # that answer comes sooner and says it too
        self._cancel(group)
        self._answers[group] = self._loop.call_at(due, self._report_state, group)

    def _cancel(self, group: bytes) -> None:
        if timer := self._answers.pop(group, None):
            timer.cancel()

    def _report_state(self, group: bytes) -> None:
        del self._answers[group]
        groups = [group] if group else sorted(self._members)
        self._send([Record(IS_EXCLUDE, each) for each in groups])

    def _report_changes(self) -> None:
        if self._retransmit:
            self._retransmit.cancel()
            self._retransmit = None
        if self._send([Record(kind, group) for group, (kind, _) in self._changes.items()]):
            self._changes = {
                group: (kind, left - 1) for group, (kind, left) in self._changes.items() if left > 1
            }
            delay = random.random() * self._timers.report_interval
        else:
            delay = self._timers.report_interval  # the NIC is not up yet
        if self._changes:
            self._retransmit = self._loop.call_later(delay, self._report_changes)

    def _send(self, records: Sequence[Record]) -> bool:
        """Whether all has left."""
        return all(
            self._link.send_datagram(report, multicast_mac(report.destination), self._link.mac)
            for report in self._reports(records)
        )

    def _reports(self, records: Sequence[Record]) -> Iterable[Datagram]:
        if self._loop.time() < self._older_until:
            return map(self._older_report, records)
        return self._newer_reports(records)

    def _newer_reports(self, records: Sequence[Record]) -> Iterator[Datagram]:
        build = igmp.build_report if self._version == 4 else mld.build_report
        for start in range(0, len(records), _RECORDS):
            yield build(self._source(), records[start : start + _RECORDS])

    def _older_report(self, record: Record) -> Datagram:
        left = record.kind == TO_INCLUDE
        if self._version == 4:
            return (igmp.build_v2_leave if left else igmp.build_v2_report)(self._source(), record.group)
        return (mld.build_v1_done if left else mld.build_v1_report)(self._source(), record.group)
