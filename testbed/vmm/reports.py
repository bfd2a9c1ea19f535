"""What hosts said last of themselves. It is not stored: after a start of the VMM they say it again."""

from __future__ import annotations

import time
from collections import OrderedDict

from testbed.vmm.model import AddressReport, Learned, Report

_REPEAT = 10.0  # seconds in which the same conflict is one event
_CONFLICTS_KEPT = 4096


class Reports:
    """The last report of each host, and which conflicts were noted lately."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, Report]] = {}
        self._conflicts: OrderedDict[tuple[str, int, str, str], float] = OrderedDict()

    def last(self, host: str) -> tuple[float | None, Report | None]:
        """When (seconds since the epoch) a host reported last, and what."""
        return self._last.get(host, (None, None))

    def keep(self, host: str, report: Report, now: float) -> None:
        """Note a host's report."""
        self._last[host] = now, report

    def forget(self, host: str) -> None:
        """The host is gone."""
        self._last.pop(host, None)

    def changed(self, host: str, report: Report) -> list[AddressReport]:
        """The PAs whose state is another than the host said last."""
        _, before = self.last(host)
        known = set(before.provider_addresses) if before else set()
        return [item for item in dict.fromkeys(report.provider_addresses) if item not in known]

    def is_news(self, host: str, report: Learned) -> bool:
        """Whether a conflict was not noted in the last seconds; a VM that insists fills no log."""
        key, now = (host, report.vsid, report.mac, report.ca), time.monotonic()
        if now - self._conflicts.get(key, -_REPEAT) < _REPEAT:
            return False
        self._conflicts[key] = now
        self._conflicts.move_to_end(key)
        if len(self._conflicts) > _CONFLICTS_KEPT:
            self._conflicts.popitem(last=False)
        return True
