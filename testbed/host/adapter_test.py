"""Test-VMNetworkAdapter in a worker: echoes injected at a VM's port, and intercepted before they reach a VM.

An echo takes the whole way of a packet: every stage decides about it. Only while a test runs here does
the switch look at what its pipeline has decided, and into what it receives; then the echo is taken out
where it would be delivered, and the guests have no part in it. They are told from other echoes by the
addresses, the sequence number, and how their payload begins.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

import msgspec

from testbed.errors import BadInput
from testbed.packets import datagram, icmp_echo, nvgre
from testbed.packets.icmp_echo import Echo
from testbed.packets.malformed import MalformedFrame
from testbed.switch.datapath import Datapath
from testbed.switch.packet import Packet
from testbed.switch.pipeline import PORT, Path
from testbed.switch.port import Port
from testbed.switch.state import SwitchState
from testbed.wnv.forwarding import NextHop, find_next_hop
from testbed.wnv.probes import NOBODY_MAC
from testbed.wnv.tables import Tables

MAGIC = b"testbed:"  # how the payload of such an echo begins
_SIGHTS = 16  # kept of each end: more than one echo can cause
_PROTOCOLS = {b"\x08\x00": (23, datagram.ICMP), b"\x86\xdd": (20, datagram.ICMPV6)}


class Sight(msgspec.Struct):
    """An echo was seen, at a NIC or from another port, that was lost at a stage before it reached its own."""

    source: str
    stage: str
    reason: str


class Sent(msgspec.Struct):
    """What came of an echo at its own host: drops (stage, reason), NICs by which it left.

    waiting: PA next hops that it has to wait for; unresolved: those that are not there yet.
    """

    drops: list[tuple[str, str]]
    nics: list[str]
    waiting: list[bytes]
    unresolved: list[bytes] = []


class Progress(msgspec.Struct):
    """What has come of a test so far, seen from one end."""

    received: int
    round_trip: float | None
    sights: list[Sight]
    sent: Sent | None


class End(msgspec.Struct):
    """One end of a test. local, remote: the CAs (4 or 16 bytes). identifier: of the request, None: any.

    mac: where frames go first, None: what the filter knows. received: echoes that have reached the port;
    sights: of echoes that have not. sent: what came of the own echo.
    """

    port: str
    local: bytes
    remote: bytes
    sends: bool
    sequence: int
    identifier: int | None = None
    mac: bytes | None = None
    received: int = 0
    sights: list[Sight] = []
    sent: Sent | None = None
    started: float = 0.0
    round_trip: float | None = None

    def expects(self, echo: Echo) -> bool:
        """Whether an echo is this test's: the request where it is received, the reply where it was sent."""
        return (
            echo.is_reply is self.sends
            and (echo.source, echo.destination) == (self.remote, self.local)
            and echo.sequence == self.sequence
            and self.identifier in (None, echo.identifier)
        )


class _Watched:
    """A pipeline whose decisions are looked at."""

    def __init__(self, path: Path, look: Callable[[Packet], None]) -> None:
        self.path = path
        self._look = look

    def outbound(self, packet: Packet) -> None:
        self.path.outbound(packet)
        self._look(packet)

    def inbound(self, packet: Packet) -> None:
        self.path.inbound(packet)
        self._look(packet)


