"""The baselines ``bare`` and ``ovs`` carry traffic and leave nothing; round trips tell what a path does."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from testbed.errors import LabError
from testbed.namespaces import in_netns, new_netns
from testbed.perf import iperf, latency, ovs
from testbed.perf.bare import BareLab
from testbed.perf.iperf import Load
from testbed.perf.kernel import KernelLab
from testbed.perf.vxlan import VxlanLab

pytestmark = pytest.mark.netns


@pytest.fixture
def vms() -> Iterator[tuple[int, int]]:
    """Two namespaces in which nothing is but lo."""
    with contextlib.ExitStack() as stack:
        made = new_netns(), new_netns()
        for netns in made:
            stack.callback(os.close, netns)
        yield made


def interfaces(netns: int) -> list[str]:
    with in_netns(netns):
        return [name for _, name in socket.if_nameindex()]


def carries(lab: KernelLab) -> None:
    for version in (4, 6):
        address = lab.server_address(version)
        assert iperf.run(lab.client, lab.server, address, Load(seconds=1)).gigabits_per_second > 0.01
        assert latency.measure(lab.client, lab.server, address, 0.2).loss < 50


def test_bare_joins_namespaces_that_stay(vms: tuple[int, int]) -> None:
    with BareLab(*vms) as lab:
        carries(lab)
        assert "bench0" in interfaces(vms[0])
        assert lab.cpu_seconds() == 0
    assert [interfaces(netns) for netns in vms] == [["lo"], ["lo"]]
    with BareLab(*vms):  # at once again
        pass


def test_bare_that_can_not_be_built_leaves_nothing(vms: tuple[int, int]) -> None:
    with in_netns(vms[1]), IPRoute() as ip:
        ip.link("add", ifname="bench0", kind="bridge")
    with pytest.raises(LabError, match="the baseline bare cannot be built"), BareLab(*vms):
        pytest.fail("built")
    assert interfaces(vms[0]) == ["lo"]
    assert "bench0" in interfaces(vms[1])  # which is not ours


@pytest.mark.skipif(bool(ovs.missing()), reason=ovs.missing())
def test_open_vswitch() -> None:
    with ovs.OvsLab() as lab:
        pidfds = [os.pidfd_open(daemon.pid) for daemon in lab._daemons]
        assert len(pidfds) == 4
        before = lab.cpu_seconds()
        carries(lab)
        assert lab.cpu_seconds() - before > 0.1
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], 5)[0]
        os.close(pidfd)
    assert ovs.version()[0].isdigit()


def test_round_trips_show_delay_and_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(sock: socket.socket) -> None:
        """Answers each second datagram, 3 ms after it came."""
        while True:
            data, source = sock.recvfrom(64)
            if data[-1] % 2:
                time.sleep(0.003)
                sock.sendto(data, source)

    with VxlanLab() as lab:
        address = lab.server_address()
        near = latency.measure(lab.client, lab.server, address, 0.2)
        assert near.sent == 40
        assert near.loss < 50
        monkeypatch.setattr(latency, "_echo", slow)
        far = latency.measure(lab.client, lab.server, address, 0.2)
    assert far.times[0] >= 3
    assert far.loss >= 50


def test_nobody_who_answers() -> None:
    with VxlanLab() as lab, pytest.raises(LabError, match="none of 10 datagrams was answered"):
        latency.measure(lab.client, lab.client, lab.server_address(), 0.05)
