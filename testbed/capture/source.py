"""A packet socket at one interface, in whichever namespace: what passes there, both ways.

The filter is in place before the socket is bound, so that not even one other packet is seen. Whether a
packet is a super-packet is told by the header in front of it (PACKET_VNET_HDR), when it passed by the
kernel's own stamp. What nobody reads in time is lost and counted by the kernel.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator

from testbed.capture import bpf, pcapng
from testbed.capture.bpf import Program
from testbed.capture.records import VNET, Record, super_packet
from testbed.errors import LabError
from testbed.namespaces import in_netns

RECEIVE_BYTES = 8 << 20  # that the kernel keeps of a point until they are read
LARGEST = 1 << 17

_ETH_P_ALL = 3
_SOL_PACKET = 263
_STATISTICS, _AUXDATA, _VNET_HDR = 6, 8, 15  # linux/if_packet.h: PACKET_...
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_OUTGOING = 4  # PACKET_OUTGOING
_FLAGS = {
    0: pcapng.INBOUND | pcapng.UNICAST,  # PACKET_HOST, BROADCAST, MULTICAST, OTHERHOST, OUTGOING
    1: pcapng.INBOUND | pcapng.BROADCAST,
    2: pcapng.INBOUND | pcapng.MULTICAST,
    3: pcapng.INBOUND | pcapng.PROMISCUOUS,
    _OUTGOING: pcapng.OUTBOUND,
}
_TIMESPEC = struct.Struct("@qq")
_AUX = struct.Struct("=IIIHHHH")  # status, length, kept, mac, net, VLAN tag, VLAN type
_HAS_TAG = 1 << 4  # TP_STATUS_VLAN_VALID
_MACS = 12
_ANCILLARY = 256
_GONE = (errno.ENETDOWN, errno.ENODEV, errno.ENXIO)


class Reader:
    """A point that is read: open from the beginning; ``close`` it.

    number: the point's. read_until: all before that time has been read. unreadable: packets that could
    not be. ended: why there will be no more, or "". is_beside: it reads no packets, and a capture does not
    go on for it alone.
    """

    socket: socket.socket
    is_beside = False

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.received = 0
        self.lost = 0
        self.unreadable = 0
        self.ended = ""
        self.read_until = 0

    def read(self, limit: int) -> Iterator[Record]:
        """Up to ``limit`` packets, as they came."""
        raise NotImplementedError

    def idle(self, now: int) -> None:
        """At that time there was nothing to read."""
        self.read_until = now

    def settle(self) -> None:
        """The capture ends: what has happened until now is to be read."""

    def count(self) -> None:
        """Ask what has been received and lost since the last time."""
        raise NotImplementedError

    def close(self) -> None:
        """No more packets. May be called more than once."""
        if self.socket.fileno() >= 0:
            self.count()
            self.socket.close()


class Source(Reader):
    """A packet socket at an interface, in the network namespace ``netns``."""

    def __init__(self, number: int, name: str, netns: int, interface: str, program: Program) -> None:
        super().__init__(number, name)
        self._vnet = bytearray(VNET.size)
        self._buffer = bytearray(LARGEST)
        self._view = memoryview(self._buffer)
        self._was_down = False
        with in_netns(netns):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            try:
                self._open(interface, program)
            except OSError as error:
                self.socket.close()
                raise LabError(f"{name}: cannot listen at {interface}: {error.strerror}") from error
            except BaseException:
                self.socket.close()
                raise

    def _open(self, interface: str, program: Program) -> None:
        sock = self.socket
        bpf.attach(sock, program)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setsockopt(_SOL_PACKET, _AUXDATA, 1)
        sock.setsockopt(_SOL_PACKET, _VNET_HDR, 1)
        sock.bind((interface, _ETH_P_ALL))

    def read(self, limit: int) -> Iterator[Record]:
        """Up to ``limit`` packets, as they came."""
        receive, vnet = self.socket.recvmsg_into, self._vnet
        parts: list[bytearray | memoryview] = [vnet, self._view]
        for _ in range(limit):
            before = time.time_ns()
            try:
                size, ancillary, _, address = receive(parts, _ANCILLARY)
            except BlockingIOError:
                self.read_until = before
                return
            except OSError as error:
                if error.errno in _GONE:
                    self.read_until = before
                    self._look(error.strerror or "gone")
                    return
                self.unreadable += 1  # a kind of super-packet for which that header has no name
                continue
            yield self._record(ancillary, address, bytes(self._view[: size - len(vnet)]), bytes(vnet), before)

    def idle(self, now: int) -> None:
        """At that time there was nothing to read; of an interface that was down, it may be gone by now."""
        super().idle(now)
        if self._was_down:
            self._look("it has been removed")

    def _look(self, why: str) -> None:
        """An interface that is down may come up again; the kernel tells the end of one that is up only.

        A socket whose interface has been removed has no name for it any more.
        """
        self._was_down = True
        if not self.socket.getsockname()[0]:
            self.ended = why

    def _record(
        self,
        ancillary: list[tuple[int, int, bytes]],
        address: tuple[str, int, int, int, bytes],
        data: bytes,
        vnet: bytes,
        stamp: int,
    ) -> Record:
        length = len(data)
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                stamp = seconds * 1_000_000_000 + nanoseconds
            elif level == _SOL_PACKET and kind == _AUXDATA:
                status, length, _, _, _, tag, tag_type = _AUX.unpack_from(value)
                if status & _HAS_TAG:
                    data = data[:_MACS] + struct.pack("!HH", tag_type, tag) + data[_MACS:]
                    length += 4
        comment = super_packet(vnet, data, length) if vnet[1] else ""
        flags = _FLAGS.get(address[2], 0)
        return Record(stamp, self.number, data, length, flags, (comment,) if comment else ())

    def count(self) -> None:
        """Ask the kernel what it has lost since the last time."""
        if self.socket.fileno() < 0:
            return
        packets, drops = struct.unpack("=II", self.socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))
        self.received += packets
        self.lost += drops
