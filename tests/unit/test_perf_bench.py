"""Bench: turns, ratios, metrics and errors, with runs that are given instead of measured."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from testbed.errors import BadInput, LabError
from testbed.perf import bench as bench_module
from testbed.perf import iperf, latency, ovs
from testbed.perf.bare import BareLab
from testbed.perf.bench import BenchPath, Measured, Terms, bench, order, ratio
from testbed.perf.iperf import Load
from testbed.perf.vxlan import HIGHEST_MTU, VxlanLab
from testbed.results import metrics
from testbed.results.model import Sample


def _turn(*speeds: tuple[str, float]) -> list[Measured]:
    return [Measured(path, 0, (Sample("throughput", speed, path),)) for path, speed in speeds]


def _path(name: str, client: int = -1, **more: Any) -> BenchPath:
    seconds = itertools.count(100, 2)
    return BenchPath(name, client, -2, "10.0.0.6", lambda: float(next(seconds)), 1458, "frames", **more)


def test_ratio_is_the_median_of_the_turns_ratios() -> None:
    # ratios 0.5, 0.9, 2.0; the ratio of the medians would be 8 / 10, of the sums 22 / 24
    turns = [
        _turn(("wnv", 5), ("vxlan", 10)),
        _turn(("vxlan", 10), ("wnv", 9)),
        _turn(("wnv", 8), ("vxlan", 4)),
    ]
    assert ratio(turns, "wnv", "vxlan") == 0.9


def test_ratio_of_an_even_number_of_turns_is_the_mean_of_the_middle_two() -> None:
    turns = [_turn(("wnv", speed), ("vxlan", 10)) for speed in (1, 8, 9, 30)]
    assert ratio(turns, "wnv", "vxlan") == 0.85


def test_no_ratio_to_what_was_not_measured_or_is_zero() -> None:
    assert ratio([_turn(("wnv", 5))], "wnv", "vxlan") is None
    assert ratio([_turn(("wnv", 5), ("vxlan", 0))], "wnv", "vxlan") is None


def test_order_is_swapped_in_every_second_turn() -> None:
    paths = [_path(name) for name in ("wnv", "vxlan", "bare")]
    assert [[path.name for path in order(paths, turn)] for turn in range(3)] == [
        ["wnv", "vxlan", "bare"],
        ["bare", "vxlan", "wnv"],
        ["wnv", "vxlan", "bare"],
    ]


class _Measured:
    """Stands for everything that needs the kernel; the baseline's client is descriptor 7."""

    client, server, wire, mtu = 7, 8, "frames", 1458

    def __init__(self, speeds: dict[int, list[float]], **result: Any) -> None:
        self.speeds = {client: iter(list_) for client, list_ in speeds.items()}
        self.result = iperf.IperfResult(0, 3, 2.0, "cubic", **result)
        self.calls: list[tuple[int, int, int]] = []
        self.lab: dict[str, Any] = {}

    def run(
        self,
        client: int,
        _server: int,
        _address: str,
        load: Load,
        meanwhile: Callable[[], None] | None,
    ) -> iperf.IperfResult:
        self.calls.append((client, load.seconds, load.streams))
        speed = next(self.speeds[client])
        if speed < 0:
            raise LabError("iperf3 client: the server is gone")
        if meanwhile:
            meanwhile()
        return msgspec.structs.replace(self.result, gigabits_per_second=speed)

    @contextlib.contextmanager
    def vxlan(self, **options: Any) -> Iterator[_Measured]:
        self.lab = options
        yield self

    def server_address(self, version: int) -> str:
        return {4: "10.0.0.6", 6: "fd00::6"}[version]

    def cpu_seconds(self) -> float:
        return 0.0


def _measured(monkeypatch: pytest.MonkeyPatch, speeds: dict[int, list[float]], **result: Any) -> _Measured:
    measured = _Measured(speeds, **result)
    monkeypatch.setattr(iperf, "run", measured.run)
    monkeypatch.setattr(bench_module, "VxlanLab", measured.vxlan)
    return measured


SILENT = Terms(repeat=2, latency=False)


