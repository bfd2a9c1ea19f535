"""Which queue of a VM's NIC a flow takes: vRSS, decided once when the flow's action is made.

Microsoft's Toeplitz hash of the frame as the VM gets it: addresses, and the ports of TCP and UDP; its low
7 bits index an indirection table. What has no hash goes to queue 0.
"""

from __future__ import annotations

from testbed.nic.classifier import KEY, parse_ip, toeplitz
from testbed.packets import ethernet
from testbed.switch.packet import Packet
from testbed.switch.port import Port, PortQueue

TABLE = 128  # entries, which name the queues by turns
_HEAD = 14 + 60 + 4  # bytes of a frame that may count: Ethernet, the longest IPv4 header, ports


def queue_for(port: Port, packet: Packet) -> PortQueue:
    """The queue of ``port`` for the flow of a packet that has passed the pipeline."""
    queues = port.queues
    if len(queues) == 1:
        return queues[0]
    start = packet.outer.header if packet.outer else 0
    head = bytes(packet.frame[start : packet.outer.length if packet.outer else None][:_HEAD])
    found = parse_ip(head, ethernet.HEADER, int.from_bytes(head[12:14], "big"))
    if found is None:
        return queues[0]
    addresses, translation = found.addresses, packet.translation
    if translation is not None and translation.next_hop is None:  # see Datapath._compile
        addresses = translation.source + translation.destination
    return queues[toeplitz(KEY, addresses + found.ports) % TABLE % len(queues)]
