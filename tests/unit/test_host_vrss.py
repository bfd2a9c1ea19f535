"""A VM's NIC with several queues in a host: read, heard, handed over and let go, all of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from support.frames import UDP, arp, ethernet, ip, ipv4, ports
from support.host import CONFIGURE, MemoryHost, memory_host, plan
from support.switch import PLAIN, mac_of, v4
from support.waiting import until
from testbed.channel import pair
from testbed.errors import BadInput
from testbed.host.worker import Worker
from testbed.topology.plan import ProcessorsPlan

QUEUES = 4
BLUE1 = mac_of("blue1")
PORT = {"name": "blue1", "mac": BLUE1.hex(":"), "vsid": 5001}
ENDS = ["blue1", *(f"blue1/{number}" for number in range(1, QUEUES))]
DATAGRAM = PLAIN + ethernet(
    mac_of("blue4"), BLUE1, 0x0800, ipv4(v4("blue1"), v4("blue4"), UDP, ports(1000, 2000) + b"\0\x08\0\0")
)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryHost]:
    with memory_host(monkeypatch) as made:
        made.configure(plan())
        made.space.settle()
        yield made


def wait_heard(host: MemoryHost, packets: int) -> None:
    """Until the switch has read so many of blue1."""
    port = host.worker.state.ports["blue1"]
    until(lambda: port.from_vm_packets == packets, "not all queues were read")


@pytest.mark.parametrize("budget", [0.0, 0.5])
def test_all_queues_are_read(host: MemoryHost, budget: float) -> None:
    host.configure(plan(processors=ProcessorsPlan(2, budget)))
    host.plug("blue1", BLUE1, 5001, QUEUES)
    for count in (1, 2):
        for end in ENDS:
            host.vms[end].send(DATAGRAM)
        wait_heard(host, count * QUEUES)
    if scheduler := host.worker.work.scheduler:
        assert {*host.worker.state.ports["blue1"].descriptors} <= {*scheduler._jobs}
        host.ask("detach-port", name="blue1")
        assert not scheduler._jobs


def test_the_worker_looks_into_packets_as_long_as_there_is_such_a_port(host: MemoryHost) -> None:
    datapath = host.worker.datapath
    host.plug("blue4", mac_of("blue4"), 5001)
    assert not datapath.inspects
    host.plug("blue1", BLUE1, 5001, 2)
    assert datapath.inspects
    host.configure(plan(learning=False))
    assert datapath.inspects
    host.plug("blue1", BLUE1, 5001)  # in the other's place
    assert not datapath.inspects
    host.plug("blue1", BLUE1, 5001, 2)
    host.ask("detach-port", name="blue1")
    assert not datapath.inspects


def test_a_port_that_goes_leaves_nothing_watched(host: MemoryHost) -> None:
    before = {*host.worker._ready}
    host.plug("blue1", BLUE1, 5001, QUEUES)
    assert len({*host.worker._ready} - before) == len(host.worker._queues) == QUEUES
    host.ask("detach-port", name="blue1")
    assert {*host.worker._ready} == before
    assert not host.worker._queues
    assert [host.vms[end].recv(1) for end in ENDS] == [b""] * QUEUES  # closed


def test_all_queues_are_handed_over_in_their_order(host: MemoryHost) -> None:
    host.plug("blue1", BLUE1, 5001, QUEUES)
    reply = host.agent.handle({"op": "hand-over-port", "name": "blue1"}, [])
    handed = [os.dup(descriptor) for descriptor in reply.descriptors]
    assert "blue1" not in host.worker.state.ports
    for number, (descriptor, end) in enumerate(zip(handed, ENDS, strict=True)):
        os.write(descriptor, bytes([number]))
        assert host.vms[end].recv(10) == bytes([number])
        host.vms[end].send(DATAGRAM)  # waits for who comes next
    host.agent.handle({"op": "attach-port", "port": PORT, "moved": True}, handed)
    wait_heard(host, QUEUES)


@pytest.mark.parametrize("queue", range(QUEUES))
def test_what_a_vm_said_on_any_queue_counts_before_it_is_called_silent(queue: int) -> None:
    control, channel = pair()
    queues = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(QUEUES)]
    asked = {"port": "blue1", "address": ip("10.0.0.77")}
    with control, channel:
        worker = Worker(channel)
        worker._on_configure(CONFIGURE, [])
        worker._on_add_port(PORT, [inside.detach() for inside, _ in queues])
        worker._on_probe(asked, [])
        assert not worker._on_probe_result(asked, [])
        queues[queue][1].send(PLAIN + arp(2, (BLUE1, "10.0.0.77"), (bytes(6), "0.0.0.0"), b"\xff" * 6))
        assert worker._on_probe_result(asked, [])
        worker._on_remove_port(PORT, [])
    for _, outside in queues:
        outside.close()


def test_a_port_without_a_descriptor_is_refused(host: MemoryHost) -> None:
    with pytest.raises(BadInput, match="at least one"):
        host.agent.handle({"op": "attach-port", "port": PORT}, [])
