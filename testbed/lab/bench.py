"""Throughput between two VMs of a running lab, beside the kernel's own VXLAN."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from testbed.errors import BadInput
from testbed.lab import nic as nics
from testbed.lab.inspect import processes
from testbed.lab.lab import FABRIC, Lab
from testbed.namespaces import in_netns
from testbed.nic.features import guest_features, set_features
from testbed.perf.bench import CONGESTION_CONTROL, WARM_UP, Baseline, BenchPath, Progress, bench
from testbed.perf.iperf import BLOCK_SIZE
from testbed.topology.plan import CablePlan, VmPlan
from testbed.topology.schema import Wire


def run(
    lab: Lab,
    source: str | None,
    target: str | None,
    wire: Wire | None,
    baseline: Baseline | None,
    *,
    profile: str | None = None,
    guest_lso: bool | None = None,
    seconds: int,
    streams: int,
    repeat: int,
    progress: Progress,
) -> dict[str, Any]:
    """The result of :func:`testbed.perf.bench.bench` with "from", "to", "wire" and "settings" added.

    Without ``source`` and ``target``: the first two VMs of one subnet on different hosts.
    ``wire``, ``profile`` (of the NICs on the path) and ``guest_lso`` are switched for the measurement
    and back; the baseline has the same wire, guests and coalescing. settings: all that was chosen, as
    docs/results.md names it.
    """
    client, server = _choose(lab, source, target)
    with contextlib.ExitStack() as stack:
        coalesces = stack.enter_context(_nics(lab, {client.host, server.host}, profile))
        on_wire = stack.enter_context(_wired(lab, client, server, wire))
        lso = stack.enter_context(_guests(lab, (client, server), guest_lso))
        path = path_between(lab, client, server, "wnv", on_wire)
        path = dataclasses.replace(path, guest_lso=lso, coalesces=coalesces)
        settings = _settings(lab, client, server, path, profile)
        result = bench(path, baseline, seconds=seconds, streams=streams, repeat=repeat, progress=progress)
    settings |= {"streams": streams, "seconds": seconds}
    return {"from": client.name, "to": server.name, "wire": on_wire, "settings": settings, **result}


def _settings(
    lab: Lab, client: VmPlan, server: VmPlan, path: BenchPath, profile: str | None
) -> dict[str, str | int | bool]:
    """What is chosen while it is measured; offloads are those that the NICs have enabled now."""
    hosts = sorted({client.host, server.host})
    shown = [nic for host in hosts for nic in nics.show(lab, host)]
    team = lab.plan.host(client.host).team
    planned = {nic.profile for host in hosts for nic in lab.plan.host(host).nics}
    return {
        "engine": lab.record.engine,
        "nic": profile or ",".join(sorted(planned)),
        "offloads": ",".join(sorted({each for nic in shown for each in nic["offloads"]["enabled"]})),
        "wire": path.wire,
        "team": f"{team.mode}/{team.algorithm}" if len(lab.plan.host(client.host).nics) > 1 else "none",
        "direction": "forward",
        "protocol": "tcp",
        "ip": ipaddress.ip_address(path.server_address).version,
        "message_size": BLOCK_SIZE,
        "warm_up": WARM_UP,
        "mtu": path.mtu,
        "guest_lso": path.guest_lso,
        "congestion_control": CONGESTION_CONTROL,
        "from": client.name,
        "to": server.name,
    }


def path_between(lab: Lab, client: VmPlan, server: VmPlan, name: str, wire: Wire) -> BenchPath:
    """The path from one VM to another as something to measure; results call it ``name``."""
    return BenchPath(
        name,
        lab.netns(client.name),
        lab.netns(server.name),
        _address(server),
        lambda: _switch_seconds(lab, {client.host, server.host}),
        client.vnics[0].mtu,
        wire,
    )


def _choose(lab: Lab, source: str | None, target: str | None) -> tuple[VmPlan, VmPlan]:
    names = [vm.name for vm in lab.plan.vms]
    for name in (source, target):
        if name is not None and name not in names:
            raise BadInput(f"{lab.record.name} has no VM {name!r}: one of {', '.join(names)}")
    for client in lab.plan.vms:
        for server in lab.plan.vms:
            if source not in (None, client.name) or target not in (None, server.name):
                continue
            if source and target and client is not server:
                return client, server
            if client.host != server.host and client.vnics[0].vsid == server.vnics[0].vsid:
                return client, server
    raise BadInput("no two VMs of one subnet are on different hosts: choose them with --from and --to")


def _address(vm: VmPlan) -> str:
    for text in vm.vnics[0].addresses:
        return str(ipaddress.ip_interface(text).ip)
    raise BadInput(f"{vm.name} has no address")


def _switch_seconds(lab: Lab, hosts: set[str]) -> float:
    """CPU time (user and system) that the hosts' processes have used."""
    ticks = 0
    for host in hosts:
        for process in processes(lab, host):
            stat = Path(f"/proc/{process['pid']}/stat").read_text()
            fields = stat[stat.rindex(")") + 2 :].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _nics(lab: Lab, hosts: set[str], profile: str | None) -> Iterator[bool]:
    """The NICs of some hosts are of a profile meanwhile. Whether they join what comes encapsulated."""
    from testbed.topology.profiles import Profiles
    from testbed.topology.schema import Nic

    all_of = [(host.name, nic.name) for host in lab.plan.hosts if host.name in hosts for nic in host.nics]
    if profile is None:
        yield all(
            {"nvgre", "rsc", "nvgre-rsc"} <= {*each["offloads"]["enabled"]}
            for host, name in all_of
            for each in nics.show(lab, host)
            if each["name"] == name
        )
        return
    wanted = Profiles(Path.cwd()).offloads(Nic(name="nic", profile=profile))
    before = []
    try:
        for host, name in all_of:
            before.append((host, name, nics.replace(lab, host, name, wanted)))
        yield wanted.nvgre.rsc
    finally:
        for host, name, offloads in before:
            nics.replace(lab, host, name, offloads)


@contextlib.contextmanager
def _guests(lab: Lab, vms: tuple[VmPlan, ...], lso: bool | None) -> Iterator[bool]:
    """Whether the VMs may hand over super-packets meanwhile."""
    planned = all(vm.vnics[0].lso for vm in vms)
    if lso is None:
        yield planned
        return
    try:
        for vm in vms:
            with in_netns(lab.netns(vm.name)):
                set_features(vm.vnics[0].interface, guest_features(lso=lso))
        yield lso
    finally:
        for vm in vms:
            with in_netns(lab.netns(vm.name)):
                set_features(vm.vnics[0].interface, guest_features(lso=vm.vnics[0].lso))


@contextlib.contextmanager
def _wired(lab: Lab, client: VmPlan, server: VmPlan, wire: Wire | None) -> Iterator[Wire]:
    """The wire of the cables while measuring; afterwards they are what they were."""
    from testbed.wiring.fabric import Wiring

    on_path = [cable for cable in lab.plan.fabric.cables if cable.host in (client.host, server.host)]
    planned = _wire_of(on_path)
    if wire is None or not on_path:
        yield planned
        return
    wiring = Wiring(lab.netns(FABRIC), {cable.host: lab.netns(cable.host) for cable in on_path})
    try:
        for cable in on_path:
            wiring.set_wire(cable, wire, nics.enabled(lab, cable))
        yield wire
    finally:
        for cable in on_path:
            wiring.set_wire(cable, cable.wire, nics.enabled(lab, cable))


def _wire_of(cables: list[CablePlan]) -> Wire:
    return "frames" if not cables or any(cable.wire == "frames" for cable in cables) else "aggregated"
