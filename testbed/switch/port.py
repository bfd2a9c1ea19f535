"""A VM's switch port: the queues of the TAP device that is the VM's NIC."""

from __future__ import annotations

import os

from testbed.nic.guest import GuestOffloads
from testbed.packets.checksum import Buffer
from testbed.switch.buffer import VNET, Flows

_NO_OFFLOAD = bytes(VNET)


class PortQueue:
    """A queue of a VM's NIC. ``number``: from 0."""

    __slots__ = ("descriptor", "number", "to_vm_bytes", "to_vm_packets")

    def __init__(self, number: int, descriptor: int) -> None:
        self.number = number
        self.descriptor = descriptor
        self.to_vm_packets = self.to_vm_bytes = 0


class Port:
    """A port. ``descriptors``: the TAP queues, made non-blocking, opened with IFF_VNET_HDR; at least one.

    ``descriptor``: of queue 0. ``rx_checksum``, ``rsc``: whether the VM's adapter takes packets whose
    checksums are open or vouched for, and super-packets; a change holds for flows that are decided anew.
    """

    def __init__(self, name: str, mac: bytes, vsid: int, *descriptors: int) -> None:
        self.name = name
        self.mac = mac
        self.vsid = vsid
        self.descriptors = descriptors
        self.descriptor = descriptors[0]
        for descriptor in descriptors:
            os.set_blocking(descriptor, False)
        self.queues = [PortQueue(number, descriptor) for number, descriptor in enumerate(descriptors)]
        self.flows: Flows = {}
        self.rx_checksum = self.rsc = True
        self.from_vm_packets = self.from_vm_bytes = 0
        self.to_vm_software_segments = self.to_vm_software_checksums = 0
        self.suppressed_claims = 0  # of addresses, where they are learned: too many at once

    def use(self, offloads: GuestOffloads) -> None:
        """Take over what the VM's adapter does for it."""
        now = offloads.in_use
        self.rx_checksum, self.rsc = now.rx_checksum, now.rsc

    @property
    def takes_everything(self) -> bool:
        """Whether nothing is to be done to a packet for the VM's adapter."""
        return self.rx_checksum and self.rsc

    def send(self, frame: Buffer) -> bool:
        """Hand the VM a frame that needs no offload. False when its NIC takes none."""
        try:
            os.writev(self.descriptor, [_NO_OFFLOAD, frame])
        except OSError:
            return False
        first = self.queues[0]
        first.to_vm_packets += 1
        first.to_vm_bytes += len(frame)
        return True

    @property
    def to_vm_packets(self) -> int:
        """Of all queues."""
        return sum(queue.to_vm_packets for queue in self.queues)

    @property
    def to_vm_bytes(self) -> int:
        """Of all queues."""
        return sum(queue.to_vm_bytes for queue in self.queues)

    def counters(self) -> dict[str, int | str]:
        """Packets and bytes both ways, by queue where there are several; a super-packet is one packet.

        software: frames cut, and checksums completed, by the switch in the place of the VM's adapter.
        """
        queues = self.queues if len(self.queues) > 1 else ()
        return {
            "port": self.name,
            "vsid": self.vsid,
            "from_vm_packets": self.from_vm_packets,
            "from_vm_bytes": self.from_vm_bytes,
            "to_vm_packets": self.to_vm_packets,
            "to_vm_bytes": self.to_vm_bytes,
            "to_vm_software_segments": self.to_vm_software_segments,
            "to_vm_software_checksums": self.to_vm_software_checksums,
            "suppressed_claims": self.suppressed_claims,
            **{f"to_vm_queue_{queue.number}_packets": queue.to_vm_packets for queue in queues},
        }

    def close(self) -> None:
        """Give the queues up; the VM's NIC loses its carrier."""
        for descriptor in self.descriptors:
            os.close(descriptor)
