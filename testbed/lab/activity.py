"""What a lab does, as rows by subject: VMs, cables, queues, team members, drops, virtual subnets, hosts.

Pure: it turns two samples of :mod:`testbed.lab.watch` into what ``testbed top`` shows and prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import Struct, structs

from testbed.lab.rates import Rate, between
from testbed.lab.sample import Sample
from testbed.topology.plan import Plan

View = Literal["vms", "cables", "queues", "team", "drops", "vsids", "hosts"]
_QUEUE = re.compile(r"(rx|to_vm)_queue_(\d+)_packets")
_LOSSES = ("lost", "overrun")  # faults of a cable by which a frame does not arrive
_OWNERS = {"port": "VM", "nic": "NIC"}
_WAYS = {"port": ("from_vm", "to_vm"), "nic": ("tx", "rx"), "cable": ("from_host", "to_host")}


class Row(Struct, frozen=True):
    """One object. Per second, None where it is not known (yet).

    out: from the VM, or from the host onto the cable; in: the other way. drops: packets, by ``reasons`` those
    of each. note: what else is to be said, such as VSIDs. total: packets dropped since the host
    started, in the rows of drops only.
    """

    object: str
    host: str
    state: str = ""
    note: str = ""
    out_bits: float | None = None
    out_packets: float | None = None
    in_bits: float | None = None
    in_packets: float | None = None
    drops: float | None = None
    reasons: dict[str, float] = {}
    total: float | None = None


class Activity(Struct, frozen=True):
    """A lab between two samples. seconds: between them, 0 for the first. problems: what is wrong."""

    lab: str
    engine: str
    state: str
    time: float
    seconds: float
    problems: tuple[str, ...] = ()
    vms: tuple[Row, ...] = ()
    cables: tuple[Row, ...] = ()
    queues: tuple[Row, ...] = ()
    team: tuple[Row, ...] = ()
    drops: tuple[Row, ...] = ()
    vsids: tuple[Row, ...] = ()
    hosts: tuple[Row, ...] = ()

    def rows(self, view: View) -> tuple[Row, ...]:
        """Those of one subject."""
        found: tuple[Row, ...] = getattr(self, view)
        return found


def activity(before: Sample | None, now: Sample) -> Activity:
    """What has happened between two samples; ``before`` None, or of another lab, tells no rates."""
    engine = now.record.engine if now.record else ""
    if before and (not before.record or not now.record or before.record.id != now.record.id):
        before = None
    told = Activity(now.name, engine, now.state, now.time, 0.0, _problems(now))
    if now.plan is None or not now.readings:
        return told
    rates = between(before.readings if before else {}, now.readings)
    of: dict[str, list[Rate]] = {}
    for rate in rates:
        of.setdefault(rate.kind, []).append(rate)
    losses = _losses([*of.get("drop", ()), *of.get("cable-fault", ())])
    return Activity(
        **{name: getattr(told, name) for name in ("lab", "engine", "state", "time", "problems")},
        seconds=now.time - before.time if before else 0.0,
        vms=_vms(now, now.plan, of.get("port", ()), losses),
        cables=_cables(now, now.plan, of.get("cable", ()), losses),
        queues=_queues(of.get("nic", ()), of.get("port", ())),
        team=_team(now, of.get("nic", ()), losses),
        drops=_drops(of.get("drop", ())),
        vsids=_vsids(of.get("vsid", ())),
        hosts=_hosts(now, now.plan, of),
    )


def _problems(now: Sample) -> tuple[str, ...]:
    if now.state == "ended":
        return (f"there is no lab called {now.name} any longer",)
    if now.state == "dead":
        return (f"{now.name} has died: `testbed gc` removes what is left of it",)
    stopped = [name for name, runs in now.vms.items() if not runs]
    return (
        *([now.problem] if now.problem else []),
        *(f"{host}: {why}" for host, why in now.down.items()),
        *([f"VMs that do not run: {', '.join(stopped)}"] if stopped else []),
    )


# ---- rows -----------------------------------------------------------------------------------


Losses = Mapping[tuple[str, str], dict[str, float]]  # host and object: per second by reason


def _losses(rates: Iterable[Rate]) -> Losses:
    found: dict[tuple[str, str], dict[str, float]] = {}
    for rate in rates:
        reason = rate.parts.get("reason") or rate.parts["fault"]
        if rate.per_second.get("packets") and (rate.kind == "drop" or reason in _LOSSES):
            reasons = found.setdefault((rate.host, rate.object), {})
            reasons[reason] = reasons.get(reason, 0.0) + rate.per_second["packets"]
    return found


def _row(
    name: str,
    host: str,
    state: str,
    note: str,
    rates: Iterable[Rate],
    ways: tuple[str, str],
    reasons: Mapping[str, float],
) -> Row:
    """Of the sum of some objects' rates, of which those without any are left out."""
    known = [rate.per_second for rate in rates if rate.per_second]

    def total(field: str, factor: int = 1) -> float | None:
        return sum(factor * each.get(field, 0.0) for each in known) if known else None

    out, back = ways
    drops = float(sum(reasons.values())) if known else None
    return Row(
        name,
        host,
        state,
        note,
        total(f"{out}_bytes", 8),
        total(f"{out}_packets"),
        total(f"{back}_bytes", 8),
        total(f"{back}_packets"),
        drops,
        dict(sorted(reasons.items(), key=lambda each: -each[1])),
    )


