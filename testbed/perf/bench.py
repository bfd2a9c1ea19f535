"""Compare a lab's path with a baseline, measured in alternation.

A machine's speed drifts while it is measured. So the two paths are run in pairs, one right after
the other, the order swapped from pair to pair, and what counts is the median of the pairs' ratios.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal

from testbed.errors import BadInput, LabError
from testbed.perf import iperf
from testbed.perf.vxlan import VxlanLab
from testbed.topology.schema import Wire

CONGESTION_CONTROL = "cubic"
WARM_UP = 1  # seconds
Baseline = Literal["vxlan"]
Progress = Callable[[int, int, str], None]
"""Called with (runs done, runs in all, what is next or "done")."""


@dataclass(frozen=True)
class BenchPath:
    """Two guests and what lies between them.

    client, server: descriptors of the guests' network namespaces. server_address: IPv4 or IPv6.
    switch_cpu_seconds: CPU time of the switch processes so far. mtu: the guests', bytes of IP
    packet. wire: of the cables on the way. guest_lso: the guests hand over super-packets.
    coalesces: the NICs join what comes through the tunnel.
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


def bench(
    ours: BenchPath,
    baseline: Baseline | None = None,
    *,
    seconds: int = 5,
    streams: int = 1,
    repeat: int = 5,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure ``ours`` ``repeat`` times, each time in a pair with the baseline if there is one.

    Returns ``{"runs": [{"path", "gigabits_per_second", "retransmits", "switch_cpu_seconds"}, ...],
    "ratio": {baseline: number}}``: runs in the order they were made, ratio the median over the
    pairs of ours / baseline, without a baseline empty. The baseline is the kernel's: it has no
    switch process, so its switch_cpu_seconds is 0. A warm-up run of each path comes first and is
    not reported. Raises BadInput, MachineLacks, and LabError when any run fails.
    """
    if repeat < 1:
        raise BadInput(f"repeat is {repeat}: must be at least 1")
    with contextlib.ExitStack() as stack:
        paths = [ours]
        if baseline:
            lab = stack.enter_context(
                VxlanLab(mtu=ours.mtu, wire=ours.wire, guest_lso=ours.guest_lso, coalesces=ours.coalesces)
            )
            paths.append(_baseline_path(baseline, lab, ip_address(ours.server_address).version))
        pairs = alternate(paths, seconds=seconds, streams=streams, repeat=repeat, progress=progress)
    runs = [run for pair in pairs for run in pair]
    return {"runs": runs, "ratio": {baseline: ratio(pairs, ours.name, baseline)} if baseline else {}}


def ratio(pairs: Sequence[Sequence[dict[str, Any]]], path: str, baseline: str) -> float:
    """Median over the pairs of ``path``'s Gbit/s divided by ``baseline``'s; a pair's order is free."""
    speeds: list[dict[str, float]] = [
        {run["path"]: run["gigabits_per_second"] for run in pair} for pair in pairs
    ]
    return round(statistics.median(speed[path] / speed[baseline] for speed in speeds), 3)


def order(paths: Sequence[BenchPath], pair: int) -> list[BenchPath]:
    """The paths in the order of pair number ``pair``: swapped in every second one."""
    return list(paths) if pair % 2 == 0 else list(reversed(paths))


def _silent(_done: int, _total: int, _what: str) -> None:
    pass


def _baseline_path(name: Baseline, lab: VxlanLab, version: int) -> BenchPath:
    address = lab.server_address(version)
    return BenchPath(name, lab.client, lab.server, address, lambda: 0.0, lab.mtu, lab.wire)


def alternate(
    paths: Sequence[BenchPath],
    *,
    seconds: int,
    streams: int,
    repeat: int,
    progress: Progress | None = None,
) -> list[list[dict[str, Any]]]:
    """Warm each path up, then run them all ``repeat`` times; runs as :func:`bench` has them, by turns."""
    tell = progress or _silent
    total = len(paths) * (repeat + 1)
    done = 0
    turns = []
    with contextlib.ExitStack() as stack:
        for path in paths:
            stack.enter_context(
                iperf.congestion_control(path.client, path.server_address, CONGESTION_CONTROL)
            )
        for path in paths:
            tell(done, total, f"{path.name} warm-up")
            _run(path, WARM_UP, streams)
            done += 1
        for turn in range(repeat):
            runs = []
            for path in order(paths, turn):
                tell(done, total, f"{path.name} {turn + 1}/{repeat}")
                runs.append(_run(path, seconds, streams))
                done += 1
            turns.append(runs)
    tell(done, total, "done")
    return turns


def _run(path: BenchPath, seconds: int, streams: int) -> dict[str, Any]:
    """One run as it is reported. Raises LabError, which names the path."""
    before = path.switch_cpu_seconds()
    try:
        result = iperf.run(path.client, path.server, path.server_address, seconds=seconds, streams=streams)
    except LabError as error:
        raise LabError(f"{path.name}: {error}") from None
    if result.congestion_control != CONGESTION_CONTROL:
        raise LabError(f"{path.name}: sent with {result.congestion_control}, not {CONGESTION_CONTROL}")
    return {
        "path": path.name,
        "gigabits_per_second": round(result.gigabits_per_second, 6),
        "retransmits": result.retransmits,
        "switch_cpu_seconds": round(path.switch_cpu_seconds() - before, 3),
    }
