"""Throughput, latency and what they cost, between two VMs of a running lab, beside its baselines."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from testbed.errors import BadInput, LabError, TestbedError
from testbed.lab import bench_settings, bench_teams
from testbed.lab import nic as nics
from testbed.lab.bench_teams import NotPutBack, Teams
from testbed.lab.inspect import processes
from testbed.lab.lab import Lab
from testbed.perf.bench import Baseline, BenchPath, Progress, Turn, bench, ratio, tools
from testbed.perf.iperf import Load
from testbed.perf.plan import BenchPlan, Cell
from testbed.results.model import OURS, Setting, new_id
from testbed.topology.plan import VmPlan
from testbed.topology.reteam import name_of
from testbed.topology.schema import Wire

_QUEUE = re.compile(r"rx_queue_(\d+)_packets")


class CellResult(Struct, frozen=True, kw_only=True):
    """A cell that was measured. settings: all that was chosen, as docs/results.md names it.

    batch: UUID of the plan's run. tools: versions of what measured. started: Unix seconds; seconds: how
    long all of it took.
    """

    cell: Cell
    batch: str
    source: str
    target: str
    wire: Wire
    settings: dict[str, Setting]
    baselines: tuple[Baseline, ...]
    tools: dict[str, str]
    turns: list[Turn]
    started: float
    seconds: float

    def ratios(self) -> dict[str, float | None]:
        """Median over the turns of our throughput divided by each baseline's."""
        return {name: ratio(self.turns, OURS, name) for name in self.baselines}

    def told(self) -> dict[str, Any]:
        """As commands print it."""
        return {
            "from": self.source,
            "to": self.target,
            "wire": self.wire,
            "settings": self.settings,
            "runs": [each.told() for turn in self.turns for each in turn],
            "ratio": self.ratios(),
        }


class Failure(Struct, frozen=True):
    """A cell that was not measured to its end, or not at all."""

    cell: str
    error: str
    exit_code: int


def cells_of(lab: Lab, plan: BenchPlan) -> dict[Cell, str]:
    """The plan's cells in the order in which they are measured, and why one can't be measured here, or "".

    Cells of one team are next to each other, so that it changes as seldom as can be. Raises BadInput for
    VMs that the lab lacks.
    """
    client, server = _choose(lab, plan.from_vm, plan.to_vm)
    hosts = _hosts(client, server)
    cells = bench_teams.grouped(lab.plan, hosts, plan.cells())
    return {cell: _refused(lab, hosts, server, cell) for cell in cells}


def _refused(lab: Lab, hosts: Sequence[str], server: VmPlan, cell: Cell) -> str:
    try:
        _address(server, cell.ip)
        if cell.nic is not None:
            bench_settings.offloads_of(cell.nic)
        bench_teams.plan_of(lab.plan, hosts, cell.team)
    except BadInput as error:
        return str(error)
    return ""


def run_plan(
    lab: Lab, plan: BenchPlan, progress: Progress, done: Callable[[CellResult], None]
) -> list[Failure]:
    """Measure the cells of a plan one after the other; ``done`` is given each that was measured to its end.

    A cell that fails is left out, and the others go on; a plan of one cell raises its error. Raises
    BadInput, MachineLacks, LabError.
    """
    cells = cells_of(lab, plan)
    batch = new_id()
    failures = []
    with Teams(lab, _hosts(*_choose(lab, plan.from_vm, plan.to_vm))) as teams:
        for number, (cell, why) in enumerate(cells.items(), 1):
            where = f"cell {number}/{len(cells)}: " if len(cells) > 1 else ""

            def report(runs: int, total: int, what: str, where: str = where) -> None:
                progress(runs, total, where + what)

            def switching(what: str, where: str = where) -> None:
                progress(0, 0, f"{where}another team: {what}")

            try:
                if why:
                    raise BadInput(why)
                teams.switch(cell.team, switching)
                result = run_cell(lab, plan, cell, report, batch)
            except NotPutBack:
                raise
            except TestbedError as error:
                if len(cells) == 1:
                    raise
                failures.append(Failure(cell.name(), str(error), error.exit_code))
                continue
            done(result)
    return failures


def _hosts(client: VmPlan, server: VmPlan) -> list[str]:
    """Those on the path, the sender's first."""
    return [*dict.fromkeys((client.host, server.host))]


