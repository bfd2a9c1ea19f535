"""What a host does with its link to the VMM: follows its policy, reports PAs and what is learned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from testbed.channel import Message
from testbed.host.learning import Learner
from testbed.host.policy import PolicyControl
from testbed.host.vmm.link import Access, Handlers, VmmLink
from testbed.host.vmm.reporter import VmmReporter
from testbed.telemetry import EventLog
from testbed.vmm.model import Probe

_PAUSE = 0.5  # seconds until what could not be told is told again


class VmmSide:
    """The VMM as a host sees it. ``address_states``: [{"provider_address", "virtual_subnet_id", "state"}]."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        policy: PolicyControl,
        learner: Learner,
        events: EventLog,
        address_states: Callable[[], list[Message]],
    ) -> None:
        self._loop = loop
        self._policy = policy
        self._learner = learner
        self._events = events
        self._address_states = address_states
        self._link: VmmLink | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    def join(self, host: str, access: Message | None) -> None:
        """Be a host of the VMM that ``access`` describes, or of none; the same one is kept."""
        wanted = None if access is None else msgspec.convert(access, Access)
        if self._link is not None and self._link.access == wanted:
            return
        self.close()
        if wanted is not None:
            handlers = Handlers(
                self._policy.reset, self._policy.follow, self._in_step, self._probe, self._connection
            )
            self._link = VmmLink(self._loop, host, wanted, handlers)
            self._learner.reporter = VmmReporter(self._link)
            self._reporting = self._loop.create_task(self._report())

    def close(self) -> None:
        """Part from the VMM."""
        if self._link is not None:
            self._link.close()
            self._link = self._learner.reporter = None
        if self._reporting is not None:
            self._reporting.cancel()
            self._reporting = None

    @property
    def owns_policy(self) -> bool:
        """Whether the VMM has said what the policy is: from then on no Plan says it."""
        return self._link is not None and self._link.revision is not None

    def status(self) -> Message | None:
        """How far the host is; None without a VMM."""
        link = self._link
        if link is None:
            return None
        return {
            "connected": link.connected,
            "revision": link.revision,
            "store": link.store,
            "error": link.error,
        }

    def resync(self) -> None:
        """Take the whole policy from the VMM anew: what was changed by hand is gone."""
        if self._link is not None:
            self._link.resync()

    def addresses_changed(self) -> None:
        """A PA has another state: the VMM is to know."""
        self._news.set()

    def _in_step(self) -> None:
        self._news.set()
        self._learner.resynced()

    def _connection(self, connected: bool, error: str) -> None:
        self._events.add("vmm-link", "vmm", state="connected" if connected else "away", error=error)

    def _probe(self, question: Probe) -> None:
        self._learner.answer_probe(question.vsid, question.mac, question.ca)

    async def _report(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            link = self._link
            if link is None or link.revision is None:
                continue
            report: dict[str, Any] = {
                "revision": link.revision,
                "provider_addresses": self._address_states(),
            }
            try:
                await link.call("POST", "/report", report)
            except OSError:
                await asyncio.sleep(_PAUSE)  # the VMM is away
                self._news.set()
