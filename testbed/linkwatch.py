"""Which interfaces carry: rtnetlink's link messages (rtnetlink(7)), read without pyroute2.

A socket hears of the network namespace in which it was opened, whoever reads it. Carrier that a veth
loses or gets is told at once, since it is linked to another device; but the kernel sees that by their
indexes alone (net/core/link_watch.c, linkwatch_urgent_event): where both ends have the same index, each in
its namespace, it tells changes once a second. So give the ends of a cable different indexes.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

# linux/rtnetlink.h, linux/netlink.h
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTMGRP_LINK = 1
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_IFLA_IFNAME = 3
# linux/if.h
_IFF_UP, _IFF_RUNNING, _IFF_LOWER_UP = 0x1, 0x40, 0x10000
_CARRIES = _IFF_UP | _IFF_RUNNING | _IFF_LOWER_UP

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_LINK = struct.Struct("=BxHiII")  # family, device type, index, flags, changed flags
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_LONGEST = 1 << 16
_ROOM = 1 << 20  # bytes of the receive buffer: a lab that comes up has thousands of messages


class LinkState(NamedTuple):
    """An interface. running: it is up, and so is the other end of its cable."""

    ifindex: int
    name: str
    running: bool


def open_link_watch() -> socket.socket:
    """A non-blocking socket that hears of every change in the calling thread's network namespace."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        sock.bind((0, _RTMGRP_LINK))
    except BaseException:
        sock.close()
        raise
    return sock


def request_links(sock: socket.socket) -> None:
    """Ask for all interfaces as they are now; the answer comes by :func:`read_links`."""
    size = _HEADER.size + _LINK.size
    request = _HEADER.pack(size, _RTM_GETLINK, _NLM_F_REQUEST | _NLM_F_DUMP, 0, 0) + _LINK.pack(0, 0, 0, 0, 0)
    sock.send(request)


def read_links(sock: socket.socket) -> list[LinkState]:
    """All that has been told since, oldest first. Asks for everything anew where something was lost.

    A removed interface does not run.
    """
    found: list[LinkState] = []
    while True:
        try:
            data = sock.recv(_LONGEST)
        except BlockingIOError:
            return found
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            request_links(sock)
            continue
        found += _parse(data)


def _parse(data: bytes) -> Iterator[LinkState]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        body = data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3
        if kind not in (_RTM_NEWLINK, _RTM_DELLINK) or len(body) < _LINK.size:
            continue
        family, _, index, flags, _ = _LINK.unpack_from(body)
        if family != socket.AF_UNSPEC:
            continue  # AF_BRIDGE: an interface has become a bridge's port, or is not any longer
        running = kind == _RTM_NEWLINK and flags & _CARRIES == _CARRIES
        yield LinkState(index, _name(body[_LINK.size :]), running)


def _name(attributes: bytes) -> str:
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if length < _ATTRIBUTE.size:
            break
        if kind == _IFLA_IFNAME:
            return attributes[at + _ATTRIBUTE.size : at + length].rstrip(b"\0").decode()
        at += (length + 3) & ~3
    return ""
