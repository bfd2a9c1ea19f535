"""VMs whose adapters have several queues: which one a flow takes, wherever the VM is."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import topologies
from support.cli import Cli
from support.guest_queues import GuestQueues
from support.vmm_lab import opened
from testbed.lab.lab import Lab as Opened
from testbed.namespaces import in_netns
from testbed.testing import streams

pytestmark = pytest.mark.e2e

BLUE1, BLUE2 = "10.0.0.5", "10.0.0.6"
QUEUES = 4
TABLE = [position % QUEUES for position in range(128)]
MAY_DROP = ("no-port", "pa-not-local", "no-provider-address")  # what comes to the old host meanwhile
SIZE = 1_000_000  # bytes of a stream


def by_queue(inside: Opened) -> list[int]:
    """Packets that blue2 has got by each of its queues, on the host where it is."""
    records = [each for host in inside.plan.hosts for each in inside.ask(host.name, "counters")["counters"]]
    (port,) = (each["fields"] for each in records if (each["kind"], each["object"]) == ("port", "blue2:eth0"))
    found = [port[f"to_vm_queue_{queue}_packets"] for queue in range(QUEUES)]
    assert sum(found) == port["to_vm_packets"]
    return found


@contextmanager
def only_by(inside: Opened, queue: int, packets: int) -> Iterator[None]:
    """Inside the block blue2 gets at least so many packets by this queue, and by others next to nothing."""
    before = by_queue(inside)
    yield
    grown = [now - then for now, then in zip(by_queue(inside), before, strict=True)]
    assert grown[queue] >= packets, grown
    assert sum(grown) - grown[queue] < 10, grown  # neighbor discovery


def sockets(inside: Opened, kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    """One in blue1, one in blue2."""
    found = []
    for name in ("blue1", "blue2"):
        with in_netns(inside.netns(name)):
            found.append(socket.socket(socket.AF_INET, kind))
        found[-1].settimeout(10)
        found[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return found[0], found[1]


def datagrams(inside: Opened, source: int, port: int, count: int) -> None:
    """UDP from blue1 to blue2; every one has to arrive."""
    sender, receiver = sockets(inside, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.bind((BLUE2, port))
        sender.bind((BLUE1, source))
        for payload in (b"datagram %d" % number for number in range(count)):
            sender.sendto(payload, (BLUE2, port))
            assert receiver.recv(100) == payload


def stream(inside: Opened, sources: list[int], port: int) -> None:
    """TCP from blue1 to blue2; all of it has to arrive."""
    ends = inside.netns("blue1"), inside.netns("blue2")
    assert streams.run(*ends, BLUE2, sources, port=port, size=SIZE) == SIZE * len(sources)


def each_flow_takes_its_queue(inside: Opened, port: int) -> None:
    """Flows of both protocols for each queue, then for all queues at once."""
    for queue in range(QUEUES):
        (source,) = streams.ports_for([queue], BLUE1, BLUE2, port + queue, TABLE)
        with only_by(inside, queue, 50), GuestQueues(inside.netns("blue2"), "eth0", QUEUES) as guest:
            datagrams(inside, source, port + queue, 50)
            assert guest.of(b"datagram 49") == queue  # the guest numbers them as the switch does
        with only_by(inside, queue, 10):  # super-packets
            stream(inside, [source], port + queue)
    before = by_queue(inside)
    stream(inside, streams.ports_for([*range(QUEUES)], BLUE1, BLUE2, port + 20, TABLE), port + 20)
    assert all(now - then >= 10 for now, then in zip(by_queue(inside), before, strict=True))
    data = random.Random(port).randbytes(SIZE)
    assert streams.copy(inside.netns("blue1"), inside.netns("blue2"), BLUE2, data, port + 30) == data


@contextmanager
def connected(inside: Opened, queue: int, port: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection from blue1 to blue2, whose packets take this queue."""
    sender, listener = sockets(inside, socket.SOCK_STREAM)
    with sender, listener:
        listener.bind((BLUE2, port))
        listener.listen()
        sender.bind((BLUE1, *streams.ports_for([queue], BLUE1, BLUE2, port, TABLE)))
        sender.connect((BLUE2, port))
        receiver, _ = listener.accept()
        receiver.settimeout(10)
        with receiver:
            yield sender, receiver


def test_flows_take_their_queues_wherever_the_vm_is(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    many = topologies.blue("blue2", "host2", 6).replace("]}]}", f"], queues: {QUEUES}}}]}}")
    vms = [topologies.blue("blue1", "host1", 5), many]
    file = topologies.write(tmp_path, "vrss", {"host1": "tor1", "host2": "tor1"}, vms)
    with running(cli, file, may_drop=MAY_DROP) as lab, opened(lab, monkeypatch) as inside:
        seen = cli.output(lab.name, "blue2", "ls", "/sys/class/net/eth0/queues").split()
        assert seen == [f"{way}-{queue}" for way in ("rx", "tx") for queue in range(QUEUES)]
        each_flow_takes_its_queue(inside, 7200)
        with connected(inside, 3, 7300) as (sender, receiver):
            for position, target in enumerate(("host1", "host2")):  # beside blue1, and back behind the tunnel
                cli.json("migrate", lab.name, "blue2", "--to", target)
                each_flow_takes_its_queue(inside, 7400 + 100 * position)
                with only_by(inside, 3, 20):
                    for number in range(20):
                        sender.sendall(b"%04d" % number)
                        assert receiver.recv(4, socket.MSG_WAITALL) == b"%04d" % number
        assert cli.output(lab.name, "blue2", "ls", "/sys/class/net/eth0/queues").split() == seen
        assert cli.json("check", lab.name)["ok"]


def test_how_many_queues_there_can_be(cli: Cli, tmp_path: Path) -> None:
    for queues in (0, 17):
        vm = topologies.blue("blue1", "host1", 5).replace("]}]}", f"], queues: {queues}}}]}}")
        file = topologies.write(tmp_path, "vrss", {"host1": "tor1"}, [vm])
        assert "queues" in cli.refused(2, "validate", file)
