"""Whether a member of a team works: carrier, loopback messages, the administrator's word, its partner's.

Pure: times are given, in seconds on one clock. A member that fails is given up at once; one that comes
back has to be good for a while first, and longer each time if it keeps failing.
"""

from __future__ import annotations

from msgspec import Struct

LOST_IN_SILENCE = 3  # messages without an answer, and nothing else has come: the cable carries nothing
LOST_IN_TRAFFIC = 8  # ... while frames come in, among which answers may get lost
_LONGEST_HOLD = 8.0
_REMEMBERED = 10.0  # seconds for which a failure makes the next hold longer
_SMOOTHING = 0.25


class HealthTimers(Struct, frozen=True):
    """Seconds. interval: between loopback messages; hold: for which a member has to be good."""

    interval: float
    hold: float


TIMERS = {"fast": HealthTimers(0.1, 0.5), "rfc": HealthTimers(1.0, 5.0)}


class Health:
    """One member's. ``partnered``: its partner takes its frames (always, where there is none to ask)."""

    def __init__(self, timers: HealthTimers) -> None:
        self._timers = timers
        self.carrier = True
        self.administrative = False  # given up by order
        self.partnered = True
        self.round_trip = 0.0  # seconds, smoothed; 0: never measured
        self.usable = True
        self._lost = 0
        self._answers = False  # the far end has answered once, so its silence means something
        self._good_since = 0.0
        self._failures: list[float] = []

    def set_carrier(self, up: bool) -> None:
        """A cable that comes back has to prove itself if it ever did."""
        if up and not self.carrier and self._answers:
            self._lost = LOST_IN_TRAFFIC
        self.carrier = up

    def unanswered(self) -> None:
        """A loopback message has not come back within the interval."""
        self._lost += 1

    def answered(self, round_trip: float) -> None:
        """One has come back."""
        if self._lost or not self.round_trip:
            self.round_trip = round_trip
        self.round_trip += _SMOOTHING * (round_trip - self.round_trip)
        self._lost, self._answers = 0, True

    def suspicious(self) -> bool:
        """Whether it matters now if anything else is received."""
        return self._answers and LOST_IN_SILENCE <= self._lost < LOST_IN_TRAFFIC

    def silent(self) -> None:
        """Nothing else is received either."""
        self._lost = LOST_IN_TRAFFIC

    def fault(self) -> str:
        """Why it does not work, or ""."""
        if self.administrative:
            return "administrative"
        if not self.carrier:
            return "no-carrier"
        if self._answers and self._lost >= LOST_IN_TRAFFIC:
            return "no-answer"
        return "" if self.partnered else "no-partner"

    def fault_but_partner(self) -> bool:
        """Whether it would not work with a partner either."""
        return self.fault() not in ("", "no-partner")

    def look(self, now: float) -> bool:
        """Whether it may be used from now on; the same in :attr:`usable`."""
        if self.fault():
            if self.usable:
                self._failures = [when for when in self._failures if now - when < _REMEMBERED] + [now]
            self.usable, self._good_since = False, now
        elif not self.usable and now - self._good_since >= self.hold():
            self.usable = True
        return self.usable

    def hold(self) -> float:
        """For how long it has to be good before it is used again; it doubles with each recent failure."""
        doublings = max(0, len(self._failures) - 1)
        return float(min(_LONGEST_HOLD, self._timers.hold * 2 ** min(doublings, 10)))
