"""Queues: a flow comes in on the queue of its hash (RSS, vRSS), a VM's packets on the VM's queue (VMQ).

The hash is Microsoft's, done here by the book. Whatever the topology has, its NICs and its VMs' adapters get
several queues for this suite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest

from testbed.testing import journey, nics, streams
from testbed.testing.pairs import apart
from testbed.testing.vm import token
from testbed.testing.waiting import until

if TYPE_CHECKING:
    from testbed.testing.lab import LiveLab
    from testbed.testing.vm import Vm
    from testbed.topology.schema import Topology

QUEUES = 4
COPIES = 30
ENTRIES = 128  # of an RSS table
PORT = 9
RSS = ("rss", "nvgre", "nvgre-rss")
VMQ = ("vmq", "nvgre", "nvgre-vmq")


def several_queues(topology: Topology) -> Topology:
    """All NICs and all adapters of VMs have several."""
    replace = msgspec.structs.replace
    hosts = [
        replace(host, nics=[replace(nic, queues=max(nic.queues or 0, QUEUES)) for nic in host.nics])
        for host in topology.hosts
    ]
    vms = [
        replace(vm, vnics=[vnic if vnic.legacy else replace(vnic, queues=QUEUES) for vnic in vm.vnics])
        for vm in topology.vms
    ]
    return replace(topology, hosts=hosts, vms=vms)


pytestmark = pytest.mark.topology(change=several_queues)
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


class Way(NamedTuple):
    """Two VMs on different hosts, and how many queues the NICs of the receiver's have."""

    lab: LiveLab
    one: Vm
    other: Vm
    version: int
    queues: int

    @property
    def table(self) -> list[int]:
        """Queues by turns."""
        return [position % self.queues for position in range(ENTRIES)]

    def port_for(self, queue: int, queues: int = 0) -> int:
        """A source port whose flow takes this queue, of a table with ``queues`` by turns."""
        table = [position % (queues or self.queues) for position in range(ENTRIES)]
        ends = self.one.address(self.version), self.other.address(self.version)
        return streams.ports_for([queue], *ends, PORT, table)[0]

    def send(self, source: int) -> None:
        """Packets of a flow, followed at each hop."""
        journey.follow(self.lab, self.one, self.other, self.version)  # neighbors are resolved
        mark = token()
        frame = self.one.frame(self.other, mark, self.version, ports=(source, PORT))
        with self.lab.capture(*journey.points(self.lab, self.one, self.other)) as seen:
            self.one.send(*[frame] * COPIES)
            until(
                lambda: seen.count(self.other.point, mark, outgoing=False) >= COPIES,
                f"all packets of a flow of {self.one} come to {self.other}",
            )
            trip = journey.of(self.lab, seen, self.one, self.other, mark)
        counts = {len(trip.left), len(trip.from_host), len(trip.to_host), len(trip.arrived)}
        assert counts == {COPIES}, trip

    def expect(self, queues: set[int], source: int) -> None:
        """Packets of this flow come in on one of these queues of the NICs, and next to nothing on others."""
        names = [f"rx_queue_{number}_packets" for number in range(self.queues)]
        before = nics.counted(self.lab, self.other.host, *names)
        self.send(source)
        now = nics.counted(self.lab, self.other.host, *names)
        grown = [after - then for after, then in zip(now, before, strict=True)]
        inside = sum(grown[queue] for queue in queues)
        assert inside >= COPIES > sum(grown) - inside, f"by queue {grown}, expected in {sorted(queues)}"


def way(lab: LiveLab, version: int, *tasks: str) -> Way:
    """To a host whose NICs can do these tasks."""
    one, other = apart(lab, version)[0]
    nics.require(lab, other.host, *tasks)
    queues = min(each["queues"] for each in nics.show(lab, other.host))
    lab.require(queues > 1, f"a NIC of {other.host} with one queue")
    return Way(lab, one, other, version, queues)


def of_rss(lab: LiveLab, host: str, *, nvgre: bool) -> dict[str, bool]:
    """The tasks with RSS on; VMQ, which takes the same queues, is off."""
    supported = set.intersection(*({*each["offloads"]["supported"]} for each in nics.show(lab, host)))
    return {
        task: on
        for task, on in {**dict.fromkeys(RSS, True), "nvgre": nvgre, "vmq": False}.items()
        if task in supported
    }


@VERSIONS
def test_rss_by_the_inner_flow(lab: LiveLab, version: int) -> None:
    """NVGRE offload: the hash of the inner addresses and ports chooses, by the table."""
    path = way(lab, version, *RSS)
    tasks = of_rss(lab, path.other.host, nvgre=True)
    with nics.switched(lab, path.other.host, tasks, table=path.table):
        for queue in range(path.queues):
            path.expect({queue}, path.port_for(queue))


def test_rss_without_nvgre_offload(lab: LiveLab) -> None:
    """A NIC that sees no inner headers takes all flows of two hosts for one."""
    path = way(lab, 4, *RSS)
    names = [f"rx_queue_{number}_packets" for number in range(path.queues)]
    with nics.switched(lab, path.other.host, of_rss(lab, path.other.host, nvgre=False), table=path.table):
        before = nics.counted(lab, path.other.host, *names)
        for queue in range(path.queues):
            path.send(path.port_for(queue))
        now = nics.counted(lab, path.other.host, *names)
    grown = [after - then for after, then in zip(now, before, strict=True)]
    assert max(grown) >= path.queues * COPIES, f"flows of two hosts are in several queues: {grown}"


def test_vmq(lab: LiveLab) -> None:
    """With NVGRE offload a VM's packets come in on its queue, whatever their flow; without it on queue 0."""
    path = way(lab, 4, *VMQ)
    host = path.other.host
    tasks = {**dict.fromkeys(VMQ, True), "rss": False}
    supported = set.intersection(*({*each["offloads"]["supported"]} for each in nics.show(lab, host)))
    with nics.switched(lab, host, {task: on for task, on in tasks.items() if task in supported}):
        filters = [each["vmq"] for each in nics.show(lab, host)]
        own = {each[path.other.mac] for each in filters if path.other.mac in each}
        assert own, f"no NIC of {host} has a queue for {path.other}"
        assert 0 not in own, f"queue 0 is everybody's, and {path.other}'s"
        for queue in range(path.queues):
            path.expect(own, path.port_for(queue))
        with nics.switched(lab, host, {"nvgre": False}):
            path.expect({0}, path.port_for(1))


@VERSIONS
def test_vrss(lab: LiveLab, version: int) -> None:
    """The switch gives a VM each flow by the queue of its hash."""
    one, other = apart(lab, version)[0]
    queues = other.planned.queues
    lab.require(queues > 1, f"one queue in the adapter of {other}")
    path = Way(lab, one, other, version, queues)
    for queue in range(queues):
        before = by_queue(lab, other)
        path.send(path.port_for(queue))
        grown = [now - then for now, then in zip(by_queue(lab, other), before, strict=True)]
        assert grown[queue] >= COPIES > sum(grown) - grown[queue], f"by queue {grown}, expected in {queue}"


def by_queue(lab: LiveLab, vm: Vm) -> list[int]:
    """Packets that a VM got by each queue of its adapter."""
    counters = {each["object"]: each["fields"] for each in lab.host(vm.host).counters("port")}
    told = counters[vm.port]
    return [told[f"to_vm_queue_{number}_packets"] for number in range(vm.planned.queues)]
