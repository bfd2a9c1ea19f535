"""What an administrator asks of a host: ping in the PA space, and tests of VMs' adapters.

Both go on after the request is answered: the asker looks for the result, and says when it wants no more.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
from collections.abc import Callable, Collection

import msgspec

from testbed.channel import Message
from testbed.errors import BadInput
from testbed.host.orders import WorkerLink
from testbed.host.pa.pings import Order, Pings
from testbed.host.provider import ProviderSide


class Diagnostics:
    """``members()``: the host's NICs."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: WorkerLink,
        provider: ProviderSide,
        members: Callable[[], Collection[str]],
    ) -> None:
        self._loop, self._link, self._provider, self._members = loop, link, provider, members
        self._pings = Pings(loop)
        self._numbers = itertools.count(1)
        self._tests: dict[int, asyncio.TimerHandle] = {}
        self.answers: dict[str, Callable[[Message], Message]] = {
            "ping": self._ping,
            "ping-result": lambda message: msgspec.to_builtins(self._pings.result(message["ping"])),
            "ping-end": self._ping_end,
            "test-adapter": self._test,
            "test-adapter-state": lambda message: {
                "progress": self._link.order("test-adapter-state", test=message["test"])
            },
            "test-adapter-end": self._test_end,
        }

    def close(self) -> None:
        """The host ends."""
        self._pings.stop()
        for timer in self._tests.values():
            timer.cancel()

    def _ping(self, message: Message) -> Message:
        """Raises BadInput for a source that is not in use here, and where no route leads."""
        source, destination, member = message["source"], message["destination"], message["member"]
        in_use = self._provider.preferred()
        if source not in in_use:
            known = ", ".join(in_use) or "none"
            raise BadInput(f"{source} is no provider address that is in use here: one of {known}")
        if destination in in_use:
            raise BadInput(f"{destination} is this host's own: ping it from another host")
        if member and member not in self._members():
            raise BadInput(f"the team has no member {member!r}: one of {', '.join(self._members())}")
        packed = ipaddress.ip_address(destination).packed
        next_hop = self._link.order("provider-next-hop", address=packed)
        if next_hop is None:
            raise BadInput(
                f"no route of the PA network leads to {destination}: `testbed policy` shows provider-routes"
            )
        fields = {**message, "next_hop": str(ipaddress.ip_address(next_hop))}
        return {"ping": self._pings.start(self._provider.space, msgspec.convert(fields, Order))}

    def _ping_end(self, message: Message) -> Message:
        self._pings.end(message["ping"])
        return {}

    def _test(self, message: Message) -> Message:
        """Begin one end of a test; it ends by itself after ``timeout`` seconds."""
        number = next(self._numbers)
        self._link.order("test-adapter", test=number, end=message["end"], size=message["size"])
        self._tests[number] = self._loop.call_later(message["timeout"], self._expired, number)
        return {"test": number}

    def _test_end(self, message: Message) -> Message:
        self._expired(message["test"])
        return {}

    def _expired(self, number: int) -> None:
        if timer := self._tests.pop(number, None):
            timer.cancel()
            self._link.order("test-adapter-end", test=number)
