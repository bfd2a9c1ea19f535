"""Packets with offload metadata: what a VM hands over, what it becomes, and what is on cables and in VMs.

Nothing here is the product's: cutting and checksums are done by the book, to hold the product against them.
"""

from __future__ import annotations

import functools
import random
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

from pyroute2 import IPRoute

from support.frames import TCP, UDP, ethernet, ip, mac, naive_checksum, ports
from testbed.lab.lab import Lab
from testbed.namespaces import in_netns

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
SOURCE_PORT = 33000
TIMESTAMP = b"\1\1\x08\x0a\0\0\x12\x34\0\0\x43\x21"
TUNNEL = 42  # bytes of the outer headers of NVGRE over IPv4
SECONDS = 10.0

_NEEDS_CSUM, _TCPV4, _TCPV6, _ECN = 1, 1, 4, 0x80  # linux/virtio_net.h
_VNET = struct.Struct("=BBHHHH")
_SOL_PACKET, _VNET_HDR, _IGNORE_OUTGOING = 263, 15, 23
_SO_RCVBUFFORCE = 33
_BUFFER = 32 << 20
_DESTINATION_OPTIONS = 60
_RANDOM = random.Random(7)

Flow: TypeAlias = bytes  # protocol, addresses, ports
Flows: TypeAlias = dict[Flow, list[bytes]]


class Path(NamedTuple):
    """Two VMs. tunnel: bytes of outer headers on the cable. addresses: source, destination by IP version."""

    name: str
    sender: str
    receiver: str
    macs: tuple[bytes, bytes]  # source, destination
    addresses: dict[int, tuple[str, str]]
    mtu: int
    tunnel: int


class Packet(NamedTuple):
    """A packet with its metadata: of a checksum to complete, and of the frames that it stands for."""

    vnet: bytes
    frame: bytes

    @property
    def is_super(self) -> bool:
        return self.vnet[1] != 0

    @property
    def has_open_checksum(self) -> bool:
        return bool(self.vnet[0] & _NEEDS_CSUM)


def paths(lab: Lab, pairs: Iterable[tuple[str, str]]) -> list[Path]:
    """Of pairs of VMs of a lab."""
    found = []
    for names in pairs:
        nics = [lab.plan.vm(name).vnics[0] for name in names]
        four, six = ([nic.addresses[at].split("/")[0] for nic in nics] for at in (0, 1))
        macs = mac(nics[0].mac), mac(nics[1].mac)
        addresses = {4: (four[0], four[1]), 6: (six[0], six[1])}
        tunnel = TUNNEL if nics[0].vsid else 0
        found.append(Path(names[0], *names, macs, addresses, nics[0].mtu, tunnel))
    return found


# ---- making packets ------------------------------------------------------------------------


def tcp(
    path: Path,
    version: int,
    port: int,
    data: bytes,
    *,
    sequence: int,
    flags: int = ACK,
    identification: int = 0x1234,
    mss: int = 0,
    options: bytes = TIMESTAMP,
    acknowledges: int = 1,
    **more: Any,
) -> Packet:
    """A segment whose checksum is open; with ``mss`` one that stands for several."""
    offset = (20 + len(options)) // 4
    head = ports(SOURCE_PORT, port) + struct.pack("!II", sequence & 0xFFFFFFFF, acknowledges)
    body = head + struct.pack("!BBHHH", offset << 4, flags, 502, 0, 0) + options + data
    frame, start = _frame(path, version, TCP, body, identification, 16, **more)
    kind = (_TCPV4 if version == 4 else _TCPV6) | (_ECN if flags & CWR else 0) if mss else 0
    header = start + 4 * offset
    return Packet(_VNET.pack(_NEEDS_CSUM, kind, header if mss else 0, mss, start, 16), frame)


