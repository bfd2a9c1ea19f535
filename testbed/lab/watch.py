"""A running lab read again and again: the counters of its hosts and cables, what runs and what does not.

A reading never fails for what happens to the lab meanwhile: a host that went down, a lab that ended or was
built anew under its name are part of what was read. Handles stay open between two readings, so that one
costs each host about a millisecond.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from testbed.channel import Channel, connect
from testbed.errors import BadInput, TestbedError
from testbed.lab import store
from testbed.lab.lab import FABRIC, Lab
from testbed.lab.sample import Member, Reading, Sample
from testbed.linkwatch import open_link_watch, read_links, request_links
from testbed.namespaces import in_netns
from testbed.telemetry import Counter
from testbed.topology.plan import CablePlan

_ANSWER_SECONDS = 2.0  # a host that takes longer is told as one that does not answer
_AT_ONCE = 8  # hosts asked at the same time
_RECEIVED, _SENT = 0, 8  # columns of /proc/net/dev: bytes, packets, errors, drops, ... of either


class Watch:
    """One lab by its name. ``classifiers``: read those counters of the NICs too. Not for several threads."""

    def __init__(self, name: str, *, classifiers: bool = False) -> None:
        self.name = name
        self._ops = ("counters", "team", "cables", *(["nics"] if classifiers else []))
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="watch")
        self._lab: Lab | None = None
        self._plan_file: tuple[int, int] = (0, 0)
        self._channels: dict[str, Channel] = {}
        self._links: socket.socket | None = None
        self._carriers: dict[str, bool] = {}

    def close(self) -> None:
        """Close all handles; the lab lives on."""
        self._forget()
        self._pool.shutdown()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sample(self) -> Sample:
        """Read the lab once. Raises nothing that has its cause in the lab."""
        now = time.time()
        try:
            lab = self._follow()
        except BadInput:
            self._forget()
            return Sample(self.name, now, "ended")
        except (TestbedError, msgspec.DecodeError, OSError) as error:
            self._forget()
            return Sample(self.name, now, "starting", problem=str(error))
        hosts = [host.name for host in lab.plan.hosts]
        answers = dict(zip(hosts, self._pool.map(self._ask, hosts), strict=True))
        now = time.time()
        readings = {host: answer.reading for host, answer in answers.items() if answer.reading}
        if not readings and not _alive(lab):
            return Sample(self.name, now, "dead", lab.record, lab.plan)
        if (fabric := self._fabric(lab, answers)) is not None:
            readings[FABRIC] = fabric
        return Sample(
            self.name,
            now,
            "running" if lab.record.ready else "starting",
            lab.record,
            lab.plan,
            readings,
            {host: answer.error for host, answer in answers.items() if answer.error},
            tuple(member for answer in answers.values() for member in answer.members),
            {vm.name: self._runs(lab, vm.name) for vm in lab.plan.vms},
            {_cable(each): self._carriers.get(each.interface, False) for each in lab.plan.fabric.cables},
        )

    # ---- the lab of this name -------------------------------------------------------------

    def _follow(self) -> Lab:
        """The lab as it is now: its Plan changes, and another one may have its name. Raises BadInput."""
        record = store.load(self.name)
        found = (store.directory(self.name) / "plan.json").stat()
        stamp = found.st_mtime_ns, found.st_ino
        if self._lab and self._lab.record.id != record.id:
            self._forget()
        if self._lab is None:
            self._lab = Lab.open(self.name)
        elif stamp != self._plan_file:
            self._lab.plan = store.load_plan(self.name)
        self._lab.record = record
        self._plan_file = stamp
        return self._lab

    def _forget(self) -> None:
        if self._lab:
            self._lab.close()
            self._lab = None
        while self._channels:
            self._channels.popitem()[1].close()
        if self._links:
            self._links.close()
            self._links = None
        self._carriers.clear()

    @staticmethod
    def _runs(lab: Lab, name: str) -> bool:
        for _ in range(2):  # a handle of one that has ended is given up for that of its successor
            try:
                pidfd = lab.node(name).pidfd
            except TestbedError:
                return False
            ended, _, _ = select.select([pidfd], [], [], 0)
            if not ended:
                return True
            lab.forget(name)
        return False

    # ---- hosts ----------------------------------------------------------------------------

    def _ask(self, host: str) -> _Answer:
        """What a host says; tried again with a new connection where an old one broke."""
        was_open = host in self._channels
        try:
            return self._told(host)
        except (TestbedError, OSError, KeyError, msgspec.MsgspecError) as error:
            cause = error.__cause__
            if isinstance(cause, TimeoutError | BlockingIOError):
                return _Answer(error=f"no answer within {_ANSWER_SECONDS:g} s")
            if was_open:
                return self._ask(host)
            gone = isinstance(cause, FileNotFoundError | ConnectionRefusedError)
            return _Answer(error="it does not run" if gone else str(error))

    def _told(self, host: str) -> _Answer:
        channel = self._channels.get(host)
        if channel is None:
            assert self._lab is not None
            channel = connect(self._lab.folder(host) / "control.sock", timeout=0.0)
            channel.socket.settimeout(_ANSWER_SECONDS)
            self._channels[host] = channel
        try:
            told = {op: channel.call(op)[0][op] for op in self._ops}
        except BaseException:  # what is still to come would be taken for the answer to the next question
            self._channels.pop(host).close()
            raise
        classified = {nic["name"]: nic["counters"] for nic in told.get("nics", ())}
        counters = [
            _classified(each, classified) for each in msgspec.convert(told["counters"], list[Counter])
        ]
        team = told["team"]
        members = [
            Member(
                host,
                each["name"],
                each["state"],
                each["fault"],
                team["flows"].get(each["name"], 0),
                each["round_trip"] or None,
            )
            for each in team["members"]
        ]
        return _Answer(Reading(time.monotonic(), tuple(counters)), "", members, told["cables"])

    # ---- the fabric -----------------------------------------------------------------------

    def _fabric(self, lab: Lab, answers: dict[str, _Answer]) -> Reading | None:
        try:
            with in_netns(lab.netns(FABRIC)):
                if self._links is None:
                    self._links = open_link_watch()
                    request_links(self._links)
                text = Path("/proc/thread-self/net/dev").read_text()
            for state in read_links(self._links):
                self._carriers[state.name] = state.running
        except (TestbedError, OSError):
            lab.forget(FABRIC)
            return None
        devices = device_counts(text)
        now, counters = time.time(), list[Counter]()
        counters += [
            Counter(now, cable.host, "cable", _cable(cable), dict(devices[cable.interface]))
            for cable in lab.plan.fabric.cables
            if cable.interface in devices
        ]
        for host, answer in answers.items():
            counters += _faults(now, host, answer.cables)
        return Reading(time.monotonic(), tuple(counters))


class _Answer:
    """What a host said, or why not."""

    def __init__(
        self,
        reading: Reading | None = None,
        error: str = "",
        members: list[Member] | None = None,
        cables: list[dict[str, Any]] | None = None,
    ) -> None:
        self.reading, self.error = reading, error
        self.members, self.cables = members or [], cables or []


def device_counts(text: str) -> dict[str, dict[str, int]]:
    """/proc/net/dev (proc(5)) by interface, of switch ports: what a port receives is from the host."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        values = [int(value) for value in rest.split()]
        found[name.strip()] = {
            f"{way}_{unit}": values[at + column]
            for way, at in (("from_host", _RECEIVED), ("to_host", _SENT))
            for unit, column in (("packets", 1), ("bytes", 0), ("drop_packets", 3))
        }
    return found


def _faults(now: float, host: str, cables: list[dict[str, Any]]) -> list[Counter]:
    return [
        Counter(
            now, host, "cable-fault", f"{host}:{cable['nic']}", {"way": way, "fault": fault, "packets": n}
        )
        for cable in cables
        for way, told in cable["ways"].items()
        for fault, n in told["counters"].items()
    ]


def _classified(counter: Counter, classified: dict[str, dict[str, Any]]) -> Counter:
    """A NIC's counters together with those of its classifier."""
    if counter.kind != "nic" or counter.object not in classified:
        return counter
    more = {key: value for key, value in classified[counter.object].items() if key.startswith("rx_")}
    return msgspec.structs.replace(counter, fields={**more, **counter.fields})


def _cable(cable: CablePlan) -> str:
    return f"{cable.host}:{cable.nic}"


def _alive(lab: Lab) -> bool:
    with contextlib.suppress(TestbedError, OSError):
        return lab.engine.alive(lab.ref)
    return False
