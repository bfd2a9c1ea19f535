"""Metrics of running labs: what :mod:`testbed.lab.watch` reads, by name and label."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from testbed.lab import store
from testbed.lab.rates import counted, is_gauge
from testbed.lab.sample import Sample
from testbed.lab.watch import Watch
from testbed.metrics.families import Families
from testbed.telemetry import Counter

MEMBER_STATES = ("Active", "Standby", "Failed")
_QUEUE = re.compile(r"(?P<way>rx|to_vm)_queue_(?P<queue>\d+)_(?P<unit>packets|bytes)")
# The label that an object's name goes into, by kind; the kind itself where it stands for others too.
_OBJECT = {"drop": "object", "cable-fault": "cable"}


class Labs:
    """A source of metrics: the labs called ``names``, or all that there are at each time."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = tuple(names)
        self._watches: dict[str, Watch] = {}

    def collect(self, families: Families) -> None:
        """Read each lab once. A lab that has ended is not up, where it was asked for by name."""
        names = self._names or tuple(record.name for record in store.load_all())
        for name in [each for each in self._watches if each not in names]:
            self._watches.pop(name).close()
        for name in names:
            if name not in self._watches:
                self._watches[name] = Watch(name, classifiers=True)
            begun = time.monotonic()
            sample = self._watches[name].sample()
            add_sample(families, sample)
            families.add("gauge", "lab_read_seconds", {"lab": name}, time.monotonic() - begun)

    def close(self) -> None:
        """Close all handles; the labs live on."""
        while self._watches:
            self._watches.popitem()[1].close()


def add_sample(families: Families, sample: Sample) -> None:
    """All that was read of one lab."""
    lab = {"lab": sample.name}
    families.add("gauge", "lab_up", lab, float(bool(sample.readings)))
    if sample.record is None or sample.plan is None:
        return
    info = {**lab, "id": sample.record.id, "engine": sample.record.engine}
    families.add("gauge", "lab_info", info, 1.0)
    for host in sample.plan.hosts:
        families.add("gauge", "host_up", {**lab, "host": host.name}, float(host.name in sample.readings))
    for vm in sample.plan.vms:
        runs = sample.vms.get(vm.name, False)
        families.add("gauge", "vm_up", {**lab, "host": vm.host, "vm": vm.name}, float(runs))
    known = _names(sample)
    for name, up in sample.carriers.items():
        families.add("gauge", "cable_up", {**lab, **known[name]}, float(up))
    _add_members(families, sample)
    for reading in sample.readings.values():
        for counter in reading.counters:
            _add_counter(families, lab, counter, known)


def _names(sample: Sample) -> dict[str, dict[str, str]]:
    """Labels of objects that have more than their name: ports with their VMs, cables with both ends."""
    assert sample.plan is not None
    ports = {vnic.port: {"vm": vm.name} for vm in sample.plan.vms for vnic in vm.vnics}
    cables = {
        f"{cable.host}:{cable.nic}": {
            "host": cable.host,
            "cable": f"{cable.host}:{cable.nic}",
            "nic": cable.nic,
            "switch": cable.switch,
        }
        for cable in sample.plan.fabric.cables
    }
    return {**ports, **cables}


def _add_members(families: Families, sample: Sample) -> None:
    for member in sample.members:
        labels = {"lab": sample.name, "host": member.host, "nic": member.nic}
        families.add("gauge", "team_member_flows", labels, member.flows)
        for state in MEMBER_STATES:
            told = {**labels, "state": state}
            families.add("gauge", "team_member_state", told, float(state == member.state))
        if member.round_trip is not None:
            families.add("gauge", "team_member_round_trip_seconds", labels, member.round_trip)


def _add_counter(
    families: Families, lab: Mapping[str, str], counter: Counter, known: Mapping[str, Mapping[str, str]]
) -> None:
    kind, fields = counter.kind, counter.fields
    labels = {**lab, "host": counter.host, **_labels(counter, known)}
    if kind == "extension":
        for name, value in fields.items():
            if isinstance(value, int | float):
                families.add("untyped", "extension_value", {**labels, "counter": name}, value)
        return
    for name, value in counted(counter).items():
        if match := _QUEUE.fullmatch(name):
            queue = {**labels, "queue": match["queue"]}
            families.add("counter", f"{kind}_queue_{match['way']}_{match['unit']}", queue, value)
        elif not is_gauge(kind, name):
            families.add("counter", f"{kind.replace('-', '_')}_{name}", labels, value)


def _labels(counter: Counter, known: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    kind, name = counter.kind, counter.object
    fields: Mapping[str, Any] = counter.fields
    if kind == "port":
        return {"port": name, "vm": _vm(name, known), "vsid": str(fields["vsid"])}
    if kind == "drop":
        parts = {each: str(fields[each]) for each in ("stage", "vsid", "reason")}
        return {"object": name, "vm": _vm(name, known), **parts}
    if kind in ("cable", "cable-fault"):
        more = {each: str(fields[each]) for each in ("way", "fault") if each in fields}
        return {**known.get(name, {"cable": name, "nic": "", "switch": ""}), **more}
    if kind == "team":
        return {}
    return {kind: name}


def _vm(port: str, known: Mapping[str, Mapping[str, str]]) -> str:
    """The VM of a port; "" for a NIC and for a port that was removed."""
    return known.get(port, {}).get("vm", "")