def run_cell(lab: Lab, plan: BenchPlan, cell: Cell, progress: Progress, batch: str) -> CellResult:
    """Measure one cell. What it switches in the lab is put back, however that ends."""
    client, server = _choose(lab, plan.from_vm, plan.to_vm)
    started = time.time()
    with contextlib.ExitStack() as stack:
        hosts = {client.host, server.host}
        coalesces = stack.enter_context(bench_settings.of_nics(lab, hosts, cell.nic))
        wire = stack.enter_context(bench_settings.of_wire(lab, client, server, cell.wire))
        lso = stack.enter_context(bench_settings.of_guests(lab, (client, server), cell.guest_lso))
        path = path_between(lab, client, server, OURS, wire, cell.ip)
        path = dataclasses.replace(path, guest_lso=lso, coalesces=coalesces)
        load = plan.load(cell, path.mtu, ipaddress.ip_address(path.server_address).version)
        settings = _settings(lab, client, server, path, cell.nic) | _of_load(load)
        settings |= {"warm_up": plan.warm_up, "latency": plan.latency}
        turns = bench(path, plan.baselines, load, plan.terms(), progress)
    return CellResult(
        cell=cell,
        batch=batch,
        source=client.name,
        target=server.name,
        wire=wire,
        settings=settings,
        baselines=plan.baselines,
        tools=tools(plan.baselines),
        turns=turns,
        started=started,
        seconds=time.time() - started,
    )


def _settings(
    lab: Lab, client: VmPlan, server: VmPlan, path: BenchPath, profile: str | None
) -> dict[str, Setting]:
    """What is chosen while it is measured; offloads are those that the NICs have in use now."""
    hosts = sorted({client.host, server.host})
    shown = [nic for host in hosts for nic in nics.show(lab, host)]
    planned = {nic.profile for host in hosts for nic in lab.plan.host(host).nics}
    return {
        "engine": lab.record.engine,
        "nic": profile or ",".join(sorted(planned)),
        "offloads": ",".join(sorted({each for nic in shown for each in in_use(nic["offloads"]["enabled"])})),
        "wire": path.wire,
        "team": name_of(lab.plan.host(client.host)),
        "ip": ipaddress.ip_address(path.server_address).version,
        "mtu": path.mtu,
        "guest_lso": path.guest_lso,
        "from": client.name,
        "to": server.name,
    }


def in_use(enabled: Sequence[str]) -> list[str]:
    """Of the tasks that a NIC has enabled: without ``nvgre`` none of NVGRE packets has an effect."""
    return [task for task in enabled if "nvgre" in enabled or not task.startswith("nvgre-")]


def _of_load(load: Load) -> dict[str, Setting]:
    chosen: dict[str, Setting] = {
        "streams": load.streams,
        "direction": load.direction,
        "protocol": load.protocol,
        "message_size": load.message_size,
        "seconds": load.seconds,
    }
    if load.protocol == "tcp":
        chosen["congestion_control"] = load.congestion_control
    if load.rate:
        chosen["rate"] = load.rate
    return chosen


def path_between(
    lab: Lab, client: VmPlan, server: VmPlan, name: str, wire: Wire, ip: int | None = None
) -> BenchPath:
    """The path from one VM to another as something to measure; results call it ``name``."""
    hosts = sorted({client.host, server.host})
    return BenchPath(
        name,
        lab.netns(client.name),
        lab.netns(server.name),
        _address(server, ip),
        lambda: _switch_seconds(lab, hosts),
        client.vnics[0].mtu,
        wire,
        queue_packets=lambda: _queue_packets(lab, hosts),
        member_bytes=lambda: _member_bytes(lab, client.host),
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


def _address(vm: VmPlan, version: int | None) -> str:
    """The first address, or the first of a version of IP."""
    for text in vm.vnics[0].addresses:
        address = ipaddress.ip_interface(text).ip
        if version in (None, address.version):
            return str(address)
    raise BadInput(f"{vm.name} has no address" + (f" of IPv{version}" if version else ""))


def _switch_seconds(lab: Lab, hosts: Sequence[str]) -> float:
    """CPU time (user and system) that the hosts' processes have used."""
    ticks = 0
    for host in hosts:
        for process in processes(lab, host):
            stat = Path(f"/proc/{process['pid']}/stat").read_text()
            fields = stat[stat.rindex(")") + 2 :].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _queue_packets(lab: Lab, hosts: Sequence[str]) -> Mapping[str, int]:
    """What each receive queue of NICs with several has taken, by "host2/nic1/queue0"."""
    return {
        f"{host}/{nic['name']}/queue{match[1]}": value
        for host in hosts
        for nic in nics.show(lab, host)
        for counter, value in nic["counters"].items()
        if (match := _QUEUE.fullmatch(counter))
    }


def _member_bytes(lab: Lab, host: str) -> Mapping[str, int]:
    """What each member of a host's team of several has sent, by "host1/nic1"."""
    shown = nics.show(lab, host)
    return {f"{host}/{nic['name']}": nic["counters"]["tx_bytes"] for nic in shown} if len(shown) > 1 else {}


def failed(failures: Sequence[Failure], cells: int) -> LabError:
    """The error of a plan of which some cells failed."""
    told = "".join(f"\n  {each.cell}: {each.error}" for each in failures)
    return LabError(f"{len(failures)} of {cells} cells were not measured to their end, nor recorded:{told}")
