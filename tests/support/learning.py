"""A host that learns: a real worker, guests that answer, and a VMM that says what the test wants."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from support.frames import BROADCAST, arp, icmpv6, ip
from support.host import MemoryHost
from support.switch import PLAIN, mac_of, policy
from testbed.host.learning import Learner
from testbed.host.orders import WorkerLink
from testbed.host.reporter import Outcome
from testbed.packets import ndp
from testbed.packets.malformed import MalformedFrame
from testbed.telemetry import EventLog
from testbed.topology.plan import LookupRecord
from testbed.wnv.objects import key_of
from testbed.wnv.policy import Change, PolicyStore

SECONDS = 5.0


class StorePolicy:
    """The host's policy: a store that the worker follows. ``assumed``: what the VMM has not said."""

    def __init__(self, link: WorkerLink) -> None:
        self._link = link
        self.store = PolicyStore(policy(1))
        self.pa: str | None = "192.168.1.1"
        self.assumed: dict[tuple[str, tuple[Any, ...]], Change] = {}

    def record_of(self, vsid: int, ca: str) -> LookupRecord | None:
        return next((each for each in self._records(vsid) if each.customer_address == ca), None)

    def records_of_mac(self, vsid: int, mac: str) -> list[LookupRecord]:
        return [each for each in self._records(vsid) if each.mac_address == mac]

    def pa_of(self, vsid: int) -> str | None:
        return self.pa if vsid == 5001 else None

    def on_link(self, vsid: int, ca: str) -> bool:
        networks = map(ipaddress.ip_network, ("10.0.0.0/24", "fd00::/64"))
        return vsid == 5001 and any(ipaddress.ip_address(ca) in network for network in networks)

    def assume(self, changes: list[Change]) -> None:
        self.say(changes)
        for change in changes:
            self.assumed[change.kind, key_of(change.kind, change.new or change.old)] = change

    def retract(self, refs: Iterable[tuple[str, tuple[Any, ...]]]) -> None:
        gone = [self.assumed.pop(ref) for ref in refs if ref in self.assumed]
        self.say([Change(change.kind, change.new, change.old) for change in gone])

    def say(self, changes: list[Change]) -> None:
        """The VMM's word."""
        self.store.apply(changes)
        plain = [{"kind": each.kind, "old": _plain(each.old), "new": _plain(each.new)} for each in changes]
        own = [each.provider_address for each in self.store.policy().provider_addresses]
        self._link.order("change-policy", changes=plain, preferred=own)

    def _records(self, vsid: int) -> list[LookupRecord]:
        records = self.store.policy().lookup_records
        return [each for each in records if each.virtual_subnet_id == vsid]


def _plain(record: LookupRecord | None) -> dict[str, Any] | None:
    return None if record is None else {name: getattr(record, name) for name in record.__struct_fields__}