def udp(path: Path, version: int, port: int, data: bytes, **more: Any) -> Packet:
    """A datagram whose checksum is open."""
    body = ports(SOURCE_PORT, port) + struct.pack("!HH", 8 + len(data), 0) + data
    frame, start = _frame(path, version, UDP, body, 0x2222, 6, **more)
    return Packet(_VNET.pack(_NEEDS_CSUM, 0, 0, 0, start, 6), frame)


def _frame(
    path: Path,
    version: int,
    protocol: int,
    body: bytes,
    identification: int,
    checksum_at: int,
    *,
    fragment: int = 0x4000,
    tos: int = 0,
    extension: bytes = b"",
) -> tuple[bytes, int]:
    """With the sum of the pseudo-header where the checksum is to be; and where ``body`` starts.

    fragment: flags and offset of IPv4. extension: IPv4 options, or IPv6 destination options.
    """
    addresses = b"".join(ip(address) for address in path.addresses[version])
    partial = _sum(addresses + struct.pack("!II", protocol, len(body)))
    body = body[:checksum_at] + partial.to_bytes(2, "big") + body[checksum_at + 2 :]
    if version == 4:
        first, total = 0x45 + len(extension) // 4, 20 + len(extension) + len(body)
        head = struct.pack("!BBHHHBBH", first, tos, total, identification, fragment, 64, protocol, 0)
        head = _with_checksum(head + addresses + extension)
    else:
        following, size = _DESTINATION_OPTIONS if extension else protocol, len(extension) + len(body)
        head = struct.pack("!IHBB", 6 << 28 | tos << 20, size, following, 64) + addresses + extension
    kind = 0x0800 if version == 4 else 0x86DD
    source, destination = path.macs
    return ethernet(destination, source, kind, head + body), 14 + len(head)