def _sum(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in parts:
        for reason, value in part.items():
            found[reason] = found.get(reason, 0.0) + value
    return found


def _vms(now: Sample, plan: Plan, ports: Iterable[Rate], losses: Losses) -> tuple[Row, ...]:
    by_port: dict[str, list[Rate]] = {}
    for rate in ports:
        by_port.setdefault(rate.object, []).append(rate)
    vsids = {
        counter.object: counter.fields["vsid"]
        for reading in now.readings.values()
        for counter in reading.counters
        if counter.kind == "port"
    }
    rows = []
    for vm in plan.vms:
        mine = [rate for vnic in vm.vnics for rate in by_port.get(vnic.port, ())]
        note = ", ".join(str(vsids.get(vnic.port, vnic.vsid)) for vnic in vm.vnics)
        state = "running" if now.vms.get(vm.name) else "down"
        reasons = _sum(losses.get((rate.host, rate.object), {}) for rate in mine)
        rows.append(_row(vm.name, vm.host, state, note, mine, _WAYS["port"], reasons))
    return tuple(rows)


def _cables(now: Sample, plan: Plan, cables: Iterable[Rate], losses: Losses) -> tuple[Row, ...]:
    by_name = {rate.object: rate for rate in cables}
    rows = []
    for cable in plan.fabric.cables:
        name = f"{cable.host}:{cable.nic}"
        mine = [by_name[name]] if name in by_name else []
        refused = sum(
            value
            for rate in mine
            for field, value in rate.per_second.items()
            if field.endswith("_drop_packets")
        )
        reasons = _sum([losses.get((cable.host, name), {}), {"refused": refused} if refused else {}])
        state = "up" if now.carriers.get(name) else "down"
        rows.append(_row(name, cable.host, state, cable.switch, mine, _WAYS["cable"], reasons))
    return tuple(rows)


def _team(now: Sample, nics: Iterable[Rate], losses: Losses) -> tuple[Row, ...]:
    by_name = {(rate.host, rate.object): rate for rate in nics}
    rows = []
    for member in now.members:
        key = member.host, member.nic
        note = f"{member.flows} flow" + ("s" if member.flows != 1 else "")
        if member.round_trip is not None:
            note += f", {1000 * member.round_trip:.1f} ms"
        if member.fault:
            note = f"{member.fault}, {note}"
        mine = [by_name[key]] if key in by_name else []
        rows.append(
            _row(member.nic, member.host, member.state, note, mine, _WAYS["nic"], losses.get(key, {}))
        )
    return tuple(rows)


def _queues(nics: Iterable[Rate], ports: Iterable[Rate]) -> tuple[Row, ...]:
    """Of objects that have several; state: whose, note: the part of its packets. A VM's have no bytes."""
    rows = []
    for rate in (*nics, *ports):
        found = [match for field in rate.per_second if (match := _QUEUE.fullmatch(field))]
        total = sum(rate.per_second[match[0]] for match in found)
        for match in found:
            packets = rate.per_second[match[0]]
            size = rate.per_second.get(f"{match[1]}_queue_{match[2]}_bytes")
            share = f"{packets / total:.0%}" if total else ""
            bits = None if size is None else 8 * size
            row = Row(
                f"{rate.object} {match[2]}", rate.host, _OWNERS[rate.kind], share, None, None, bits, packets
            )
            rows.append(row)
    return tuple(rows)


def _drops(drops: Iterable[Rate]) -> tuple[Row, ...]:
    """Of each stage, object, VSID and reason that has counted anything; state: the stage."""
    return tuple(
        Row(
            rate.object,
            rate.host,
            rate.parts["stage"],
            str(rate.parts["vsid"]),
            drops=rate.per_second.get("packets"),
            reasons={rate.parts["reason"]: rate.per_second.get("packets", 0.0)},
            total=rate.totals["packets"],
        )
        for rate in drops
    )


def _vsids(vsids: Iterable[Rate]) -> tuple[Row, ...]:
    """Of all hosts together."""
    by_vsid: dict[str, list[Rate]] = {}
    for rate in vsids:
        by_vsid.setdefault(rate.object, []).append(rate)
    rows = []
    for vsid, rates in sorted(by_vsid.items(), key=lambda each: int(each[0])):
        row = _row(
            vsid, "", "", f"{len(rates)} host" + ("s" if len(rates) != 1 else ""), rates, _WAYS["port"], {}
        )
        dropped = [rate.per_second["drop_packets"] for rate in rates if rate.per_second]
        rows.append(structs.replace(row, drops=sum(dropped) if dropped else None))
    return tuple(rows)


def _hosts(now: Sample, plan: Plan, of: Mapping[str, list[Rate]]) -> tuple[Row, ...]:
    """Sums of a host's NICs; note: what its worker takes of a core."""
    rows = []
    for host in plan.hosts:
        busy = [rate.per_second.get("cpu_seconds") for rate in _of_host(of.get("worker", ()), host.name)]
        note = "".join(f"CPU {each:.0%}" for each in busy if each is not None)
        reasons = _sum(
            {rate.parts["reason"]: rate.per_second["packets"]}
            for rate in _of_host(of.get("drop", ()), host.name)
            if rate.per_second.get("packets")
        )
        state = "down" if host.name in now.down else "running"
        rows.append(
            _row(
                host.name,
                host.name,
                state,
                note,
                _of_host(of.get("nic", ()), host.name),
                _WAYS["nic"],
                reasons,
            )
        )
    return tuple(rows)


def _of_host(rates: Iterable[Rate], host: str) -> list[Rate]:
    return [rate for rate in rates if rate.host == host]
