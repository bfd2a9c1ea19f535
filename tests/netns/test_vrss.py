"""A guest's NIC with several queues, as its kernel sees it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from random import Random

import pytest
from pyroute2 import IPRoute

from support.frames import UDP, encapsulated, ethernet, ip, ipv4, ports
from support.guest_queues import GuestQueues
from support.host import MemoryHost, memory_host, plan
from support.switch import PLAIN, mac_of, nic_mac, pa, v4
from support.waiting import until
from testbed.namespaces import in_netns
from testbed.testing.streams import flow_hash
from testbed.topology.plan import VmPlan, VnicPlan
from testbed.wiring import guest

pytestmark = pytest.mark.netns

QUEUES, FLOWS = 4, 64
MAC, PEER = mac_of("blue1"), mac_of("blue2")
VNIC = VnicPlan("eth0", "blue1", 5001, MAC.hex(":"), 1458, addresses=(f"{v4('blue1')}/24",), queues=QUEUES)
PORT = {"name": "blue1", "mac": VNIC.mac, "vsid": 5001}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, netns: int) -> Iterator[MemoryHost]:
    vm = VmPlan("blue1", "host1", (VNIC,))
    with memory_host(monkeypatch) as made:
        made.configure(plan())
        made.space.settle()
        ((_, queues),) = guest.create_adapters(netns, vm)
        made.agent.handle({"op": "attach-port", "port": PORT}, queues)
        guest.configure(netns, vm, "fast")
        guest.wait_until_settled(netns, vm, time.monotonic() + 10)
        made.agent._link.order("neighbor", next_hop=ip(pa(2, 5001)), mac=nic_mac(2))
        yield made


def arriving(source: int, destination: int, payload: bytes) -> bytes:
    """A datagram of blue2's on the wire."""
    header = ports(source, destination) + (8 + len(payload)).to_bytes(2, "big") + bytes(2)
    packet = ipv4(v4("blue2"), v4("blue1"), UDP, header + payload)
    return encapsulated(ethernet(MAC, PEER, 0x0800, packet), 5001, pa(2, 5001), pa(1, 5001), nic_mac(1))


def test_the_guests_kernel_gets_each_flow_by_its_queue(host: MemoryHost, netns: int) -> None:
    with in_netns(netns):
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    cable = host.worker.state.uplinks["nic1"].cable  # type: ignore[attr-defined]
    rng = Random(7)
    with GuestQueues(netns, "eth0", QUEUES) as seen, listener:
        listener.bind((v4("blue1"), 7000))
        listener.settimeout(10)
        used = set()
        for number in range(FLOWS):
            source, payload = rng.randrange(1, 1 << 16), b"flow %d" % number
            queue = flow_hash(v4("blue2"), source, v4("blue1"), 7000) % 128 % QUEUES
            used.add(queue)
            for _ in range(2):
                cable.send(PLAIN + arriving(source, 7000, payload))
                assert listener.recvfrom(100) == (payload, (v4("blue2"), source))
                assert seen.of(payload) == queue
        assert used == {*range(QUEUES)}


def test_whatever_queue_the_guest_sends_by_is_read(host: MemoryHost, netns: int) -> None:
    payloads = {b"flow %d" % number for number in range(FLOWS)}
    sent = host.worker.state.uplinks["nic1"].sent  # type: ignore[attr-defined]
    for number, payload in enumerate(sorted(payloads)):
        with in_netns(netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("", 20000 + number))
            sock.sendto(payload, (v4("blue2"), 9))
    until(lambda: {frame[84:] for _, frame in [*sent]} >= payloads, "datagrams of the guest are missing")


def test_a_device_that_is_gone_is_let_go_with_all_its_queues(host: MemoryHost, netns: int) -> None:
    """Each of them would wake the worker for ever."""
    queues = {*host.worker._queues}
    assert len(queues) == QUEUES
    with in_netns(netns), IPRoute() as ipr:
        ipr.link("del", ifname="eth0")
    until(lambda: queues.isdisjoint(host.worker._ready), "a queue is still watched")
    assert host.ask("counters")