def fixed_list(path: Path, version: int) -> list[Packet]:
    """What a VM hands over in a run: one long stream and single packets of every shape."""
    mss = path.mtu - (40 if version == 4 else 60) - len(TIMESTAMP)
    make = functools.partial(tcp, path, version)
    sizes = [
        (40 * mss, ACK, mss),
        (10 * mss, ACK | PSH, mss),  # an exact multiple
        (7 * mss + 333, ACK | PSH, mss),
        (2 * mss, ACK, mss),
        (3 * mss + 1, ACK | PSH, mss),
        (mss, ACK, 0),
        (101, ACK | PSH, 0),
        (20 * 536, ACK | PSH, 536),  # below what the MTU allows
        (4 * mss + 10, ACK | CWR, mss),
        (30 * mss - 1, ACK | ECE, mss),
        (0, ACK, 0),
        (5 * mss + 7, ACK | PSH | FIN, mss),
    ]
    packets, sequence, number = [], 0xFFFFC000, 0x1000  # the sequence wraps on the way
    for size, flags, cut in sizes:
        data = _RANDOM.randbytes(size)
        packets.append(make(7000, data, sequence=sequence, flags=flags, identification=number, mss=cut))
        sequence += size
        number += -(-size // mss) + 1 if cut != 536 else 20
    for port, size, flags in ((7001, 1, ACK | PSH), (7002, 100, ACK), (7003, 99, ACK | FIN), (7004, 0, SYN)):
        packets.append(make(port, _RANDOM.randbytes(size), sequence=99, flags=flags))
    data = _RANDOM.randbytes(6 * mss + 2)
    packets.append(make(7005, data, sequence=5, flags=ACK | PSH | FIN, mss=mss, fragment=0))
    packets += [udp(path, version, 7100 + size, _RANDOM.randbytes(size)) for size in (0, 1, 512, 1201)]
    (complete,) = canonical(udp(path, version, 7099, _RANDOM.randbytes(77)))
    return [*packets, Packet(bytes(_VNET.size), complete)]


# ---- what they become ----------------------------------------------------------------------


def _sum(data: bytes) -> int:
    """The one's-complement sum, folded."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    total += data[-1] << 8 if len(data) % 2 else 0
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _with_checksum(header: bytes) -> bytes:
    """An IPv4 header with its checksum."""
    return header[:10] + naive_checksum(header[:10] + b"\0\0" + header[12:]).to_bytes(2, "big") + header[12:]


def _numbered(header: bytes, number: int, size: int) -> bytes:
    """The IP header of the frame ``number`` of several; ``size`` bytes are behind it.

    An IPv4 identification counts up from the first one's; the outer one's, which the sender sets to 0, too.
    """
    if header[0] >> 4 == 6:
        extensions = len(header) - 40
        return header[:4] + (size + extensions).to_bytes(2, "big") + header[6:]
    identification = int.from_bytes(header[4:6], "big") + number & 0xFFFF
    return _with_checksum(header[:2] + struct.pack("!HH", len(header) + size, identification) + header[6:])


def canonical(packet: Packet, tunnel: int = 0) -> list[bytes]:
    """The frames that a packet stands for, complete. tunnel: bytes of outer headers in front."""
    flags, kind, _, mss, start, offset = _VNET.unpack(packet.vnet)
    frame = packet.frame
    if not flags & _NEEDS_CSUM:
        return [frame]
    if not kind:
        return [frame[: start + offset] + _complete(frame, start, offset) + frame[start + offset + 2 :]]
    at = start + (frame[start + 12] >> 4) * 4
    return [
        _segment(frame, tunnel, start, number, slice(begin, begin + mss))
        for number, begin in enumerate(range(at, len(frame), mss))
    ]


def _complete(frame: bytes, start: int, offset: int) -> bytes:
    """The checksum in place of the sum of the pseudo-header. UDP has no 0."""
    value = _sum(frame[start:]) ^ 0xFFFF
    return (value or (0xFFFF if offset == 6 else 0)).to_bytes(2, "big")


def _segment(frame: bytes, tunnel: int, start: int, number: int, piece: slice) -> bytes:
    """The frame of a super-packet with a piece of it; the TCP header is at ``start``."""
    at = start + (frame[start + 12] >> 4) * 4
    header, data = bytearray(frame[start:at]), frame[piece]
    sequence = int.from_bytes(header[4:8], "big") + piece.start - at & 0xFFFFFFFF
    header[4:8] = sequence.to_bytes(4, "big")
    header[13] &= (0xFF if piece.stop >= len(frame) else ~(FIN | PSH)) & (~CWR if number else 0xFF)
    # the sum of the pseudo-header is there already, but with the length of the whole
    lengths = struct.pack("!HH", len(frame) - start ^ 0xFFFF, len(header) + len(data))
    header[16:18] = (_sum(lengths + header + data) ^ 0xFFFF).to_bytes(2, "big")
    whole = frame[tunnel : tunnel + 14]
    whole += _numbered(frame[tunnel + 14 : start], number, len(header) + len(data)) + header + data
    if not tunnel:
        return whole
    return frame[:14] + _numbered(frame[14:34], number, tunnel - 34 + len(whole)) + frame[34:tunnel] + whole


def flow_of(frame: bytes) -> Flow:
    """Protocol, addresses and ports, or nothing where there are none."""
    kind, at = frame[12:14], 14
    if kind == b"\x08\x00":
        protocol, addresses, at = frame[23:24], frame[26:34], at + (frame[14] & 15) * 4
    elif kind == b"\x86\xdd":
        protocol, addresses, at = frame[20:21], frame[22:54], at + 40
        if protocol[0] == _DESTINATION_OPTIONS:
            protocol, at = frame[54:55], at + 8
    else:
        return b""
    return protocol + addresses + frame[at : at + 4] if protocol[0] in (TCP, UDP) else b""


def is_tcp(frame: bytes) -> bool:
    return flow_of(frame)[:1] == bytes([TCP])


def flags_of(frame: bytes) -> int:
    """Of a TCP frame."""
    return frame[14 + ((frame[14] & 15) * 4 if frame[14] >> 4 == 4 else 40) + 13]


def by_flow(frames: Iterable[bytes], tunnel: int = 0) -> Flows:
    """In the order in which they were seen: between flows there is none."""
    found: Flows = {}
    for frame in frames:
        found.setdefault(flow_of(frame[tunnel:]), []).append(frame)
    return found


def data_of(frame: bytes) -> bytes:
    """The payload of a TCP frame."""
    if frame[14] >> 4 == 4:
        at, end = 14 + (frame[14] & 15) * 4, 14 + int.from_bytes(frame[16:18], "big")
    else:
        at, end = 54, 54 + int.from_bytes(frame[18:20], "big")
    return frame[at + (frame[at + 12] >> 4) * 4 : end]


def stream_of(frames: Iterable[bytes]) -> bytes:
    """The bytes of a flow, put together by sequence number from the lowest (modulo 2**32) on."""
    pieces = {}
    for frame in frames:
        at = 14 + ((frame[14] & 15) * 4 if frame[14] >> 4 == 4 else 40)
        if data := data_of(frame):
            pieces[int.from_bytes(frame[at + 4 : at + 8], "big") + 0x8000 & 0xFFFFFFFF] = data
    return b"".join(pieces[sequence] for sequence in sorted(pieces))


# ---- putting in and taking out ---------------------------------------------------------------


class Tap:
    """A packet socket on an interface: sends with metadata, and keeps what comes in with it."""

    def __init__(self, netns: int, interface: str) -> None:
        with in_netns(netns):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_PACKET, _VNET_HDR, 1)
        self._socket.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.bind((interface, 3))
        self._socket.setblocking(False)

    def send(self, packets: Iterable[Packet]) -> None:
        for packet in packets:
            assert self._socket.send(packet.vnet + packet.frame) == _VNET.size + len(packet.frame)

    def received(self) -> list[Packet]:
        """All that has come since the last call."""
        found: list[Packet] = []
        while True:
            try:
                data = self._socket.recv(1 << 17)
            except BlockingIOError:
                return found
            found.append(Packet(data[: _VNET.size], data[_VNET.size :]))

    def fileno(self) -> int:
        return int(self._socket.fileno())

    def close(self) -> None:
        self._socket.close()


class Capture:
    """Packets at one place that are of certain flows; ``longest``: bytes of any packet there."""

    def __init__(self, tap: Tap, tunnel: int) -> None:
        self.tap = tap
        self.tunnel = tunnel
        self.longest = 0

    def collect(self, flows: Flows, count: int) -> list[Packet]:
        """Packets of these flows, until they stand for ``count`` frames and nothing more is there."""
        found: list[Packet] = []
        seen, end = 0, time.monotonic() + SECONDS
        while seen < count:
            left = end - time.monotonic()
            assert left > 0, f"{seen} of {count} frames have come"
            select.select([self.tap], [], [], left)
            for packet in self.tap.received():
                self.longest = max(self.longest, len(packet.frame))
                if flow_of(packet.frame[self.tunnel :]) in flows:
                    found.append(packet)
                    seen += len(canonical(packet, self.tunnel))
        return found


@contextmanager
def burst(netns: int, interface: str, tap: Tap) -> Iterator[None]:
    """What ``tap`` sends within the block leaves the interface at the end of it, all in one go.

    Coalescing is about frames that come together; sent one by one, each would be alone.
    """
    filler = Packet(bytes(_VNET.size), b"\xff" * 6 + b"\2" * 6 + b"\x88\xb5" + bytes(1500))
    with in_netns(netns), IPRoute() as route:
        (index,) = route.link_lookup(ifname=interface)
        # a bucket for one frame: the first one empties it, and a second's worth of others waits
        route.tc("add", "tbf", index, rate=1000, burst=1600, limit=1 << 20)
        try:
            tap.send([filler])
            yield
            route.tc("change", "tbf", index, rate=1 << 30, burst=1 << 20, limit=1 << 20)
            tap.send([filler])  # makes the queue move
        finally:
            route.tc("del", index=index, parent=0xFFFFFFFF)
