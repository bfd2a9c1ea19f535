"""``python -m testbed.guest.announce``: tells the network of each IPv4 address that this machine takes.

Linux tells nobody, Windows does, by gratuitous ARP; switches that learn addresses wait for it. Each new
address of an Ethernet interface is announced at once and once more two seconds later (RFC 5227 sections
2.3 and 1.1: ANNOUNCE_NUM 2, ANNOUNCE_INTERVAL 2 s), and again when its interface comes up. IPv6
addresses are the kernel's business: the sysctl ndisc_notify has it send unsolicited advertisements.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from testbed.packets import arp

ANNOUNCEMENTS, INTERVAL = 2, 2.0  # seconds

# linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h, linux/if_link.h, linux/if_arp.h
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR = 0x1, 0x10
_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _DELADDR, _GETADDR, _ERROR, _DONE = 16, 17, 18, 20, 21, 22, 2, 3
_REQUEST, _DUMP = 0x1, 0x300
_IFA_LOCAL, _IFLA_ADDRESS, _IFLA_IFNAME = 2, 1, 3
_IFF_UP, _IFF_LOOPBACK, _ETHERNET = 0x1, 0x8, 1
_MESSAGE = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_BUFFER = 1 << 16
_BROADCAST = b"\xff" * 6


class _Link(NamedTuple):
    name: str
    mac: bytes
    up: bool


class Announcer:
    """Follows the kernel's addresses and links."""

    def __init__(self) -> None:
        self._links: dict[int, _Link] = {}
        self._addresses: dict[int, set[bytes]] = {}
        self._due: list[tuple[float, int, bytes, int]] = []  # when, interface, address, how many are left
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._netlink.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR))
        self._packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)

    def run(self) -> None:
        """For ever."""
        poll = select.poll()
        poll.register(self._netlink, select.POLLIN)
        self._dump(_GETLINK)
        while True:
            if poll.poll(self._pause()):
                self._receive()
            self._announce_due()

    def _pause(self) -> int | None:
        """Milliseconds until something is due."""
        if not self._due:
            return None
        return max(0, int((min(self._due)[0] - time.monotonic()) * 1000) + 1)

    def _dump(self, kind: int) -> None:
        request = _MESSAGE.pack(_MESSAGE.size + 1, kind, _REQUEST | _DUMP, kind, 0) + bytes((socket.AF_INET,))
        self._netlink.send(request.ljust(_MESSAGE.size + 4, b"\0"))

    def _receive(self) -> None:
        try:
            data = self._netlink.recv(_BUFFER)
        except OSError:  # more than the kernel could keep for us: ask for all there is
            self._dump(_GETLINK)
            return
        for kind, sequence, body in _messages(data):
            if kind == _DONE and sequence == _GETLINK:
                self._dump(_GETADDR)
            elif kind in (_NEWLINK, _DELLINK):
                self._link(kind, body)
            elif kind in (_NEWADDR, _DELADDR):
                self._address(kind, body)

    def _link(self, kind: int, body: bytes) -> None:
        _, hardware, index, flags, _ = _LINK.unpack_from(body)
        if kind == _DELLINK or hardware != _ETHERNET or flags & _IFF_LOOPBACK:
            self._links.pop(index, None)
            self._addresses.pop(index, None)
            return
        found = _attributes(body[_LINK.size :])
        was = self._links.get(index)
        name = found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
        now = self._links[index] = _Link(name, found.get(_IFLA_ADDRESS, b""), bool(flags & _IFF_UP))
        if now.up and was is not None and not was.up:
            for address in self._addresses.get(index, ()):
                self._begin(index, address)

    def _address(self, kind: int, body: bytes) -> None:
        family, _, _, _, index = _ADDRESS.unpack_from(body)
        address = _attributes(body[_ADDRESS.size :]).get(_IFA_LOCAL)
        if family != socket.AF_INET or address is None:
            return
        known = self._addresses.setdefault(index, set())
        if kind == _DELADDR:
            known.discard(address)
        elif address not in known:
            known.add(address)
            self._begin(index, address)

    def _begin(self, index: int, address: bytes) -> None:
        self._due = [each for each in self._due if each[1:3] != (index, address)]
        self._due.append((time.monotonic(), index, address, ANNOUNCEMENTS))

    def _announce_due(self) -> None:
        now = time.monotonic()
        ready = [each for each in self._due if each[0] <= now]
        self._due = [each for each in self._due if each[0] > now]
        for _, index, address, left in ready:
            link = self._links.get(index)
            if link is None or not link.up or address not in self._addresses.get(index, ()):
                continue
            self._send(link, address)
            if left > 1:
                self._due.append((now + INTERVAL, index, address, left - 1))

    def _send(self, link: _Link, address: bytes) -> None:
        frame = arp.build(arp.Arp(arp.REQUEST, link.mac, address, bytes(6), address), _BROADCAST)
        try:
            self._packet.sendto(frame, (link.name, 0))
        except OSError as error:  # it has gone down, or away, meanwhile
            print(f"announce: {link.name}: {error.strerror}", file=sys.stderr, flush=True)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and body of each netlink message."""
    at = 0
    while at + _MESSAGE.size <= len(data):
        length, kind, _, sequence, _ = _MESSAGE.unpack_from(data, at)
        if length < _MESSAGE.size or at + length > len(data):
            return
        yield kind, sequence, data[at + _MESSAGE.size : at + length]
        at += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def main() -> int:
    """Announce until the machine ends."""
    Announcer().run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
