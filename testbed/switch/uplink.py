"""The host's end of a cable: a packet socket that carries offload metadata."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence

from testbed.packets.checksum import Buffer
from testbed.switch.buffer import Flows
from testbed.switch.drops import Drop

# linux/if_packet.h, asm-generic/socket.h: not all are in the socket module
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_VNET_HDR = 15
_PACKET_IGNORE_OUTGOING = 23
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_ETH_P_ALL = 3
_BUFFER_BYTES = 8 << 20


def _open(interface: str) -> socket.socket:
    # Bound before a protocol is set, so that no frame of another interface is ever queued.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)
        sock.setblocking(False)
        sock.bind((interface, _ETH_P_ALL))
    except OSError:
        sock.close()
        raise
    return sock


class Uplink:
    """A NIC as the switch uses it. ``mac``: 6 bytes. ``mtu``: bytes of IP packet on the cable.

    ``wnv_binding``: the filter below the switch is bound to it (2012).
    """

    def __init__(self, name: str, mac: bytes, mtu: int = 1500, *, wnv_binding: bool = False) -> None:
        """Opens the interface ``name`` of the current network namespace. Raises OSError."""
        self.name = name
        self.mac = mac
        self.mtu = mtu
        self.wnv_binding = wnv_binding
        self.socket = _open(name)
        self.receive_into = self.socket.recv_into
        self.send = self.socket.send
        self.flows: Flows = {}
        self.rx_packets = self.rx_bytes = 0
        self.tx_packets = self.tx_bytes = 0
        self._overruns = 0

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.socket.fileno()

    def send_parts(self, parts: Sequence[Buffer]) -> None:
        """Send a packet given in pieces, vnet header first. Raises OSError."""
        self.socket.sendmsg(parts)

    @staticmethod
    def refusal(error: OSError) -> Drop:
        """The name of a failed send."""
        return Drop.TX_OVERSIZE if error.errno == errno.EMSGSIZE else Drop.TX_REFUSED

    def overruns(self) -> int:
        """Frames that the kernel dropped since the start because the switch was too slow."""
        raw = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)  # reading resets it
        self._overruns += struct.unpack("=II", raw)[1]
        return self._overruns

    def counters(self) -> dict[str, int | str]:
        """Packets and bytes on the cable side; a super-packet counts as one packet."""
        return {
            "nic": self.name,
            "rx_packets": self.rx_packets,
            "rx_bytes": self.rx_bytes,
            "tx_packets": self.tx_packets,
            "tx_bytes": self.tx_bytes,
        }

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
