"""Compare a lab's path with baselines, measured in turns.

A machine's speed drifts while it is measured. So the paths are run right after each other, the order
swapped from turn to turn, and what counts is the median of the turns' ratios.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from testbed.errors import BadInput, LabError
from testbed.perf import iperf, latency, ovs
from testbed.perf.bare import BareLab
from testbed.perf.iperf import IperfResult, Load
from testbed.perf.kernel import KernelLab
from testbed.perf.latency import RoundTrips, percentile
from testbed.perf.vxlan import VxlanLab
from testbed.results import metrics
from testbed.results.model import Metric, Sample
from testbed.results.turns import Turns, median_ratio
from testbed.topology.schema import Wire

IDLE_SECONDS = 1.0  # in which the round trips of an idle path are taken
Baseline = Literal["bare", "vxlan", "ovs"]
Progress = Callable[[int, int, str], None]
"""Called with (runs done, runs in all, what is next or "done")."""


def _nothing() -> dict[str, int]:
    return {}


@dataclass(frozen=True)
class BenchPath:
    """Two guests and what lies between them.

    client, server: descriptors of the guests' network namespaces. server_address: IPv4 or IPv6.
    switch_cpu_seconds: CPU time of the switch processes so far. mtu: the guests', bytes of IP
    packet. wire: of the cables on the way. guest_lso: the guests hand over super-packets.
    coalesces: the NICs join what comes through the tunnel. queue_packets: received so far by each
    queue of several. member_bytes: sent so far by each member of a team.
    """

    name: str
    client: int
    server: int
    server_address: str
    switch_cpu_seconds: Callable[[], float]
    mtu: int
    wire: Wire
    guest_lso: bool = True
    coalesces: bool = True
    queue_packets: Callable[[], Mapping[str, int]] = _nothing
    member_bytes: Callable[[], Mapping[str, int]] = _nothing


class Terms(Struct, frozen=True):
    """How it is measured: turns, seconds of the run before that does not count, whether round trips are."""

    repeat: int = 5
    warm_up: int = 1
    latency: bool = True


class Measured(Struct, frozen=True):
    """One path in one turn (from 0)."""

    path: str
    turn: int
    samples: tuple[Sample, ...]

    def value(self, metric: Metric) -> float | None:
        """Of what holds for the whole turn."""
        return self.values().get(metric.name)

    def values(self) -> dict[str, float]:
        """By metric, of what holds for the whole turn."""
        return {each.metric: each.value for each in self.samples if not each.object and not each.time}

    def told(self) -> dict[str, Any]:
        """As commands print it: the main figures, then all metrics by name."""
        values = self.values()
        return {
            "path": self.path,
            "gigabits_per_second": values[metrics.THROUGHPUT.name],
            "retransmits": int(values.get(metrics.RETRANSMITS.name, 0)),
            "switch_cpu_seconds": values[metrics.SWITCH_CPU.name],
            "turn": self.turn,
            "metrics": values,
        }


Turn = list[Measured]


def bench(
    ours: BenchPath,
    baselines: Sequence[Baseline] = (),
    load: Load | None = None,
    terms: Terms | None = None,
    progress: Progress | None = None,
) -> list[Turn]:
    """Measure ``ours`` and each baseline in turns, in the order in which they were run.

    The kernel has no switch process, so the CPU time of these is 0 for its baselines. A warm-up run of
    each path comes first and is not reported. Raises BadInput, MachineLacks, and LabError when any run fails.
    """
    terms = terms or Terms()
    if terms.repeat < 1:
        raise BadInput(f"repeat is {terms.repeat}: must be at least 1")
    version = ip_address(ours.server_address).version
    with contextlib.ExitStack() as stack:
        paths = [ours]
        for name in baselines:
            lab = stack.enter_context(_baseline(name, ours))
            address = lab.server_address(version)
            paths.append(BenchPath(name, lab.client, lab.server, address, lab.cpu_seconds, lab.mtu, lab.wire))
        return alternate(paths, load, terms, progress)


def _baseline(name: Baseline, ours: BenchPath) -> KernelLab:
    options: dict[str, Any] = {
        "mtu": ours.mtu,
        "wire": ours.wire,
        "guest_lso": ours.guest_lso,
        "coalesces": ours.coalesces,
    }
    if name == "bare":
        return BareLab(ours.client, ours.server, **options)
    return ovs.OvsLab(**options) if name == "ovs" else VxlanLab(**options)


def left_out(baselines: Sequence[Baseline]) -> dict[str, str]:
    """Those that this machine has not got, with what it lacks."""
    return {"ovs": why} if "ovs" in baselines and (why := ovs.missing()) else {}


def tools(baselines: Sequence[Baseline]) -> dict[str, str]:
    """Versions of what measures and is measured, beside Python packages. Raises MachineLacks."""
    found = {"libiperf": iperf.version()}
    return found | ({"openvswitch": ovs.version()} if "ovs" in baselines else {})


def ratio(
    turns: Sequence[Turn], path: str, baseline: str, metric: Metric = metrics.THROUGHPUT
) -> float | None:
    """Median over the turns of ``path``'s value by ``baseline``'s, by the rule of testbed.results.turns."""

    def of(name: str) -> Turns:
        values = {n: each.value(metric) for n, turn in enumerate(turns) for each in turn if each.path == name}
        return {n: value for n, value in values.items() if value is not None}

    found = median_ratio(of(path), of(baseline))
    return None if found is None else round(found, 3)


def order(paths: Sequence[BenchPath], turn: int) -> list[BenchPath]:
    """The paths in the order of turn number ``turn``: swapped in every second one."""
    return list(paths) if turn % 2 == 0 else list(reversed(paths))


def _silent(_done: int, _total: int, _what: str) -> None:
    pass


def alternate(
    paths: Sequence[BenchPath],
    load: Load | None = None,
    terms: Terms | None = None,
    progress: Progress | None = None,
) -> list[Turn]:
    """Warm each path up, then measure them all by turns. Errors as of :func:`bench`."""
    load, terms, tell = load or Load(), terms or Terms(), progress or _silent
    total = len(paths) * (terms.repeat + bool(terms.warm_up))
    done = 0
    if terms.warm_up:
        warm = msgspec.structs.replace(load, seconds=terms.warm_up)
        for path in paths:
            tell(done, total, f"{path.name} warm-up")
            _send(path, warm)
            done += 1
    turns = []
    for turn in range(terms.repeat):
        measured = []
        for path in order(paths, turn):
            tell(done, total, f"{path.name} {turn + 1}/{terms.repeat}")
            measured.append(Measured(path.name, turn, tuple(_measure(path, load, turn, terms))))
            done += 1
        turns.append(measured)
    tell(done, total, "done")
    return turns


def _send(path: BenchPath, load: Load, meanwhile: Callable[[], None] | None = None) -> IperfResult:
    """One run. Raises LabError, which names the path."""
    try:
        return iperf.run(path.client, path.server, path.server_address, load, meanwhile)
    except LabError as error:
        raise LabError(f"{path.name}: {error}") from None


# ---- one path in one turn ---------------------------------------------------------------------


class _Meanwhile:
    """What is followed while a load runs: round trips, and what each member of a team sends."""

    def __init__(self, path: BenchPath, load: Load, stack: contextlib.ExitStack, *, probes: bool) -> None:
        self._path = path
        self._seconds = load.seconds - 2 * iperf.TICK  # from the first tick until before the end
        self._stack = stack
        self._wanted = probes
        self._probes: Any = None
        self._sent = [(time.monotonic(), path.member_bytes())]

    def tick(self) -> None:
        """Called as long as the load runs; round trips begin with the first."""
        if self._wanted and self._probes is None:
            path = self._path
            probing = latency.probing(path.client, path.server, path.server_address, self._seconds)
            self._probes = self._stack.enter_context(probing)
        if self._sent[0][1]:
            self._sent.append((time.monotonic(), self._path.member_bytes()))

    def round_trips(self) -> RoundTrips | None:
        """Under load; None where they were not wanted."""
        return self._probes.result(self._seconds + 10) if self._probes else None

    def members(self) -> list[tuple[str, float, float]]:
        """(member, seconds since the run began, Gbit/s from the moment before until then)."""
        found = []
        began = self._sent[0][0]
        for (before, old), (now, new) in zip(self._sent, self._sent[1:], strict=False):
            for member, sent in new.items():
                gigabits = (sent - old.get(member, 0)) * 8 / 1e9
                found.append((member, round(now - began, 3), gigabits / (now - before)))
        return found


def _measure(path: BenchPath, load: Load, turn: int, terms: Terms) -> list[Sample]:
    samples: list[Sample] = []

    def add(metric: Metric, value: float, of: str = "", at: float = 0.0) -> None:
        samples.append(Sample(metric.name, float(value), path.name, turn, of, at))

    if terms.latency:
        _add_idle(add, path)
    with contextlib.ExitStack() as stack:
        meanwhile = _Meanwhile(path, load, stack, probes=terms.latency)
        queues, switch, machine = path.queue_packets(), path.switch_cpu_seconds(), machine_seconds()
        result = _send(path, load, meanwhile.tick)
        switch, machine = path.switch_cpu_seconds() - switch, machine_seconds() - machine
        _add_load(add, result, load)
        gigabits = result.gigabits_per_second * result.seconds
        add(metrics.SWITCH_CPU, switch)
        add(metrics.SWITCH_CPU_PER_GIGABIT, switch / gigabits)
        add(metrics.MACHINE_CPU, machine)
        add(metrics.MACHINE_CPU_PER_GIGABIT, machine / gigabits)
        for queue, packets in path.queue_packets().items():
            add(metrics.QUEUE_PACKETS, packets - queues.get(queue, 0), queue)
        for member, at, rate in meanwhile.members():
            add(metrics.MEMBER_THROUGHPUT, rate, member, at)
        if found := meanwhile.round_trips():
            _add_round_trips(add, found)
    return samples


_LOADED = (metrics.RTT_LOAD_P50, metrics.RTT_LOAD_P90, metrics.RTT_LOAD_P99)
_IDLE = (metrics.RTT_IDLE_P50, metrics.RTT_IDLE_P90, metrics.RTT_IDLE_P99)
_PERCENTILES = (50, 90, 99)
_Add = Callable[..., None]


def _add_idle(add: _Add, path: BenchPath) -> None:
    try:
        found = latency.measure(path.client, path.server, path.server_address, IDLE_SECONDS)
    except LabError as error:
        raise LabError(f"{path.name}: {error}") from None
    for metric, percent in zip(_IDLE, _PERCENTILES, strict=True):
        add(metric, percentile(found.times, percent))


def _add_load(add: _Add, result: IperfResult, load: Load) -> None:
    add(metrics.THROUGHPUT, result.gigabits_per_second)
    for direction, rate in result.directions.items():
        add(metrics.THROUGHPUT, rate, direction)
    if load.protocol == "tcp":
        add(metrics.RETRANSMITS, result.retransmits)
    if result.loss is not None and result.jitter is not None:
        add(metrics.LOSS, result.loss)
        add(metrics.JITTER, result.jitter)


def _add_round_trips(add: _Add, found: RoundTrips) -> None:
    """Under load; a path on which no probe came through has a loss of 100 % and no percentiles."""
    add(metrics.PROBE_LOSS, found.loss)
    if found.times:
        for metric, percent in zip(_LOADED, _PERCENTILES, strict=True):
            add(metric, percentile(found.times, percent))


def machine_seconds() -> float:
    """CPU time that this machine has spent so far on whatever it did (proc(5), /proc/stat)."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(each) for each in fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