class AdapterTests:
    """The tests of one worker. ``changed``: called when the first begins and when the last has ended."""

    def __init__(
        self,
        state: SwitchState,
        datapath: Datapath,
        tables: Callable[[], Tables],
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], None],
        changed: Callable[[], None],
    ) -> None:
        self._state, self._datapath, self._tables = state, datapath, tables
        self._watch, self._unwatch, self._changed = watch, unwatch, changed
        self._ends: dict[int, End] = {}
        self._replies: list[tuple[End, Echo, bytes]] = []
        self._bell = -1  # rings when there are replies to be sent, once the batch is done

    @property
    def running(self) -> bool:
        """Whether there is any."""
        return bool(self._ends)

    def begin(self, number: int, end: End) -> None:
        """Intercept from now on what ``end`` expects. Raises BadInput."""
        if end.port not in self._state.ports:
            known = ", ".join(self._state.ports) or "none"
            raise BadInput(f"there is no port {end.port!r}: one of {known}")
        if end.sends and end.mac is None and self._state.ports[end.port].vsid == 0:
            raise BadInput(
                f"{end.port} is not virtualised, so that nothing tells where its frames go: "
                f"name the other end's MAC with --next-hop-mac"
            )
        self._ends[number] = end
        if len(self._ends) == 1:
            self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._watch(self._bell, self._answer)
            self.renewed()
            self._changed()

    def renewed(self) -> None:
        """The switch has another pipeline."""
        if self._ends and not isinstance(self._datapath.pipeline, _Watched):
            self._datapath.pipeline = _Watched(self._datapath.pipeline, self._look)

    def end(self, number: int) -> None:
        """Intercept it no longer."""
        if self._ends.pop(number, None) is None or self._ends:
            return
        self._replies.clear()
        self._unwatch(self._bell)
        os.close(self._bell)
        if isinstance(self._datapath.pipeline, _Watched):
            self._datapath.pipeline = self._datapath.pipeline.path
        self._changed()

    def send(self, number: int, size: int) -> None:
        """Send the request, with ``size`` bytes of payload (as many as MAGIC has, at least)."""
        end = self._ends[number]
        payload = (MAGIC + bytes(size))[:size]
        end.started = time.monotonic()
        self._inject(end, Echo(end.local, end.remote, False, end.identifier or 0, end.sequence, payload))

    def progress(self, number: int) -> Progress:
        """What has come of a test so far. Raises BadInput when there is none of this number."""
        if number not in self._ends:
            raise BadInput(f"there is no test {number}: its time is over")
        end = self._ends[number]
        if end.sent is not None:
            neighbor = self._state.neighbor
            end.sent.unresolved = [each for each in end.sent.waiting if neighbor(each) is None]
        return Progress(end.received, end.round_trip, end.sights, end.sent)

    # ---- sending ----------------------------------------------------------------------------

    def _answer(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        replies, self._replies = self._replies, []
        for end, reply, mac in replies:
            if end.port in self._state.ports:
                self._inject(end, reply, mac)

    def _inject(self, end: End, echo: Echo, asker: bytes = b"") -> None:
        port = self._state.ports[end.port]
        mac = end.mac or (self._next_hop(port, echo.destination) if port.vsid else asker)
        frame = datagram.build(icmp_echo.build(echo), mac, port.mac)
        drops, sent = dict(self._datapath.drops), self._sent()
        packet = self._datapath.inject(port, frame)
        end.sent = Sent(
            [
                (key[0], str(key[3]))
                for key, count in self._datapath.drops.items()
                if count != drops.get(key, 0)
            ],
            [name for name, count in self._sent().items() if count != sent.get(name)],
            [*dict.fromkeys(packet.waiting)],
        )

    def _sent(self) -> dict[str, int]:
        return {uplink.name: uplink.tx_packets for uplink in self._state.uplinks.values()}

    def _next_hop(self, port: Port, destination: bytes) -> bytes:
        """The MAC to which the VM would send: the record's, or the default gateway's."""
        tables = self._tables()
        found = find_next_hop(tables, port.vsid, destination)
        if isinstance(found, NextHop) and found.record.vsid == port.vsid:
            return found.record.mac
        return tables.gateway_mac(port.vsid, len(destination)) or NOBODY_MAC

    # ---- intercepting -----------------------------------------------------------------------

    def _look(self, packet: Packet) -> None:
        echo = _echo_of(packet)
        if echo is None:
            return
        ends = [end for end in self._ends.values() if end.expects(echo)]
        reached = {port.name for port in packet.ports}
        for end in ends:
            if end.port in reached:
                self._take(end, packet, echo)
                return
        for end in ends:
            if len(end.sights) < _SIGHTS:
                end.sights += _sights(packet)
        if ends:
            packet.ports = ()  # whoever it would have gone to is no part of the test either

    def _take(self, end: End, packet: Packet, echo: Echo) -> None:
        packet.ports = ()
        end.received += 1
        if end.sends:
            if end.round_trip is None:
                end.round_trip = time.monotonic() - end.started
            return
        start = packet.outer.header if packet.outer else 0
        self._replies.append((end, echo.reply(), bytes(packet.frame[start + 6 : start + 12])))
        os.eventfd_write(self._bell, 1)


def _sights(packet: Packet) -> list[Sight]:
    """Where copies of a packet that did not reach the port went."""
    name = packet.source.name
    sights = [Sight(name, stage, str(reason)) for stage, reason in packet.lost]
    return sights + [Sight(name, PORT, f"delivered to {port.name}") for port in packet.ports]


def _echo_of(packet: Packet) -> Echo | None:
    """The test's echo in a packet, with the addresses that VMs see."""
    try:
        outer = packet.outer
        if outer is None and not isinstance(packet.source, Port) and nvgre.carries_gre(packet.frame):
            outer = nvgre.parse(packet.frame)
        frame = packet.frame[outer.header : outer.length] if outer else packet.frame
        at, protocol = _PROTOCOLS.get(bytes(frame[12:14]), (0, 0))
        if not at or len(frame) <= at or frame[at] != protocol:
            return None
        echo = icmp_echo.parse(datagram.parse(frame))
    except MalformedFrame:
        return None
    if echo is None or not echo.payload.startswith(MAGIC):
        return None
    turned = packet.translation
    if turned is None or turned.next_hop is not None:
        return echo
    return echo._replace(source=turned.source, destination=turned.destination)
