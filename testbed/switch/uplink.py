"""The host's end of a cable: a packet socket that carries offload metadata."""

from __future__ import annotations

import errno
import fcntl
import itertools
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from testbed.nic.offloads import Offloads
from testbed.packets.checksum import Buffer
from testbed.socketfilter import JUMP_EQUAL, LD_HALF, RETURN, attach
from testbed.switch.buffer import VNET, Flows
from testbed.switch.drops import Drop

if TYPE_CHECKING:
    from testbed.switch.batch import BatchWriter

# linux/if_packet.h, asm-generic/socket.h: not all are in the socket module
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_VNET_HDR = 15
_PACKET_FANOUT = 18
# PACKET_FANOUT_QM: by the queue on which the frame came. A group has its own say on outgoing frames.
_FANOUT_QUEUE = 5 | 0x4000
_PACKET_IGNORE_OUTGOING = 23
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_ETH_P_ALL = 3
_SIOCOUTQ = 0x5411  # linux/sockios.h
_BUFFER_BYTES = 8 << 20
LONGEST_IP = 65535
# loopback messages on the cable and slow protocols (LACP) are control's, not the switch's
_FILTER = (
    (LD_HALF, 0, 0, 12),
    (JUMP_EQUAL, 2, 0, 0x88B5),
    (JUMP_EQUAL, 1, 0, 0x8809),
    (RETURN, 0, 0, 1 << 18),
    (RETURN, 0, 0, 0),
)
_groups = itertools.count(1)  # names of fan-out groups: they count for one network namespace


def _open(interface: str, group: int = 0) -> socket.socket:
    """``group``: of sockets that share the NIC's receive queues, one each in the order of their opening."""
    # Bound before a protocol is set, so that no frame of another interface is ever queued.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)
        sock.setblocking(False)
        attach(sock, _FILTER)
        sock.bind((interface, _ETH_P_ALL))
        if group:
            sock.setsockopt(_SOL_PACKET, _PACKET_FANOUT, _FANOUT_QUEUE << 16 | group)
    except OSError:
        sock.close()
        raise
    return sock


class Queue:
    """A receive queue of a NIC. ``number``: from 0. ``receive_into``: of the socket that reads it."""

    def __init__(self, number: int, sock: socket.socket) -> None:
        self.number = number
        self.socket = sock
        self.receive_into: Callable[[memoryview], int] = sock.recv_into
        self.rx_packets = self.rx_bytes = 0


