"""The benchmark runs and answers in the promised shape; how fast it is, is not tested here."""

from __future__ import annotations

import pytest

from support.capture import port_of
from support.labs import Lab

pytestmark = pytest.mark.e2e


def offloads(lab: Lab, interface: str) -> str:
    return lab.cli.output(lab.name, "fabric", "ethtool", "-k", interface)


@pytest.mark.may_drop(
    "port-refused", "rx-overrun", "tx-refused"
)  # a TCP stream finds the limit of every queue
@pytest.mark.parametrize("wire", ["frames", "aggregated"])
def test_bench_beside_vxlan(lab: Lab, wire: str) -> None:
    interface = port_of(lab, "host1", "nic1")
    before = offloads(lab, interface)
    words = ("--seconds", 1, "--repeat", 1, "--baseline", "vxlan", "--wire", wire)
    result = lab.cli.json("bench", lab.name, *words)
    assert (result["from"], result["to"], result["wire"]) == ("blue1", "blue2", wire)
    assert sorted(run["path"] for run in result["runs"]) == ["vxlan", "wnv"]
    for run in result["runs"]:
        assert run["gigabits_per_second"] > 0.01
        assert run["retransmits"] >= 0
        assert run["switch_cpu_seconds"] >= 0
    speed = {run["path"]: run["gigabits_per_second"] for run in result["runs"]}
    assert result["ratio"]["vxlan"] == pytest.approx(speed["wnv"] / speed["vxlan"], abs=0.01)
    assert offloads(lab, interface) == before  # the cables are what they were


@pytest.mark.may_drop("port-refused", "rx-overrun", "tx-refused")
def test_bench_between_chosen_vms(lab: Lab) -> None:
    result = lab.cli.json("bench", lab.name, "--seconds", 1, "--repeat", 1, "--from", "red2", "--to", "red4")
    assert (result["from"], result["to"], len(result["runs"]), result["ratio"]) == ("red2", "red4", 1, {})
    assert "has no VM 'red9'" in lab.cli.refused(2, "bench", lab.name, "--from", "red9")
