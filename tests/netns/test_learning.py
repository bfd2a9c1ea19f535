"""Learning with a real guest: its kernel asks, answers probes, and gives addresses up."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from support.host import memory_host, plan
from support.learning import LearningHost
from support.switch import mac_of, v4, v6
from testbed.namespaces import in_netns
from testbed.topology.plan import VmPlan, VnicPlan
from testbed.wiring import guest, neighbors

pytestmark = pytest.mark.netns

NEW = {4: "10.0.0.77", 6: "fd00::77"}
OLD = {4: v4("blue1"), 6: v6("blue1")}
LENGTH = {4: 24, 6: 64}
DEADLINE = 10.0
VNIC = VnicPlan(
    interface="eth0",
    port="blue1",
    vsid=5001,
    mac=mac_of("blue1").hex(":"),
    mtu=1458,
    addresses=tuple(f"{OLD[version]}/{LENGTH[version]}" for version in (4, 6)),
)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, netns: int) -> Iterator[LearningHost]:
    vm = VmPlan("blue1", "host1", (VNIC,))
    with memory_host(monkeypatch) as host:
        host.configure(plan())
        host.space.settle()
        made = LearningHost(host, guests=())
        ((_, queues),) = guest.create_adapters(netns, vm)
        port = {"name": "blue1", "mac": VNIC.mac, "vsid": 5001}
        host.agent.handle({"op": "attach-port", "port": port}, queues)
        made.learner.attached("blue1", VNIC.mac, 5001)
        guest.configure(netns, vm, "fast")
        guest.wait_until_settled(netns, vm, time.monotonic() + DEADLINE)
        made.rest()
        yield made
        made.close()


def use(netns: int, address: str) -> None:
    """Send a datagram from an address; the kernel asks for the neighbor first, as that address."""
    family, to = (socket.AF_INET6, "fd00::f0") if ":" in address else (socket.AF_INET, "10.0.0.240")
    with in_netns(netns), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        sock.sendto(b"x", (to, 9))


def settle(netns: int, address: str) -> None:
    """Wait until the kernel has found an address to be nobody else's."""
    deadline = time.monotonic() + DEADLINE
    while True:
        found = guest.addresses(netns)["eth0"]
        if any(each["address"].partition("/")[0] == address and not each["tentative"] for each in found):
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.01)  # a poll with a deadline


def add(netns: int, version: int) -> None:
    neighbors.add_address(netns, "eth0", f"{NEW[version]}/{LENGTH[version]}")
    settle(netns, NEW[version])


@pytest.mark.parametrize("version", [4, 6])
def test_a_second_address_is_learned_and_the_first_answered_for(
    lab: LearningHost, netns: int, version: int
) -> None:
    add(netns, version)
    use(netns, NEW[version])
    lab.until(lambda: lab.owner(NEW[version]) == ("Dynamic", "blue1"))
    lab.rest()
    assert lab.owner(OLD[version]) == ("Static", "blue1")
    assert [report["ca"] for report in lab.reporter.reports] == [NEW[version]]


@pytest.mark.parametrize("version", [4, 6])
def test_the_address_that_the_guest_gave_up_is_gone(lab: LearningHost, netns: int, version: int) -> None:
    neighbors.remove_address(netns, "eth0", f"{OLD[version]}/{LENGTH[version]}")
    add(netns, version)
    use(netns, NEW[version])
    lab.until(lambda: lab.owner(OLD[version]) is None)
    lab.rest()
    assert lab.owner(NEW[version]) == ("Dynamic", "blue1")
    assert lab.owner(OLD[10 - version]) == ("Static", "blue1")
    assert lab.reporter.reports[-1]["replaces"] == OLD[version]


@pytest.mark.parametrize("version", [4, 6])
def test_a_guest_answers_within_the_fast_window_each_time(
    lab: LearningHost, netns: int, version: int
) -> None:
    for _ in range(50):
        assert lab.loop.run_until_complete(lab.learner.probe(5001, VNIC.mac, OLD[version]))
    assert not lab.loop.run_until_complete(lab.learner.probe(5001, VNIC.mac, NEW[version]))
    # asking leaves nothing behind that would make the guest speak to a wrong neighbor
    assert neighbors.neighbor(netns, "eth0", "10.0.0.1") is None
