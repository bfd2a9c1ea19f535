"""Asking VMs of this host whether they still have addresses, a few times, through the worker."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable
from typing import Any, NamedTuple

from testbed.host.orders import WorkerLink
from testbed.topology.plan import Timers


class ProbeTimers(NamedTuple):
    """Probes of an address, and seconds from each to the next, and from the last one to the judgement."""

    probes: int
    interval: float


# rfc: MAX_UNICAST_SOLICIT 3, RETRANS_TIMER 1 s (RFC 4861 section 10). fast: a guest's kernel answers while
# the question is written to its NIC, so that short intervals miss nobody who is there.
TIMERS: dict[Timers, ProbeTimers] = {"fast": ProbeTimers(3, 0.005), "rfc": ProbeTimers(3, 1.0)}
_FIRST_LOOK = 0.005  # seconds after a probe: who is there need not be waited for


class Prober:
    """Probes through one worker. ``timers`` may be set anew at any time."""

    def __init__(self, link: WorkerLink, timers: ProbeTimers) -> None:
        self.timers = timers
        self._link = link
        self._asking: dict[tuple[str, str], asyncio.Task[bool]] = {}

    async def answers(self, port: str, ca: str) -> bool:
        """Whether the VM at a port answers for an address; who asks at the same time shares the answer."""
        key = port, ca
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.get_running_loop().create_task(self._ask(port, ca))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def silent(self, port: str, cas: Iterable[str]) -> list[str]:
        """Those of some addresses for which the VM does not answer; all are asked for at once."""
        cas = list(cas)
        answered = await asyncio.gather(*(self.answers(port, ca) for ca in cas))
        return [ca for ca, there in zip(cas, answered, strict=True) if not there]

    def stop(self) -> None:
        """Ask no more."""
        for task in [*self._asking.values()]:
            task.cancel()

    async def _ask(self, port: str, ca: str) -> bool:
        where: dict[str, Any] = {"port": port, "address": ipaddress.ip_address(ca).packed}
        interval = self.timers.interval
        pauses = (_FIRST_LOOK, interval - _FIRST_LOOK) if interval > _FIRST_LOOK else (interval,)
        try:
            for _ in range(self.timers.probes):
                self._link.order("probe", **where)
                for pause in pauses:
                    await asyncio.sleep(pause)
                    if self._link.order("probe-result", **where):
                        return True
            return False
        finally:
            self._link.order("probe-end", **where)
