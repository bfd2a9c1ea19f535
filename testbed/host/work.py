"""What a worker has to read, ports and receive queues, and on which emulated processor it does so."""

from __future__ import annotations

import select
from collections.abc import Callable
from functools import partial

from testbed.host.processors import (
    PER_BYTE_RECEIVED,
    PER_BYTE_SENT,
    PER_CHECKSUM,
    PER_PACKET,
    PER_SEGMENT,
    Job,
    Processor,
    Scheduler,
)
from testbed.switch.datapath import Datapath
from testbed.switch.port import Port
from testbed.switch.state import SwitchState
from testbed.switch.uplink import Queue, Uplink
from testbed.topology.plan import ProcessorsPlan

Handler = Callable[[], None]


class Work:
    """Handlers for descriptors; without a budget they are just the datapath's."""

    def __init__(self, state: SwitchState, datapath: Datapath, poll: select.epoll) -> None:
        self._state = state
        self._datapath = datapath
        self._poll = poll
        self.scheduler: Scheduler | None = None
        self.members: list[str] = []  # the host's NICs

    def on(self, plan: ProcessorsPlan) -> None:
        """The host's processors; what is watched already stays where it is."""
        if plan.budget and self.scheduler is None:
            processors = [Processor(plan.budget) for _ in range(plan.count)]
            self.scheduler = Scheduler(self._poll, processors)

    def of_port(self, port: Port, descriptor: int) -> Handler:
        """What reads the packets of a VM's queue, on whichever processor has time."""
        drain = partial(self._datapath.drain_port, port, descriptor)
        if self.scheduler is None:
            return drain
        spent, first = partial(self._sent, port), self.scheduler.processors[0]
        return self.scheduler.add(Job(descriptor, drain, spent, first, anywhere=True))

    def of_queue(self, uplink: Uplink, queue: Queue) -> Handler:
        """What reads a NIC's receive queue; queue N begins on processor N of the NIC's."""
        drain = partial(self._datapath.drain_uplink, uplink, queue)
        if self.scheduler is None:
            return drain
        processors = self.scheduler.processors
        first = self._first_processor(uplink, len(processors))
        processor = processors[(first + queue.number) % len(processors)]
        job = Job(
            queue.socket.fileno(),
            drain,
            lambda: queue.rx_packets * PER_PACKET + queue.rx_bytes * PER_BYTE_RECEIVED,
            processor,
            movable=lambda: uplink.plain.vmq,
        )
        return self.scheduler.add(job)

    def _first_processor(self, uplink: Uplink, count: int) -> int:
        """Of a team whose queues add up each member has processors of its own (hnv.md section 10, T-vmq)."""
        if self._state.roles.queue_mode != "Sum-of-Queues" or uplink.name not in self.members:
            return 0
        return self.members.index(uplink.name) * count // len(self.members)

    def forget(self, descriptor: int) -> None:
        """It is not watched any more."""
        if self.scheduler is not None:
            self.scheduler.remove(descriptor)

    def _sent(self, port: Port) -> float:
        uplinks = self._state.uplinks.values()
        return (
            port.from_vm_packets * PER_PACKET
            + port.from_vm_bytes * PER_BYTE_SENT
            + sum(uplink.tx_software_segments for uplink in uplinks) * PER_SEGMENT
            + sum(uplink.tx_software_checksums for uplink in uplinks) * PER_CHECKSUM
        )
