"""Teams in running labs: rates of flows, outages, who carries what."""

from __future__ import annotations

import time

from testbed.lab.lab import Lab
from testbed.perf.outage import Outage, probing
from testbed.testing import streams
from testbed.testing.teams import Failure, failing, members, sent_by, wait_for

__all__ = ["failing", "members", "outage", "rate", "sent_by", "wait_for"]

BLUE1, BLUE2 = "10.0.0.5", "10.0.0.6"
SETTLE = 0.2  # seconds of probes before anything happens


def rate(lab: Lab, sources: list[int], port: int, seconds: float) -> float:
    """Bit/s of TCP streams from blue1 to blue2, one from each source port."""
    ends = lab.netns("blue1"), lab.netns("blue2")
    return streams.run(*ends, BLUE2, sources, port=port, seconds=seconds) * 8 / seconds


def outage(lab: Lab, how: Failure, member: str, seconds: float = 1.2) -> Outage:
    """The longest time without an answer from blue2 to blue1's probes when a member of host1's fails."""
    with probing(lab.netns("blue1"), [lab.netns("blue2")], BLUE2) as meter:
        time.sleep(SETTLE)  # probes run
        with failing(lab, how, member):
            time.sleep(seconds)
            found = meter.stop()
    return found
