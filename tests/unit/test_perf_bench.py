"""Bench: pairing, ratio and errors, with runs that are given instead of measured."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.errors import BadInput, LabError
from testbed.perf import bench as bench_module
from testbed.perf import iperf
from testbed.perf.bench import BenchPath, bench, order, ratio
from testbed.perf.vxlan import HIGHEST_MTU, VxlanLab


def _pair(*speeds: tuple[str, float]) -> list[dict[str, Any]]:
    return [{"path": path, "gigabits_per_second": speed} for path, speed in speeds]


def _path(name: str, client: int = -1) -> BenchPath:
    seconds = itertools.count(100, 2)
    return BenchPath(name, client, -2, "10.0.0.6", lambda: float(next(seconds)), 1458, "frames")


def test_ratio_is_the_median_of_the_pairs_ratios() -> None:
    # ratios 0.5, 0.9, 2.0; the ratio of the medians would be 8 / 10, of the sums 22 / 24
    pairs = [
        _pair(("wnv", 5), ("vxlan", 10)),
        _pair(("vxlan", 10), ("wnv", 9)),
        _pair(("wnv", 8), ("vxlan", 4)),
    ]
    assert ratio(pairs, "wnv", "vxlan") == 0.9


def test_ratio_of_an_even_number_of_pairs_is_the_mean_of_the_middle_two() -> None:
    pairs = [_pair(("wnv", speed), ("vxlan", 10)) for speed in (1, 8, 9, 30)]
    assert ratio(pairs, "wnv", "vxlan") == 0.85


def test_order_is_swapped_in_every_second_pair() -> None:
    ours, theirs = _path("wnv"), _path("vxlan")
    assert [[path.name for path in order([ours, theirs], pair)] for pair in range(3)] == [
        ["wnv", "vxlan"],
        ["vxlan", "wnv"],
        ["wnv", "vxlan"],
    ]


class _Measured:
    """Stands for everything that needs the kernel; the baseline's client is descriptor 7."""

    client, server, wire = 7, 8, "frames"

    def __init__(self, speeds: dict[int, list[float]], algorithm: str = "cubic") -> None:
        self.speeds = {client: iter(list_) for client, list_ in speeds.items()}
        self.algorithm = algorithm
        self.calls: list[tuple[int, int, int]] = []
        self.lab: dict[str, Any] = {}

    def run(
        self, client: int, _server: int, _address: str, *, seconds: int, streams: int
    ) -> iperf.IperfResult:
        self.calls.append((client, seconds, streams))
        speed = next(self.speeds[client])
        if speed < 0:
            raise LabError("iperf3 client: the server is gone")
        return iperf.IperfResult(speed, 3, float(seconds), self.algorithm)

    @contextlib.contextmanager
    def vxlan(self, **options: Any) -> Iterator[_Measured]:
        self.lab = options
        yield self

    mtu = 1458

    def server_address(self, version: int) -> str:
        return {4: "10.0.0.6", 6: "fd00::6"}[version]


@contextlib.contextmanager
def _no_route(*_: object) -> Iterator[None]:
    yield


def _measured(
    monkeypatch: pytest.MonkeyPatch, speeds: dict[int, list[float]], algorithm: str = "cubic"
) -> _Measured:
    measured = _Measured(speeds, algorithm)
    monkeypatch.setattr(iperf, "run", measured.run)
    monkeypatch.setattr(iperf, "congestion_control", _no_route)
    monkeypatch.setattr(bench_module, "VxlanLab", measured.vxlan)
    return measured


def test_bench_with_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = _measured(monkeypatch, {-1: [1, 9, 8], 7: [1, 10, 10]})
    seen: list[tuple[int, int, str]] = []
    result = bench(
        _path("wnv"), "vxlan", seconds=4, streams=2, repeat=2, progress=lambda *state: seen.append(state)
    )
    assert json.loads(json.dumps(result)) == {
        "runs": [
            {"path": "wnv", "gigabits_per_second": 9, "retransmits": 3, "switch_cpu_seconds": 2},
            {"path": "vxlan", "gigabits_per_second": 10, "retransmits": 3, "switch_cpu_seconds": 0},
            {"path": "vxlan", "gigabits_per_second": 10, "retransmits": 3, "switch_cpu_seconds": 0},
            {"path": "wnv", "gigabits_per_second": 8, "retransmits": 3, "switch_cpu_seconds": 2},
        ],
        "ratio": {"vxlan": 0.85},
    }
    assert measured.calls == [(-1, 1, 2), (7, 1, 2), (-1, 4, 2), (7, 4, 2), (7, 4, 2), (-1, 4, 2)]
    assert measured.lab == {"mtu": 1458, "wire": "frames", "guest_lso": True, "coalesces": True}
    assert [done for done, _, _ in seen] == list(range(7))
    assert {total for _, total, _ in seen} == {6}


def test_bench_without_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    _measured(monkeypatch, {-1: [1, 9, 8, 7, 6, 5]})
    result = bench(_path("wnv"))
    assert [run["gigabits_per_second"] for run in result["runs"]] == [9, 8, 7, 6, 5]
    assert result["ratio"] == {}


def test_a_failed_run_fails_the_bench_and_names_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    _measured(monkeypatch, {-1: [1, 9, 8], 7: [1, 10, -1]})
    with pytest.raises(LabError, match=r"^vxlan: iperf3 client: the server is gone$"):
        bench(_path("wnv"), "vxlan", repeat=2)


def test_another_congestion_control_fails_the_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    _measured(monkeypatch, {-1: [1]}, "bbr")
    with pytest.raises(LabError, match="wnv: sent with bbr, not cubic"):
        bench(_path("wnv"))


def test_repeat_must_be_positive() -> None:
    with pytest.raises(BadInput, match="repeat is 0"):
        bench(_path("wnv"), repeat=0)


@pytest.mark.parametrize("mtu", [1279, HIGHEST_MTU + 1])
def test_baseline_refuses_an_mtu_it_cannot_have(mtu: int) -> None:
    with pytest.raises(BadInput, match=f"mtu is {mtu}"):
        VxlanLab(mtu=mtu)


def _report(**changes: Any) -> str:
    end = {
        "sum_sent": {"retransmits": 12},
        "sum_received": {"bits_per_second": 4.5e9, "seconds": 3.1},
        "sender_tcp_congestion": "cubic",
    }
    return json.dumps({"end": end | changes})


def test_report_of_iperf3() -> None:
    assert iperf._parse(_report()) == iperf.IperfResult(4.5, 12, 3.1, "cubic")


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ("", "not understood"),
        ("[]", "not understood"),
        (_report(sum_sent={}), "not understood.*retransmits"),
        (_report(sum_received={"bits_per_second": 0, "seconds": 1}), "no data arrived"),
    ],
)
def test_report_without_figures_is_an_error(report: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        iperf._parse(report)
