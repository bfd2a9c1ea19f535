"""How a packet gets to a VM: the action is chosen when a flow is decided, by what the VM's adapter takes."""

from __future__ import annotations

from testbed.switch.actions import Decapsulate, Deliver
from testbed.switch.buffer import WIRE, Action, FrameBuffer
from testbed.switch.drops import DropCounts
from testbed.switch.packet import Packet
from testbed.switch.port import Port
from testbed.switch.vrss import queue_for


def delivery(buffer: FrameBuffer, start: int, packet: Packet, port: Port, drops: DropCounts) -> Action:
    """The action that hands a packet, which lies at ``start``, to a VM."""
    queue = queue_for(port, packet)
    deliver: Action
    if packet.outer is not None:
        deliver = Decapsulate(buffer, port, queue, drops, packet.outer.header)
    else:
        deliver = Deliver(buffer, start, packet.macs, port, queue, drops)
    if port.takes_everything:
        return deliver
    from testbed.switch.reception import Layout, SoftwareReceive  # a host whose VMs do saves these

    if packet.outer is not None:
        layout = Layout(WIRE + packet.outer.header, WIRE)
    else:
        layout = Layout(start, start, packet.macs)
    return SoftwareReceive(buffer, deliver, port, queue, drops, layout)
