"""What a worker has to tell control about addresses: bounded, however much a VM sends.

The worker rings once; control fetches all there is by the order ``claims``. So the channel never has more
than one ring, and no VM can make either process wait for the other.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from time import monotonic
from typing import Any

from testbed.packets.ethernet import format_mac
from testbed.switch.port import Port
from testbed.wnv.learning import Claim

BURST = 32  # claims of one port at once
RATE = 16.0  # and per second from then on
AGAIN = 1.0  # seconds in which the same claim is told once, unless the policy has changed meanwhile
_REMEMBERED = 1024
_WAITING = 1024  # claims of all ports that control has not fetched yet


class ClaimBox:
    """Claims on their way to control. ``ring``: called when there is something after there was nothing."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._waiting: list[Claim] = []
        # port and address -> when; only allowed claims get in, and old ones go before there are many
        self._told: dict[tuple[str, bytes], float] = {}
        self._allowance: dict[str, tuple[float, float]] = {}  # port -> claims it may make, as of when

    def put(self, claim: Claim) -> None:
        """Tell control; what is too much is counted at the port."""
        now, key = monotonic(), (claim.port.name, claim.ca)
        if now - self._told.get(key, now - AGAIN) < AGAIN:
            return
        if len(self._waiting) >= _WAITING or not self._may(claim.port, now):
            claim.port.suppressed_claims += 1
            return
        if len(self._told) >= _REMEMBERED:
            self._told = {each: when for each, when in self._told.items() if now - when < AGAIN}
        self._told[key] = now
        self._waiting.append(claim)
        if len(self._waiting) == 1:
            self._ring()

    def take(self) -> list[dict[str, Any]]:
        """All that waits, as messages to control: op "claim", port, vsid, mac, ca, how."""
        waiting, self._waiting = self._waiting, []
        return [
            {
                "op": "claim",
                "port": claim.port.name,
                "vsid": claim.port.vsid,
                "mac": format_mac(claim.port.mac),
                "ca": str(ipaddress.ip_address(claim.ca)),
                "how": claim.how,
            }
            for claim in waiting
        ]

    def policy_changed(self) -> None:
        """What was told may be news again."""
        self._told.clear()

    def forget(self, port: str) -> None:
        """The port is gone, or in another virtual subnet."""
        self._waiting = [claim for claim in self._waiting if claim.port.name != port]
        self._allowance.pop(port, None)
        self._told = {key: when for key, when in self._told.items() if key[0] != port}

    def _may(self, port: Port, now: float) -> bool:
        left, since = self._allowance.get(port.name, (float(BURST), now))
        left = min(float(BURST), left + (now - since) * RATE)
        allowed = left >= 1
        self._allowance[port.name] = left - allowed, now
        return allowed
