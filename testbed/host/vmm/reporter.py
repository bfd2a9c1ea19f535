"""Reports of learned addresses, carried to the VMM over the host's link."""

from __future__ import annotations

import contextlib
from typing import Any

from testbed.host.reporter import Outcome
from testbed.host.vmm.link import VmmLink


class VmmReporter:
    """A :class:`testbed.host.reporter.Reporter`."""

    def __init__(self, link: VmmLink) -> None:
        self._link = link

    async def learned(self, report: dict[str, str | int]) -> Outcome:
        """A VM uses an address."""
        return await self._outcome("POST", report)

    async def withdraw(self, vsid: int, mac: str, ca: str) -> Outcome:
        """A VM does not answer for a learned address any more."""
        return await self._outcome("DELETE", vsid=vsid, mac=mac, ca=ca)

    async def probed(self, vsid: int, mac: str, ca: str, answered: bool) -> None:
        """What came of asking a VM on the VMM's behalf; the VMM goes on without it after a while."""
        body = {"vsid": vsid, "mac": mac, "ca": ca, "answered": answered}
        with contextlib.suppress(OSError):
            await self._link.call("POST", "/probed", body)

    async def _outcome(self, method: str, body: Any = None, **params: Any) -> Outcome:
        try:
            status, answer = await self._link.call(method, "/learned", body, **params)
        except OSError as error:
            return Outcome("away", str(error))
        if status < 400:
            return Outcome(answer["result"])
        if status >= 500:
            return Outcome("away", f"HTTP status {status}", status)
        said = answer["error"]
        return Outcome("refused", f"{said['what']}: {said['remedy']}", status)
