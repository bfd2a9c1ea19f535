"""Connections that stateful rules have allowed: TCP, UDP, ICMP echo, and whatever else has addresses."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from testbed.extensions import headers as ip
from testbed.extensions.rules import Subject
from testbed.packets.checksum import Buffer

FIN, SYN, RST, ACK = 1, 2, 4, 16
OPENING_SECONDS = 30.0  # a TCP connection without an answer to its SYN
CLOSING_SECONDS = 10.0  # both FINs, or a RST: what is still on its way may arrive
_BETWEEN_PURGES = 1.0

_ECHO_REQUESTS, _ECHO_REPLIES = {ip.ICMP: 8, ip.ICMPV6: 128}, {ip.ICMP: 0, ip.ICMPV6: 129}
# about another packet: unreachable, too big, time exceeded, parameter problem (RFC 792, RFC 4443)
_ERRORS = {ip.ICMP: (3, 11, 12), ip.ICMPV6: (1, 2, 3, 4)}

Key = tuple[str, int, bytes, int, bytes, int]


class Segment(NamedTuple):
    """A packet as a part of a connection. flags: TCP's. opens: it may begin one. about: see below.

    An ICMP error is about a packet that went the other way: ``key`` is then that packet's connection.
    """

    key: Key
    outgoing: bool
    flags: int = 0
    opens: bool = True
    about: bool = False


class _Connection:
    __slots__ = ("answered", "closing", "expires", "finished", "outgoing")

    def __init__(self, outgoing: bool, expires: float) -> None:
        self.outgoing = outgoing  # whose packet opened it
        self.expires = expires
        self.answered = False
        self.closing = False
        self.finished = 0  # bit 0: FIN of the remote side, bit 1: of the local one


class Connections:
    """A table of at most ``limit`` connections. Idle times in seconds."""

    def __init__(
        self, limit: int, tcp_idle: float, other_idle: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._limit = limit
        self._tcp_idle, self._other_idle = tcp_idle, other_idle
        self._clock = clock
        self._table: dict[Key, _Connection] = {}
        self._purged = 0.0

    def __len__(self) -> int:
        return len(self._table)

    def passes(self, segment: Segment) -> bool:
        """Whether a packet is part of a connection; it is noted there."""
        found = self._table.get(segment.key)
        if found is None:
            return False
        now = self._clock()
        if found.expires <= now:
            del self._table[segment.key]
            return False
        if segment.about:
            return True
        answers = segment.outgoing != found.outgoing
        protocol = segment.key[1]
        if protocol == ip.TCP:
            return self._tcp(found, segment, answers, now)
        if protocol in _ECHO_REQUESTS and segment.opens == answers:
            return False  # a reply nobody asked for, or a request of the other side's own
        found.expires = now + self._other_idle
        return True

    def open(self, segment: Segment) -> bool:
        """Note what a stateful rule has allowed. False: the table is full."""
        if not segment.opens or segment.about:
            return True
        now = self._clock()
        if segment.key not in self._table and len(self._table) >= self._limit:
            self._purge(now)
            if len(self._table) >= self._limit:
                return False
        idle = OPENING_SECONDS if segment.key[1] == ip.TCP else self._other_idle
        self._table[segment.key] = _Connection(segment.outgoing, now + idle)
        return True

    def _tcp(self, found: _Connection, segment: Segment, answers: bool, now: float) -> bool:
        flags = segment.flags
        if segment.opens:
            return False  # a new connection on old ports is for the rules to judge
        if not answers and not found.answered and not flags & RST:
            return True  # nothing lives longer for what nobody answers
        found.answered = found.answered or answers
        if flags & FIN:
            found.finished |= 2 if segment.outgoing else 1
        if not found.closing:
            found.closing = bool(flags & RST) or found.finished == 3
            found.expires = now + (CLOSING_SECONDS if found.closing else self._tcp_idle)
        return True

    def _purge(self, now: float) -> None:
        if now - self._purged >= _BETWEEN_PURGES:
            self._purged = now
            self._table = {key: each for key, each in self._table.items() if each.expires > now}


def segment_of(frame: Buffer, headers: ip.Headers, subject: Subject) -> Segment | None:
    """A CA packet as part of a connection; None when it can't be: later fragments, other ICMP."""
    if headers.later:
        return None
    if headers.protocol in _ECHO_REQUESTS:
        return _icmp(frame, headers, subject)
    if headers.protocol in (ip.TCP, ip.UDP) and subject.local_port is None:
        return None
    if headers.protocol != ip.TCP:
        return Segment(_key(subject), subject.outgoing)
    if headers.end < headers.offset + 14:
        return None
    flags = frame[headers.offset + 13]
    return Segment(_key(subject), subject.outgoing, flags, opens=flags & (SYN | ACK | RST | FIN) == SYN)


def pa_segment(subject: Subject) -> Segment:
    """An NVGRE packet: all of two PAs is one connection (a routed answer has another VSID)."""
    return Segment(_key(subject), subject.outgoing)


def _key(subject: Subject) -> Key:
    return (
        subject.port,
        subject.protocol,
        subject.local,
        subject.local_port or 0,
        subject.remote,
        subject.remote_port or 0,
    )


def _icmp(frame: Buffer, headers: ip.Headers, subject: Subject) -> Segment | None:
    at, protocol = headers.offset, headers.protocol
    if headers.end < at + 8:
        return None
    kind = frame[at]
    if kind in (_ECHO_REQUESTS[protocol], _ECHO_REPLIES[protocol]):
        identifier = frame[at + 4] << 8 | frame[at + 5]
        key = _key(subject._replace(local_port=identifier, remote_port=0))
        return Segment(key, subject.outgoing, opens=kind == _ECHO_REQUESTS[protocol])
    if kind in _ERRORS[protocol]:
        return _quoted(frame, at + 8, subject)
    return None


def _quoted(frame: Buffer, start: int, subject: Subject) -> Segment | None:
    """The connection of the packet that an ICMP error quotes; it went the other way."""
    quoted = (ip.parse_ipv4 if len(subject.local) == 4 else ip.parse_ipv6)(frame, start)
    if quoted is None or quoted.later:
        return None
    source, destination = ip.ports(frame, quoted) or (0, 0)
    if quoted.protocol in _ECHO_REQUESTS and quoted.end >= quoted.offset + 8:
        identifier = frame[quoted.offset + 4] << 8 | frame[quoted.offset + 5]
        source, destination = (0, identifier) if subject.outgoing else (identifier, 0)
    local, remote = (quoted.source, source), (quoted.destination, destination)
    if subject.outgoing:
        local, remote = remote, local
    key = (subject.port, quoted.protocol, *local, *remote)
    return Segment(key, subject.outgoing, opens=False, about=True)
