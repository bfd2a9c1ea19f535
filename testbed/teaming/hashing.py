"""Address hash: which flow a frame belongs to (hnv.md section 10, T-set).

TransportPorts takes addresses and ports of TCP and UDP; where there are none the addresses count, and where
it is not IP the MACs. Of what will be encapsulated the VM's own frame is hashed: the filter, above the team,
still knows it (T-vmq: HNV helps the team to distribute).
"""

from __future__ import annotations

import zlib

from testbed.packets.checksum import Buffer
from testbed.topology.schema import LoadBalancing

_TRANSPORTS = (6, 17)


def flow_hash(frame: Buffer, algorithm: LoadBalancing) -> int:
    """32 bits, equal for all frames of a flow."""
    kind = frame[12] << 8 | frame[13]
    if algorithm != "MacAddresses":
        ported = algorithm != "IPAddresses"
        if kind == 0x0800 and len(frame) >= 34:
            fragment = (frame[20] << 8 | frame[21]) & 0x3FFF
            has_ports = ported and frame[23] in _TRANSPORTS and frame[14] == 0x45 and not fragment
            return _mixed(frame[26 : 38 if has_ports else 34])
        if kind == 0x86DD and len(frame) >= 54:
            return _mixed(frame[22 : 58 if ported and frame[20] in _TRANSPORTS else 54])
    return _mixed(frame[:12])


def _mixed(data: Buffer) -> int:
    """A CRC's low bits say little of ports that differ by one: all of it is folded into them."""
    value = zlib.crc32(data)
    value ^= value >> 16
    return value * 0x85EBCA6B >> 13 & 0xFFFFFFFF
