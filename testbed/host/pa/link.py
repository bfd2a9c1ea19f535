"""The packet socket of control on a NIC. A filter in the kernel keeps the NIC's load away from it."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import Callable

from testbed.packets import datagram, ethernet

_SOL_PACKET = 263
_PACKET_IGNORE_OUTGOING = 23
_SO_ATTACH_FILTER = 26
_ETH_P_ALL = 3  # the NIC's ingress program stops frames before sockets of a single protocol see them
_LARGEST = 1 << 16
_BATCH = 64  # frames per turn of the loop, so that a flood of pings does not stop the rest

# Classic BPF (linux/bpf_common.h)
_LD_WORD, _LD_HALF, _LD_BYTE = 0x20, 0x28, 0x30
_JUMP_EQUAL, _JUMP_SET, _RETURN = 0x15, 0x45, 0x06
_VLAN_TAG_PRESENT = 0xFFFFF000 + 48  # SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT: the tag is not in the frame


def frame_filter(mac: bytes) -> bytes:
    """Accepts untagged ARP, ICMP, IGMP, ICMPv6 and IPv6 hop-by-hop for ``mac`` or a multicast address."""
    program = [
        (_LD_WORD, 0, 0, _VLAN_TAG_PRESENT),
        (_JUMP_EQUAL, 0, 17, 0),
        (_LD_HALF, 0, 0, 12),
        (_JUMP_EQUAL, 8, 0, ethernet.TYPE_ARP),
        (_JUMP_EQUAL, 0, 3, ethernet.TYPE_IPV4),
        (_LD_BYTE, 0, 0, 23),
        (_JUMP_EQUAL, 5, 0, datagram.ICMP),
        (_JUMP_EQUAL, 4, 11, datagram.IGMP),
        (_JUMP_EQUAL, 0, 10, ethernet.TYPE_IPV6),
        (_LD_BYTE, 0, 0, 20),
        (_JUMP_EQUAL, 1, 0, datagram.ICMPV6),
        (_JUMP_EQUAL, 0, 7, datagram.HOP_BY_HOP),
        (_LD_BYTE, 0, 0, 0),  # the destination: all jumps of accepted protocols lead here
        (_JUMP_SET, 4, 0, 1),
        (_LD_WORD, 0, 0, 0),
        (_JUMP_EQUAL, 0, 3, int.from_bytes(mac[:4], "big")),
        (_LD_HALF, 0, 0, 4),
        (_JUMP_EQUAL, 0, 1, int.from_bytes(mac[4:], "big")),
        (_RETURN, 0, 0, _LARGEST),
        (_RETURN, 0, 0, 0),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


class Link:
    """Sends and receives whole frames on a NIC. ``receive`` gets each frame that the filter accepts."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, nic: str, mac: bytes, receive: Callable[[bytes], None]
    ) -> None:
        self.mac = mac
        self._loop, self._pass_on = loop, receive
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self._open(nic)
        except BaseException:
            self._socket.close()
            raise
        loop.add_reader(self._socket, self._receive)

    def _open(self, nic: str) -> None:
        code = frame_filter(self.mac)
        kept = ctypes.create_string_buffer(code, len(code))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._socket.setblocking(False)
        self._socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(code) // 8, ctypes.addressof(kept))
        )
        self._socket.bind((nic, _ETH_P_ALL))

    def send(self, frame: bytes) -> bool:
        """Whether the frame has left; it does not while the NIC is down."""
        try:
            self._socket.send(frame)
        except OSError:
            return False
        return True

    def send_datagram(self, packet: datagram.Datagram, destination_mac: bytes) -> bool:
        """Send a datagram from the NIC's MAC; as :meth:`send`."""
        return self.send(datagram.build(packet, destination_mac, self.mac))

    def close(self) -> None:
        """Leave the NIC."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _receive(self) -> None:
        for _ in range(_BATCH):
            try:
                frame = self._socket.recv(_LARGEST)
            except OSError:
                return
            if frame[6:12] != self.mac:  # a frame of our own that came back around proves nothing
                self._pass_on(frame)
            if self._socket.fileno() < 0:
                return  # closed by what the frame caused
