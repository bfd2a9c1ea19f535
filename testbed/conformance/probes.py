"""Packets on their way: raw frames out of a VM or onto a cable, and what a guest's own kernel sends."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from testbed.conformance import frames
from testbed.conformance.observe import SECONDS, Capture, Place
from testbed.conformance.outcome import Failed
from testbed.conformance.scene import Guest, Scene
from testbed.namespaces import in_netns

_ETH_P_ALL_SEND = 0  # a socket that only sends
_ECHO = {4: (8, 0), 6: (128, 129)}


def token() -> bytes:
    """16 bytes by which a packet is found again."""
    return os.urandom(16)


def send(place: Place, *raw: bytes) -> None:
    """Send frames out of an interface: from a VM, or from the fabric onto a cable."""
    with in_netns(place.netns), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, _ETH_P_ALL_SEND) as sock:
        sock.bind((place.interface, 0))
        for frame in raw:
            sock.send(frame)


def packet(
    one: Guest,
    other: Guest,
    payload: bytes,
    *,
    version: int = 4,
    ports: tuple[int, int] = (1025, 9),
    destination_mac: bytes | None = None,
    vlan: int = 0,
) -> bytes:
    """A frame from one guest to another of its subnet that no kernel answers."""
    inner = frames.tcp_reset(one.address(version), other.address(version), payload, ports)
    kind = frames.TYPE_IPV4 if version == 4 else frames.TYPE_IPV6
    return frames.ethernet(destination_mac or other.mac, one.mac, kind, inner, vlan)


def routed_packet(scene: Scene, one: Guest, address: str, payload: bytes) -> bytes:
    """A frame from a guest to an address elsewhere, by way of its default gateway."""
    version = 6 if ":" in address else 4
    inner = frames.tcp_reset(one.address(version), address, payload)
    kind = frames.TYPE_IPV4 if version == 4 else frames.TYPE_IPV6
    return frames.ethernet(scene.gateway_mac(one), one.mac, kind, inner)


def carried(scene: Scene, one: Guest, other: Guest, inner: bytes, fragment: int = 0) -> bytes:
    """``inner`` as the host of ``one`` would send it to the host of ``other``."""
    macs = (scene.nic_mac(other.host), scene.nic_mac(one.host))
    pas = (scene.pa(other.host, other.vsid), scene.pa(one.host, one.vsid))
    return frames.nvgre(macs, pas, other.vsid, inner, fragment)


def fence(capture: Capture, one: Guest, other: Guest, version: int = 4) -> None:
    """Return once a packet of ``one`` has come to ``other``: all that ``one`` sent before is through too.

    The capture must be of ``other``'s adapter.
    """
    mark = token()
    capture.wait(
        other.place,
        mark,
        lambda: send(one.place, packet(one, other, mark, version=version)),
        what=f"a packet of {one.name}",
    )


def wire_fence(scene: Scene, capture: Capture, one: Guest, other: Guest) -> None:
    """Return once an NVGRE packet put on the cable of ``other``'s host has come to ``other``."""
    mark = token()
    frame = carried(scene, one, other, packet(one, other, mark))
    capture.wait(
        other.place,
        mark,
        lambda: send(scene.cable(other.host), frame),
        what=f"an NVGRE packet put on the {scene.cable(other.host).label}",
    )


# ---- by the guest's kernel ----------------------------------------------------------------


class End(Protocol):
    """A VM's adapter as these need it: a :class:`Guest` is one."""

    @property
    def name(self) -> str:
        """For evidence."""

    @property
    def netns(self) -> int:
        """Descriptor of the VM's network namespace."""

    def address(self, version: int = 4) -> str:
        """Its CA."""


