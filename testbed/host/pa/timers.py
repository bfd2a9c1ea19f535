"""How long the protocols of the PA network wait."""

from __future__ import annotations

from msgspec import Struct


class PaTimers(Struct, frozen=True):
    """Seconds and counts. Random delays before a first probe (both RFCs) are left out."""

    probes: int  # IPv4 DAD: PROBE_NUM
    probe_interval: float  # between probes, and from the last one to Preferred
    solicitations: int  # IPv6 DAD: DupAddrDetectTransmits
    retransmit: float  # RetransTimer: between them, and from the last one to Preferred
    announcements: int  # of an address that became Preferred
    announce_interval: float
    defend_interval: float  # a second conflict within it ends an IPv4 PA
    resolve_interval: float
    resolve_attempts: int
    reachable: float  # a neighbor is asked again after this time
    report_interval: float  # longest random delay before a membership change is told once more


# rfc: PROBE_NUM 3, PROBE_MAX 2 s, ANNOUNCE_WAIT 2 s, ANNOUNCE_NUM 2, ANNOUNCE_INTERVAL 2 s, DEFEND_INTERVAL
# 10 s (RFC 5227 section 1.1); DupAddrDetectTransmits 1 (RFC 4862 section 5.1), RETRANS_TIMER 1 s,
# MAX_MULTICAST_SOLICIT 3, REACHABLE_TIME 30 s (RFC 4861 section 10); Unsolicited Report Interval 1 s
# (RFC 3376 section 8.11, RFC 3810 section 9.11).
TIMERS = {
    "fast": PaTimers(
        probes=1,
        probe_interval=0.05,
        solicitations=1,
        retransmit=0.05,
        announcements=1,
        announce_interval=0.05,
        defend_interval=10.0,
        resolve_interval=0.05,
        resolve_attempts=5,
        reachable=30.0,
        report_interval=0.1,
    ),
    "rfc": PaTimers(
        probes=3,
        probe_interval=2.0,
        solicitations=1,
        retransmit=1.0,
        announcements=2,
        announce_interval=2.0,
        defend_interval=10.0,
        resolve_interval=1.0,
        resolve_attempts=3,
        reachable=30.0,
        report_interval=1.0,
    ),
}