class MemoryReporter:
    """The VMM. ``answers``: what it says to the next reports; when there are none left, ``otherwise``."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []
        self.withdrawn: list[tuple[int, str, str]] = []
        self.probes: list[tuple[int, str, str, bool]] = []
        self.answers: list[Outcome] = []
        self.otherwise = Outcome("added")
        self.ageing = Outcome("deleted")
        self.delay = 0.0  # seconds until it answers

    async def learned(self, report: dict[str, str | int]) -> Outcome:
        self.reports.append(report)
        if self.delay:
            await asyncio.sleep(self.delay)
        return self.answers.pop(0) if self.answers else self.otherwise

    async def withdraw(self, vsid: int, mac: str, ca: str) -> Outcome:
        self.withdrawn.append((vsid, mac, ca))
        return self.ageing

    async def probed(self, vsid: int, mac: str, ca: str, answered: bool) -> None:
        self.probes.append((vsid, mac, ca, answered))


class Guest:
    """A VM that answers ARP and ND for its ``addresses``, as a kernel does. ``asked``: for which."""

    def __init__(self, loop: asyncio.AbstractEventLoop, end: socket.socket, mac: bytes) -> None:
        self.mac = mac
        self.addresses: set[str] = set()
        self.asked: list[str] = []
        self.refuses = False
        self._end = end
        end.setblocking(False)
        loop.add_reader(end, self._heard)

    def announce(self, address: str) -> None:
        """Tell all that it uses an address, as a Windows guest does."""
        if ":" in address:
            body = b"\x88\0\0\0\x20\0\0\0" + ip(address) + b"\2\1" + self.mac
            self.send(icmpv6(address, "ff02::1", body, b"\x33\x33\0\0\0\1", self.mac))
        else:
            self.send(arp(1, (self.mac, address), (self.mac, address), BROADCAST))

    def take(self, address: str) -> None:
        """Use an address from now on."""
        self.addresses.add(address)
        self.announce(address)

    def send(self, frame: bytes) -> None:
        """Send a frame."""
        self._end.send(PLAIN + frame)

    def _heard(self) -> None:
        try:
            frame = self._end.recv(1 << 16)[10:]
        except BlockingIOError:
            return
        if frame[12:14] == b"\x08\x06" and frame[21] == 1:
            self._answer(frame[38:42], frame)
        elif frame[12:14] == b"\x86\xdd" and frame[54:55] == b"\x87":
            self._answer(frame[62:78], frame)

    def _answer(self, target: bytes, frame: bytes) -> None:
        address = str(ipaddress.ip_address(target))
        self.asked.append(address)
        if address not in self.addresses or self.refuses:
            return
        if len(target) == 4:
            asker = frame[22:28], str(ipaddress.ip_address(frame[28:32]))
            self.send(arp(2, (self.mac, address), asker, asker[0]))
            return
        try:
            asked = ndp.parse(frame)
        except MalformedFrame:
            return
        body = b"\x88\0\0\0\x60\0\0\0" + target + b"\2\1" + self.mac
        self.send(icmpv6(address, str(ipaddress.ip_address(asked.source)), body, frame[6:12], self.mac))


class LearningHost:
    """Host 1 with VMs of the subnet 5001, those of ``guests`` played by the test."""

    def __init__(self, host: MemoryHost, guests: Iterable[str] = ("blue1", "blue4")) -> None:
        self.host = host
        link = host.agent._link
        self.loop = link._loop
        self.policy = StorePolicy(link)
        self.reporter = MemoryReporter()
        self.events = EventLog("host1")
        self.learner = Learner(self.loop, link, self.policy, self.events)
        self.learner.reporter = self.reporter
        self.guests = {name: self._guest(name) for name in guests}

    def _guest(self, name: str) -> Guest:
        self.host.plug(name, mac_of(name), 5001)
        self.learner.attached(name, mac_of(name).hex(":"), 5001)
        return Guest(self.loop, self.host.vms[name], mac_of(name))

    def until(self, there: Callable[[], object], what: str = "") -> None:
        """Run until something is so."""
        self.loop.run_until_complete(self._until(there, what))

    async def _until(self, there: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not there():
            assert time.monotonic() < deadline, what or "it does not come to that"
            await asyncio.sleep(0.002)

    def rest(self) -> None:
        """Run until nothing is under way any more."""
        self.host.seen_from_vms()
        self.loop.run_until_complete(asyncio.sleep(0))  # what the worker has told is taken here
        self.until(lambda: not self.learner._running, "learning goes on and on")

    def told(self, kind: str = "customer-address") -> list[tuple[str, ...]]:
        """The events of a kind since last asked: reason, CA and how, or for others the CA."""
        found = [each.fields for each in self.events.take() if each.kind == kind]
        return [
            (each["reason"], each["ca"], each["how"]) if "reason" in each else (each["ca"],) for each in found
        ]

    def owner(self, address: str) -> tuple[str, str] | None:
        """Type of an address's record, and the VM's name."""
        record = self.policy.record_of(5001, address)
        return None if record is None else (record.type, record.vm_name)

    def close(self) -> None:
        """Learn no more."""
        self.learner.stop()
        self.loop.run_until_complete(asyncio.sleep(0.02))  # what was cancelled comes to its end