def ping(one: End, address: str, seconds: float = SECONDS, again: float = 0.5, identity: bytes = b"") -> bool:
    """Whether an echo request of the guest's kernel is answered within ``seconds``.

    ``identity``: the data of its requests, by which they are found again; default: a new token.
    """
    version = 6 if ":" in address else 4
    request, reply = _ECHO[version]
    family, protocol = (
        (socket.AF_INET, socket.IPPROTO_ICMP) if version == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    )
    identity = identity or token()
    with in_netns(one.netns):
        sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    with sock:
        body = struct.pack("!BBHHH", request, 0, 0, 0x7E57, 1) + identity
        if version == 4:  # of ICMPv6 the kernel makes it
            body = body[:2] + struct.pack("!H", frames.checksum(body)) + body[4:]
        deadline, resend = time.monotonic() + seconds, 0.0
        while (now := time.monotonic()) < deadline:
            if now >= resend:
                _try_send(sock, body, address)
                resend = now + again
            if not select.select([sock], [], [], max(0.0, min(resend, deadline) - now))[0]:
                continue
            data, _ = sock.recvfrom(2048)
            message = data[(data[0] & 15) * 4 :] if version == 4 else data
            if identity in message and message[0] == reply:
                return True
    return False


def _try_send(sock: socket.socket, data: bytes, address: str) -> None:
    try:
        sock.sendto(data, (address, 0))
    except OSError as error:
        raise Failed(f"the guest's kernel does not send to {address}: {error.strerror}") from error


def transfer(one: End, other: End, size: int, version: int = 4) -> int:
    """Bytes that ``other``'s kernel gets by TCP of ``size`` that ``one``'s sends. Raises Failed."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    address = other.address(version)
    with in_netns(other.netns):
        listener = socket.create_server((address, 0), family=family)
    with listener:
        with in_netns(one.netns):
            client = socket.socket(family, socket.SOCK_STREAM)
        with client:
            client.settimeout(SECONDS)
            listener.settimeout(SECONDS)
            try:
                client.connect(listener.getsockname()[:2])
                server, _ = listener.accept()
                with server:
                    return _pump(client, server, size)
            except OSError as error:
                raise Failed(f"TCP from {one.name} to {other.name}: {error}") from error


def _pump(client: socket.socket, server: socket.socket, size: int) -> int:
    client.setblocking(False)
    server.setblocking(False)
    sent = received = 0
    deadline = time.monotonic() + SECONDS
    while received < size and time.monotonic() < deadline:
        readable, writable, _ = select.select([server], [client] if sent < size else [], [], 0.5)
        if writable:
            sent += client.send(bytes(min(size - sent, 1 << 16)))
        if readable:
            received += len(server.recv(1 << 20))
    return received


def datagram(one: End, address: str, payload: bytes, *, may_fragment: bool = True) -> None:
    """A UDP datagram of the guest's kernel to port 9 of an IPv4 address.

    Raises OSError (EMSGSIZE) when it must not be fragmented and is too long for the route.
    """
    with _udp(one, may_fragment=may_fragment) as sock:
        sock.sendto(payload, (address, 9))


def learns_path_mtu(one: End, address: str, payload: bytes, seconds: float = SECONDS) -> bool:
    """Whether the guest's kernel comes to know that ``payload`` is too long for the way to ``address``.

    It believes ICMP only about a socket that is still open, so all goes through one.
    """
    deadline = time.monotonic() + seconds
    with _udp(one, may_fragment=False) as sock:
        while time.monotonic() < deadline:
            try:
                sock.sendto(payload, (address, 9))
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    return True
                raise
            select.select([], [], [], 0.02)  # a poll with a deadline
    return False


def _udp(one: End, *, may_fragment: bool) -> socket.socket:
    with in_netns(one.netns):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # linux/in.h: IP_MTU_DISCOVER 10, IP_PMTUDISC_DONT 0, IP_PMTUDISC_DO 2
    sock.setsockopt(socket.IPPROTO_IP, 10, 0 if may_fragment else 2)
    return sock


@contextmanager
def sink(guest: End) -> Iterator[None]:
    """Port 9 is open in the guest, so that its kernel does not answer datagrams with ICMP errors."""
    with in_netns(guest.netns):
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with sock:
        sock.bind(("::", 9))
        yield
