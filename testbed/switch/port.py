"""A VM's switch port: the queue of the TAP device that is the VM's NIC."""

from __future__ import annotations

import os

from testbed.packets.checksum import Buffer
from testbed.switch.buffer import VNET, Flows

_NO_OFFLOAD = bytes(VNET)


class Port:
    """A port. ``descriptor``: the TAP queue, non-blocking, opened with IFF_VNET_HDR."""

    def __init__(self, name: str, mac: bytes, vsid: int, descriptor: int) -> None:
        self.name = name
        self.mac = mac
        self.vsid = vsid
        self.descriptor = descriptor
        os.set_blocking(descriptor, False)
        self.flows: Flows = {}
        self.from_vm_packets = self.from_vm_bytes = 0
        self.to_vm_packets = self.to_vm_bytes = 0
        self.suppressed_claims = 0  # of addresses, where they are learned: too many at once

    def send(self, frame: Buffer) -> bool:
        """Hand the VM a frame that needs no offload. False when its NIC takes none."""
        try:
            os.writev(self.descriptor, [_NO_OFFLOAD, frame])
        except OSError:
            return False
        self.to_vm_packets += 1
        self.to_vm_bytes += len(frame)
        return True

    def counters(self) -> dict[str, int | str]:
        """Packets and bytes both ways; a super-packet counts as one packet."""
        return {
            "port": self.name,
            "vsid": self.vsid,
            "from_vm_packets": self.from_vm_packets,
            "from_vm_bytes": self.from_vm_bytes,
            "to_vm_packets": self.to_vm_packets,
            "to_vm_bytes": self.to_vm_bytes,
            "suppressed_claims": self.suppressed_claims,
        }

    def close(self) -> None:
        """Give the queue up; the VM's NIC loses its carrier."""
        os.close(self.descriptor)