class Uplink:
    """A NIC as the switch uses it. ``mac``: 6 bytes. ``mtu``: bytes of IP packet on the cable.

    ``wnv_binding``: the filter below the switch is bound to it (2012). ``queues``: receive queues.
    What is given to :meth:`send` may wait for :meth:`flush`.
    """

    _writer: BatchWriter | None = None
    _refused = 0

    def __init__(
        self,
        name: str,
        mac: bytes,
        mtu: int = 1500,
        *,
        wnv_binding: bool = False,
        offloads: Offloads | None = None,
        queues: int = 1,
    ) -> None:
        """Opens the interface ``name`` of the current network namespace. Raises OSError."""
        self.name = name
        self.mac = mac
        self.mtu = mtu
        self.wnv_binding = wnv_binding
        self.queues = _queues(name, queues)
        self.socket = self.queues[0].socket
        self.send: Callable[[memoryview], int] = self.socket.send
        self.offloads = offloads or Offloads()
        self.flows: Flows = {}
        self.tx_packets = self.tx_bytes = 0
        self.tx_lso_packets = self.tx_lso_segments = 0
        self.tx_software_segments = self.tx_software_checksums = 0
        self.rx_rsc_packets = self.rx_rsc_segments = 0
        self._overruns = 0

    @property
    def offloads(self) -> Offloads:
        """What the NIC does by itself. A change holds for flows that are decided anew."""
        return self._offloads

    @offloads.setter
    def offloads(self, offloads: Offloads) -> None:
        """Take over other settings."""
        self._offloads = offloads
        self.plain, self.nvgre = offloads.plain, offloads.nvgre
        self._set_batches(on=not self.nvgre.rsc)

    def count_lso(self, payload: int, mss: int) -> None:
        """The NIC is given a super-packet with so many bytes of payload to cut."""
        self.tx_lso_packets += 1
        self.tx_lso_segments += -(-payload // mss) if mss else 1

    def _set_batches(self, *, on: bool) -> None:
        """Move frames in batches, where they come one by one."""
        self.flush()
        if on:
            from testbed.switch.batch import BatchReader, BatchWriter  # a host that needs none saves it

            frame = VNET + 14 + self.mtu
            longest = VNET + 14 + LONGEST_IP if self.plain.rsc else frame
            for queue in self.queues:
                queue.receive_into = BatchReader(queue.socket, longest).receive_into
            self._writer = BatchWriter(self.socket, frame)
            self.send = self._writer.send
        elif self._writer:
            for queue in self.queues:
                queue.receive_into = queue.socket.recv_into
            self._writer, self.send = None, self.socket.send

    def flush(self) -> None:
        """Send what is kept for a batch."""
        if (writer := self._writer) is not None:
            writer.flush()
            if writer.refused:
                self._refused += writer.refused
                self.tx_packets -= writer.refused
                writer.refused = 0

    def refused(self) -> int:
        """Frames of batches that the NIC did not take, since the start."""
        return self._refused

    def fileno(self) -> int:
        """The descriptor of the socket that sends."""
        return self.socket.fileno()

    def backlog(self) -> int:
        """Bytes that were sent and wait before the cable; the kernel's reckoning, overhead included."""
        return int.from_bytes(fcntl.ioctl(self.socket, _SIOCOUTQ, bytes(4)), sys.byteorder)

    def send_parts(self, parts: Sequence[Buffer]) -> None:
        """Send a packet given in pieces, vnet header first. Raises OSError."""
        self.flush()
        self.socket.sendmsg(parts)

    @staticmethod
    def refusal(error: OSError) -> Drop:
        """The name of a failed send."""
        return Drop.TX_OVERSIZE if error.errno == errno.EMSGSIZE else Drop.TX_REFUSED

    def overruns(self) -> int:
        """Frames that the kernel dropped since the start because the switch was too slow."""
        for queue in self.queues:
            raw = queue.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)  # reading resets it
            self._overruns += struct.unpack("=II", raw)[1]
        return self._overruns

    def counters(self) -> dict[str, int | str]:
        """Packets and bytes on the cable side; a super-packet counts as one packet.

        lso: super-packets that the NIC has cut, and what they became; software: what the switch has
        done in its place; rsc: packets that the NIC has joined, and of how many frames.
        """
        queues = {
            f"rx_queue_{queue.number}_{name}": value
            for queue in (self.queues if len(self.queues) > 1 else ())
            for name, value in (("packets", queue.rx_packets), ("bytes", queue.rx_bytes))
        }
        return {
            "nic": self.name,
            "rx_packets": sum(queue.rx_packets for queue in self.queues),
            "rx_bytes": sum(queue.rx_bytes for queue in self.queues),
            "tx_packets": self.tx_packets,
            "tx_bytes": self.tx_bytes,
            "tx_lso_packets": self.tx_lso_packets,
            "tx_lso_segments": self.tx_lso_segments,
            "tx_software_segments": self.tx_software_segments,
            "tx_software_checksums": self.tx_software_checksums,
            "rx_rsc_packets": self.rx_rsc_packets,
            "rx_rsc_segments": self.rx_rsc_segments,
            **queues,
        }

    def close(self) -> None:
        """Close the sockets."""
        for queue in self.queues:
            queue.socket.close()


def _queues(interface: str, count: int) -> list[Queue]:
    """One socket for each queue: members of a fan-out are numbered in the order of their joining."""
    if count == 1:
        return [Queue(0, _open(interface))]
    group = next(_groups)
    sockets: list[socket.socket] = []
    try:
        while len(sockets) < count:
            sockets.append(_open(interface, group))
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return [Queue(number, sock) for number, sock in enumerate(sockets)]