def test_bench_with_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = _measured(monkeypatch, {-1: [1, 9, 8], 7: [1, 10, 10]})
    monkeypatch.setattr(bench_module, "machine_seconds", itertools.count(0, 9).__next__)
    seen: list[tuple[int, int, str]] = []
    turns = bench(
        _path("wnv"), ["vxlan"], Load(seconds=4, streams=2), SILENT, lambda *state: seen.append(state)
    )
    told = json.loads(json.dumps([each.told() for turn in turns for each in turn]))
    assert [(each["path"], each["turn"]) for each in told] == [
        ("wnv", 0),
        ("vxlan", 0),
        ("vxlan", 1),
        ("wnv", 1),
    ]
    assert told[0] == {
        "path": "wnv",
        "gigabits_per_second": 9,
        "retransmits": 3,
        "switch_cpu_seconds": 2,
        "turn": 0,
        "metrics": {
            "throughput": 9,
            "retransmits": 3,
            "switch_cpu": 2,
            "switch_cpu_per_gigabit": 2 / (9 * 2),  # of what arrived in the 2 s that iperf3 tells
            "machine_cpu": 9,
            "machine_cpu_per_gigabit": 0.5,
        },
    }
    assert ratio(turns, "wnv", "vxlan") == 0.85
    assert measured.calls == [(-1, 1, 2), (7, 1, 2), (-1, 4, 2), (7, 4, 2), (7, 4, 2), (-1, 4, 2)]
    assert measured.lab == {"mtu": 1458, "wire": "frames", "guest_lso": True, "coalesces": True}
    assert [done for done, _, _ in seen] == list(range(7))
    assert {total for _, total, _ in seen} == {6}


def test_bench_without_baseline_has_five_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    _measured(monkeypatch, {-1: [1, 9, 8, 7, 6, 5]})
    turns = bench(_path("wnv"), terms=Terms(latency=False))
    assert [each.value(metrics.THROUGHPUT) for turn in turns for each in turn] == [9, 8, 7, 6, 5]


def test_without_warm_up_every_run_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = _measured(monkeypatch, {-1: [9, 8]})
    assert len(bench(_path("wnv"), terms=Terms(repeat=2, warm_up=0, latency=False))) == 2
    assert len(measured.calls) == 2


def test_round_trips_idle_and_under_load(monkeypatch: pytest.MonkeyPatch) -> None:
    _measured(monkeypatch, {-1: [1, 9]})
    idle = latency.RoundTrips(100, tuple(float(ms) for ms in range(1, 101)))

    class Probes:
        def result(self, _timeout: float) -> latency.RoundTrips:
            return latency.RoundTrips(100, (10.0,) * 74 + (20.0,))

    @contextlib.contextmanager
    def probing(*_: object) -> Iterator[Probes]:
        yield Probes()

    monkeypatch.setattr(latency, "measure", lambda *_: idle)
    monkeypatch.setattr(latency, "probing", probing)
    ((found,),) = bench(_path("wnv"), terms=Terms(repeat=1))
    values = found.values()
    wanted = {"rtt_idle_p50": 50, "rtt_idle_p90": 90, "rtt_idle_p99": 99}
    wanted |= {"rtt_load_p50": 10, "rtt_load_p90": 10, "rtt_load_p99": 20, "probe_loss": 25}
    assert {name: values[name] for name in wanted} == wanted


def test_a_path_that_answers_no_probe_under_load_has_no_percentiles(monkeypatch: pytest.MonkeyPatch) -> None:
    samples: dict[str, float] = {}
    bench_module._add_round_trips(
        lambda metric, value: samples.__setitem__(metric.name, value), latency.RoundTrips(9, ())
    )
    assert samples == {"probe_loss": 100}


def test_queues_and_members(monkeypatch: pytest.MonkeyPatch) -> None:
    _measured(monkeypatch, {-1: [1, 9]})
    packets, sent, clock = itertools.count(5, 7), itertools.count(0, 10**9), itertools.count(100.0, 2.0)
    monkeypatch.setattr(bench_module.time, "monotonic", clock.__next__)
    path = _path(
        "wnv",
        queue_packets=lambda: {"host2/nic1/queue0": next(packets)},
        member_bytes=lambda: {"host1/nic1": next(sent)},
    )
    ((found,),) = bench(path, terms=Terms(repeat=1, latency=False))
    objects = [(each.metric, each.object, each.time, each.value) for each in found.samples if each.object]
    assert objects == [
        ("queue_packets", "host2/nic1/queue0", 0, 7),
        ("member_throughput", "host1/nic1", 2, 4),  # 1 GB in 2 s
    ]
    assert "queue_packets" not in found.values()


