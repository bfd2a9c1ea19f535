"""A datapath that only says what it would do: its ports and NICs lead nowhere, its buffer is its own.

The decisions and the bytes are those of :class:`testbed.switch.datapath.Datapath`, whose code it runs. What a
packet would change (counters, cached flows, what waits, a team's buckets) it changes in itself, if at all.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import NamedTuple

from testbed.packets import ethernet
from testbed.packets.checksum import Buffer
from testbed.switch.buffer import INNER, VNET, WIRE, Action
from testbed.switch.datapath import HELD_PER_NEXT_HOP, Datapath
from testbed.switch.drops import Drop, count
from testbed.switch.packet import Packet
from testbed.switch.pipeline import WNV, Pipeline
from testbed.switch.port import Port
from testbed.switch.uplink import Uplink

_VLAN = 4
_LONGEST = 1 << 17


class Sent(NamedTuple):
    """A packet that would have left: its virtio_net_hdr and its frame."""

    vnet: bytes
    frame: bytes


class SilentPort(Port):
    """A port like another one, without its VM. ``told``: what the switch itself would say to the VM."""

    def __init__(self, real: Port) -> None:
        self._switch, self._vm = _ends()
        super().__init__(real.name, real.mac, real.vsid, *[self._switch.fileno()] * len(real.queues))
        self.rx_checksum, self.rsc = real.rx_checksum, real.rsc
        self.told: list[bytes] = []

    def send(self, frame: Buffer) -> bool:
        """Keep it."""
        self.told.append(bytes(frame))
        return True

    def delivered(self) -> tuple[int, Sent] | None:
        """The queue by which a packet would have gone to the VM, and it, or the first of its frames."""
        queue = next((queue.number for queue in self.queues if queue.to_vm_packets), None)
        return None if queue is None else (queue, _received(self._vm)[0])

    def close(self) -> None:
        """Forget what was kept."""
        self._switch.close()
        self._vm.close()


def _ends() -> tuple[socket.socket, socket.socket]:
    """Something that is written to packet by packet, and where they can be taken from."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return ends


def _received(end: socket.socket) -> list[Sent]:
    found: list[Sent] = []
    while True:
        try:
            data = end.recv(_LONGEST)
        except BlockingIOError:
            return found
        found.append(Sent(data[:VNET], data[VNET:]))


class SilentUplink(Uplink):
    """A NIC like another one, without a cable."""

    def __init__(self, real: Uplink) -> None:
        self.name, self.mac, self.mtu, self.wnv_binding = real.name, real.mac, real.mtu, real.wnv_binding
        self.plain, self.nvgre = real.plain, real.nvgre
        self.send = self._take
        self.tx_packets = self.tx_bytes = self.tx_lso_packets = self.tx_lso_segments = 0
        self.tx_software_segments = self.tx_software_checksums = 0
        self._sent: list[Sent] = []
        self._ends: tuple[socket.socket, socket.socket] | None = None

    def _take(self, data: Buffer) -> int:
        raw = bytes(data)
        vnet, frame = raw[:VNET], raw[VNET:]
        tagged = frame[12:14] == ethernet.TYPE_VLAN.to_bytes(2, "big")
        if not vnet[1] and len(frame) > self.mtu + ethernet.HEADER + (_VLAN if tagged else 0):
            raise OSError(errno.EMSGSIZE, "longer than the cable takes")
        self._sent.append(Sent(vnet, frame))
        return len(raw)

    def send_parts(self, parts: object) -> None:
        """Keep it. Raises OSError as a NIC does."""
        assert isinstance(parts, list)
        self._take(b"".join(bytes(part) for part in parts))

    def fileno(self) -> int:
        """A socket for what is sent by number, as segments are."""
        if self._ends is None:
            self._ends = _ends()
        return self._ends[0].fileno()

    def sent(self) -> list[Sent]:
        """All that would have left, in order."""
        if self._ends is not None:
            self._sent += _received(self._ends[1])
        return self._sent

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Close what was opened for segments."""
        for end in self._ends or ():
            end.close()


class DryRun(Datapath):
    """One packet. ``real``: the datapath whose state it shares. ``pipeline``: stages that change nothing.

    packet: as the pipeline left it, None where it did not get that far. replies: to the sender. waiting: the
    next hops that its copies would wait for.
    """

    def __init__(self, real: Datapath, pipeline: Pipeline) -> None:
        super().__init__(real.state, pipeline, lambda _: None)
        self._full = {hop for hop, held in real.held.items() if len(held) >= HELD_PER_NEXT_HOP}
        self.packet: Packet | None = None
        self.replies: list[bytes] = []
        self.waiting: list[bytes] = []
        self.ports: dict[str, SilentPort] = {}
        self.uplinks: dict[str, SilentUplink] = {}

    def from_vm(self, port: Port, frame: bytes, vnet: bytes) -> None:
        """A VM sends this."""
        self._first_from_vm(port, None, self._buffer.restore(INNER, vnet, frame))

    def from_wire(self, uplink: Uplink, frame: bytes, vnet: bytes) -> None:
        """It arrives at a NIC."""
        end = self._buffer.restore(WIRE, vnet, frame)
        verifies = uplink.plain.rx_checksum or uplink.nvgre.rx_checksum
        if verifies and not vnet[0] and not vnet[1] and not self._verified(uplink, end):
            return
        self._first_from_wire(uplink, end)

    def close(self) -> None:
        """Let go of all that was kept."""
        for port in self.ports.values():
            port.close()
        for uplink in self.uplinks.values():
            uplink.close()

    def __enter__(self) -> DryRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decide(
        self, packet: Packet, path: Callable[[Packet], None], source: str, start: int, end: int
    ) -> Action | None:
        action = super()._decide(packet, path, source, start, end)
        packet.cacheable = False  # the flow cache is the real switch's
        self.packet = packet
        return action

    def _answer(self, packet: Packet, frame: bytes) -> None:
        self.replies.append(frame)

    def _hold(
        self, next_hop: bytes, source: str, vsid: int, copies: int, stored: tuple[bytes, bytes]
    ) -> None:
        if next_hop in self._full:
            count(self.drops, WNV, source, vsid, Drop.PA_UNREACHABLE, copies)
        else:
            self.waiting += [next_hop] * copies

    def _compile(self, packet: Packet, start: int) -> list[Action]:
        ports, source, egress = packet.ports, packet.source, packet.egress
        packet.ports = tuple(self._silent(port) for port in ports)
        if isinstance(source, Port):
            packet.source = self._silent(source)
        if egress is not None:
            packet.egress = egress.chosen()
        try:
            return super()._compile(packet, start)
        finally:
            packet.ports, packet.source, packet.egress = ports, source, egress

    def _silent(self, port: Port) -> SilentPort:
        if port.name not in self.ports:
            self.ports[port.name] = SilentPort(port)
        return self.ports[port.name]

    def _leave(self, packet: Packet, uplink: Uplink, mac: bytes) -> Action:
        if uplink.name not in self.uplinks:
            self.uplinks[uplink.name] = SilentUplink(uplink)
        return super()._leave(packet, self.uplinks[uplink.name], mac)
