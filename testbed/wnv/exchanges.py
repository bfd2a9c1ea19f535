"""DHCP exchanges that VMs of this host have open: an address is learned from the message that gives it.

Only the answer to a question that the VM itself has asked counts: by transaction id and, in DHCPv4, by
the client's MAC. An answer that comes from another host is inside NVGRE, where no flow key shows it, so
the switch looks into what it receives while an exchange is open, and no longer.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from testbed.packets import dhcp, dhcpv6, udp
from testbed.packets.checksum import Buffer
from testbed.packets.malformed import MalformedFrame
from testbed.switch.port import Port

SECONDS = 10.0  # an exchange without an answer ends; clients have asked again by then (RFC 2131 section 4.1)

_PORTS = (dhcp.SERVER_PORT, dhcp.CLIENT_PORT, dhcpv6.CLIENT_PORT, dhcpv6.SERVER_PORT)
_ASKING = (dhcp.DISCOVER, dhcp.REQUEST)
_ASKING_V6 = (dhcpv6.SOLICIT, dhcpv6.REQUEST, dhcpv6.RENEW, dhcpv6.REBIND)


class Exchange(NamedTuple):
    """A question without an answer yet. until: when it is given up (monotonic seconds)."""

    transaction: bytes
    until: float


def find(frame: Buffer) -> udp.Udp | None:
    """The UDP datagram of a frame if it goes from or to a port of DHCP."""
    found = udp.find(frame)
    return found if found and (found.source in _PORTS or found.destination in _PORTS) else None


class Exchanges:
    """By port and family. ``on_change``: called with whether there are any, when that changes.

    ``open``: those there are; always the same dict, so that the worker's loop can look at it for nothing.
    """

    def __init__(self, on_change: Callable[[bool], None] = lambda _: None) -> None:
        self._on_change = on_change
        self.open: dict[tuple[str, int], Exchange] = {}

    def asked(self, port: Port, frame: Buffer, at: udp.Udp) -> None:
        """A VM has sent this DHCP message: a question opens an exchange, the latest one counts."""
        question = _question(port.mac, frame[at.start : at.end], at.destination)
        if question is None:
            return
        family, transaction = question
        before = bool(self.open)
        self.open[port.name, family] = Exchange(transaction, monotonic() + SECONDS)
        if not before:
            self._on_change(True)

    def given(self, port: Port, frame: Buffer, at: udp.Udp) -> tuple[bytes, ...]:
        """The addresses (4 or 16 bytes) that a DHCP message on its way to a VM gives it.

        A final answer, also a refusal, ends the exchange.
        """
        family = 4 if at.destination == dhcp.CLIENT_PORT else 16
        open_ = self.open.get((port.name, family))
        if open_ is None:
            return ()
        addresses = _answer(port.mac, open_.transaction, frame[at.start : at.end], at)
        if addresses is None:
            return ()
        self._close([(port.name, family)])
        return addresses

    def expire(self) -> None:
        """End exchanges that have come to nothing."""
        now = monotonic()
        self._close([key for key, each in self.open.items() if each.until <= now])

    def forget(self, port: str) -> None:
        """The port is gone, or another's."""
        self._close([key for key in self.open if key[0] == port])

    def _close(self, keys: list[tuple[str, int]]) -> None:
        for key in keys:
            del self.open[key]
        if keys and not self.open:
            self._on_change(False)


def _question(mac: bytes, payload: Buffer, destination: int) -> tuple[int, bytes] | None:
    """Family (size of an address) and transaction of a VM's question for an address."""
    try:
        if destination == dhcp.SERVER_PORT:
            asked = dhcp.parse(payload)
            if asked.operation == dhcp.BOOTREQUEST and asked.kind in _ASKING and asked.client == mac:
                return 4, asked.transaction
        elif destination == dhcpv6.SERVER_PORT:
            asked_v6 = dhcpv6.parse(payload)
            if asked_v6.kind in _ASKING_V6:
                return 16, asked_v6.transaction
    except MalformedFrame:
        pass  # a packet like any other: the switch passes it on
    return None


def _answer(mac: bytes, transaction: bytes, payload: Buffer, at: udp.Udp) -> tuple[bytes, ...] | None:
    """What the final answer to a question gives; None for anything else."""
    try:
        if (at.source, at.destination) == (dhcp.SERVER_PORT, dhcp.CLIENT_PORT):
            told = dhcp.parse(payload)
            final = told.operation == dhcp.BOOTREPLY and told.kind in (dhcp.ACK, dhcp.NAK)
            if final and (told.client, told.transaction) == (mac, transaction):
                return (told.yours,) if told.kind == dhcp.ACK else ()
        elif at.destination == dhcpv6.CLIENT_PORT:
            told_v6 = dhcpv6.parse(payload)
            if told_v6.kind == dhcpv6.REPLY and told_v6.transaction == transaction:
                return told_v6.addresses
    except MalformedFrame:
        pass
    return None
