"""IP learning on a host: claims of its VMs become records here at once, then everywhere by the VMM.

The whole procedure is in docs/learning.md. The host never looks into a guest: it knows what the switch has
seen, and asks by probes at the VM's port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NamedTuple, TypeAlias

from testbed.channel import Message
from testbed.host.learned import Claim, LearnedRecords
from testbed.host.orders import WorkerLink
from testbed.host.prober import TIMERS, Prober
from testbed.host.pursuit import Pursuit
from testbed.host.reporter import LearnedPolicy, Reporter
from testbed.telemetry import EventLog
from testbed.topology.plan import LookupRecord, Timers

AGEING: dict[Timers, float] = {"fast": 10.0, "rfc": 300.0}  # seconds between questions to one VM (chosen)
_PER_PORT = 16  # claims of one port that are not decided yet
_RETRY = 2.0  # seconds until what could not be reported is, whether or not the link has been seen to be back

_Key: TypeAlias = tuple[int, str, str]  # VSID, MAC, CA


class _Port(NamedTuple):
    vsid: int
    mac: str


class Learner:
    """The learning of one host. ``reporter``: None while there is no VMM; then all stays on this host."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: WorkerLink,
        policy: LearnedPolicy,
        events: EventLog,
        timers: Timers = "fast",
    ) -> None:
        self.reporter: Reporter | None = None
        self._loop = loop
        self._link = link
        self._policy = policy
        self._records = LearnedRecords(policy, events)
        self._prober = Prober(link, TIMERS[timers])
        self._ports: dict[str, _Port] = {}
        self._pursuits: dict[_Key, Pursuit] = {}
        self._running: dict[_Key, asyncio.Task[None]] = {}
        self._withdrawn: dict[_Key, LookupRecord] = {}  # gone here, the VMM does not know yet
        self._tasks: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._ageing: asyncio.Task[None] | None = None
        self._period = AGEING[timers]
        self._stopped = False
        link.on_claims = self._fetch

    # ---- what the agent tells -----------------------------------------------------------------

    def configure(self, timers: Timers, *, learning: bool) -> None:
        """Begin, or go on with other timers, or (``learning`` False) stop until told otherwise."""
        if not learning:
            self.stop()
            return
        self._stopped = False
        self._prober.timers = TIMERS[timers]
        if self._ageing is None or self._period != AGEING[timers]:
            self._period = AGEING[timers]
            if self._ageing is not None:
                self._ageing.cancel()
            self._ageing = self._task(self._age())

    def attached(self, port: str, mac: str, vsid: int) -> None:
        """A VM is there, or its port is in another virtual subnet."""
        if self._ports.get(port) != _Port(vsid, mac):
            self.detached(port)
            self._ports[port] = _Port(vsid, mac)

    def detached(self, port: str) -> None:
        """A VM is gone: nobody is to decide on its claims any more."""
        self._ports.pop(port, None)
        for key, pursuit in [*self._pursuits.items()]:
            if pursuit.claim.port == port:
                self._end(key)
                pursuit.give_up()

    def claim(self, message: Message) -> None:
        """The worker has seen an address. message: port, vsid, mac, ca, how."""
        claim = Claim(message["port"], message["vsid"], message["mac"], message["ca"], message["how"])
        key = claim.vsid, claim.mac, claim.ca
        if self._ports.get(claim.port) != _Port(claim.vsid, claim.mac):
            return  # it has left meanwhile
        if key in self._pursuits or self._records.has(claim):
            return
        if not self._policy.on_link(claim.vsid, claim.ca):
            self._records.refuse(claim, "it lies in no prefix of the virtual subnet")
            return
        if sum(each.claim.port == claim.port for each in self._pursuits.values()) >= _PER_PORT:
            self._records.refuse(claim, f"{_PER_PORT} other addresses of the VM are not decided yet")
            return
        self._withdrawn.pop(key, None)  # it is there again
        self._pursuits[key] = Pursuit(claim, self._records, self._prober, self._port_of)
        self._start(key)

    def resynced(self) -> None:
        """The link to the VMM is back, or its whole policy has come: report what it has not decided."""
        for key in [*self._pursuits]:
            if key not in self._running:
                self._start(key)
        for record in [*self._withdrawn.values()]:
            self._task(self._withdraw(record))

    async def probe(self, vsid: int, mac: str, ca: str) -> bool:
        """Whether a VM answers for an address; one that is not on this host does not."""
        port = self._port_of(vsid, mac)
        return port is not None and await self._prober.answers(port, ca)

    def answer_probe(self, vsid: int, mac: str, ca: str) -> None:
        """The VMM wants to know whether a VM answers: ask it, and report."""
        self._task(self._answer(vsid, mac, ca))

    def stop(self) -> None:
        """Learn no more. What was assumed stays until the VMM speaks."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        self._prober.stop()
        self._pursuits.clear()
        self._withdrawn.clear()
        self._ageing = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    # ---- claims -------------------------------------------------------------------------------

    def _fetch(self) -> None:
        if self._stopped:
            return
        for message in self._link.order("claims"):
            self.claim(message)

    def _start(self, key: _Key) -> None:
        self._running[key] = self._task(self._pursue(key))

    async def _pursue(self, key: _Key) -> None:
        ended = True  # also when it fails: a claim that the VM makes again is a new one
        try:
            ended = await self._pursuits[key].run(self.reporter)
        finally:
            if self._running.get(key) is asyncio.current_task():
                del self._running[key]
                if ended:
                    self._pursuits.pop(key, None)
                else:
                    self._again()

    def _end(self, key: _Key) -> None:
        del self._pursuits[key]
        if task := self._running.pop(key, None):
            task.cancel()

    def _again(self) -> None:
        if self._retry is None:
            self._retry = self._loop.call_later(_RETRY, self._retried)

    def _retried(self) -> None:
        self._retry = None
        self.resynced()

    # ---- addresses that VMs have given up -----------------------------------------------------

    async def _age(self) -> None:
        while True:
            await asyncio.sleep(self._period)
            for name, port in [*self._ports.items()]:
                await self._age_port(name, port)

    async def _age_port(self, name: str, port: _Port) -> None:
        learned = {each.customer_address: each for each in self._records.dynamic(port.vsid, port.mac)}
        learned = {
            ca: each for ca, each in learned.items() if (port.vsid, port.mac, ca) not in self._pursuits
        }
        for ca in await self._prober.silent(name, learned):
            if self._ports.get(name) == port and self._records.drop(learned[ca], "aged"):
                self._withdrawn[port.vsid, port.mac, ca] = learned[ca]
                self._task(self._withdraw(learned[ca]))

    async def _withdraw(self, record: LookupRecord) -> None:
        key = record.virtual_subnet_id, record.mac_address, record.customer_address
        if self.reporter is None:
            self._withdrawn.pop(key, None)
            return
        outcome = await self.reporter.withdraw(*key)
        if outcome.status == "away":
            self._again()
        elif self._withdrawn.pop(key, None) and outcome.status == "refused":
            self._records.retract(record)

    # ---- inside -------------------------------------------------------------------------------

    async def _answer(self, vsid: int, mac: str, ca: str) -> None:
        answered = await self.probe(vsid, mac, ca)
        if self.reporter is not None:
            await self.reporter.probed(vsid, mac, ca, answered)

    def _port_of(self, vsid: int, mac: str) -> str | None:
        return next((name for name, port in self._ports.items() if port == _Port(vsid, mac)), None)

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # a loop holds its tasks weakly
        task.add_done_callback(self._tasks.discard)
        return task