def test_udp_has_loss_and_jitter_and_no_retransmits(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"forward": 5.0, "reverse": 4.0}
    _measured(monkeypatch, {-1: [1, 9]}, loss=2.5, jitter=0.1, directions=both)
    load = Load(protocol="udp", direction="both", message_size=1000)
    ((found,),) = bench(_path("wnv"), (), load, Terms(repeat=1, latency=False))
    assert (found.value(metrics.LOSS), found.value(metrics.JITTER)) == (2.5, 0.1)
    assert found.value(metrics.RETRANSMITS) is None
    by_direction = {each.object: each.value for each in found.samples if each.metric == "throughput"}
    assert by_direction == {"": 9, **both}


def test_a_failed_run_fails_the_bench_and_names_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    _measured(monkeypatch, {-1: [1, 9, 8], 7: [1, 10, -1]})
    with pytest.raises(LabError, match=r"^vxlan: iperf3 client: the server is gone$"):
        bench(_path("wnv"), ["vxlan"], terms=SILENT)


def test_repeat_must_be_positive() -> None:
    with pytest.raises(BadInput, match="repeat is 0"):
        bench(_path("wnv"), terms=Terms(repeat=0))


@pytest.mark.parametrize("mtu", [1279, HIGHEST_MTU + 1])
def test_baseline_refuses_an_mtu_it_cannot_have(mtu: int) -> None:
    with pytest.raises(BadInput, match=f"the baseline vxlan: mtu is {mtu}"):
        VxlanLab(mtu=mtu)


def test_bare_has_no_overhead() -> None:
    assert BareLab(-1, -2, mtu=65535).overhead == 0


def test_open_vswitch_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovs, "_program", lambda _: None)
    assert "ovs-vswitchd" in bench_module.left_out(["vxlan", "ovs"])["ovs"]
    assert bench_module.left_out(["vxlan"]) == {}


@pytest.mark.parametrize(("percent", "wanted"), [(50, 2), (90, 4), (99, 4), (1, 1), (100, 4)])
def test_percentile_is_a_value_that_was_measured(percent: float, wanted: float) -> None:
    assert latency.percentile((1, 2, 3, 4), percent) == wanted


def _report(**changes: Any) -> str:
    end = {
        "sum_sent": {"retransmits": 12},
        "sum_received": {"bits_per_second": 4.5e9, "seconds": 3.1},
        "sender_tcp_congestion": "cubic",
    }
    return json.dumps({"end": end | changes})


def test_report_of_iperf3() -> None:
    assert iperf._parse(_report(), Load()) == iperf.IperfResult(4.5, 12, 3.1, "cubic")


def test_report_of_two_directions() -> None:
    back = {
        "sum_sent_bidir_reverse": {"retransmits": 5},
        "sum_received_bidir_reverse": {"bits_per_second": 1.5e9, "seconds": 3.2},
    }
    found = iperf._parse(_report(**back), Load(direction="both"))
    ways = {"forward": 4.5, "reverse": 1.5}
    assert found == iperf.IperfResult(6.0, 17, 3.2, "cubic", directions=ways)


def test_report_of_datagrams() -> None:
    received = {"bits_per_second": 1e9, "seconds": 3, "jitter_ms": 0.5, "lost_packets": 5, "packets": 100}
    found = iperf._parse(_report(sum_received=received), Load(protocol="udp"))
    assert (found.loss, found.jitter, found.retransmits) == (5, 0.5, 0)


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ("", "not understood"),
        ("[]", "not understood"),
        (_report(sum_sent={}), "not understood.*retransmits"),
        (_report(sum_received={"bits_per_second": 0, "seconds": 1}), "no data arrived"),
        (_report(sender_tcp_congestion="bbr"), "sent with bbr, not cubic"),
    ],
)
def test_report_without_figures_is_an_error(report: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        iperf._parse(report, Load())
