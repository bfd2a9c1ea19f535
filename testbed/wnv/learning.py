"""Which addresses VMs use, as the filter sees it pass: what control may learn (docs/learning.md).

A VM claims an address by ARP (as sender; a probe claims nothing yet), by Neighbor Discovery (as source
of a solicitation, as target of an advertisement; duplicate detection claims nothing yet), by a DHCP
message that gives it one, and, where its record is L2Only, by any first packet. Only what bears the
port's own MAC counts. A claim is news unless the tables have the address with this MAC.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from testbed.packets import arp, ethernet, ndp
from testbed.packets.checksum import Buffer
from testbed.switch.packet import Packet
from testbed.switch.port import Port
from testbed.wnv import exchanges, probes
from testbed.wnv.exchanges import Exchanges
from testbed.wnv.probes import Probes
from testbed.wnv.tables import Tables, is_link_local, is_multicast
from testbed.wnv.translation import ip_addresses

_LOOPBACK_V6 = bytes(15) + b"\x01"


class Claim(NamedTuple):
    """A VM uses an address. ca: 4 or 16 bytes. how: arp, nd, dhcp or packet."""

    port: Port
    ca: bytes
    how: str


class Learning:
    """Sees what VMs send, and what reaches them. ``tell``: gets each claim that is news."""

    def __init__(self, tell: Callable[[Claim], None], on_exchange: Callable[[bool], None]) -> None:
        """``on_exchange``: whether received NVGRE packets have to be looked into, when that changes."""
        self.exchanges = Exchanges(on_exchange)
        self.probes = Probes()
        self._tell = tell

    def forget(self, port: str) -> None:
        """The port is gone, or in another virtual subnet."""
        self.exchanges.forget(port)
        self.probes.forget(port)

    def sent(self, tables: Tables, packet: Packet) -> bool:
        """A VM has sent this. Whether it is the answer to a question of the switch, which ends here.

        Raises MalformedFrame.
        """
        port, frame = packet.source, packet.frame
        assert isinstance(port, Port)
        if packet.only is not None or packet.injected:  # seen before it had to wait, or not the VM's word
            return False
        at = exchanges.find(frame)
        packet.cacheable &= at is None  # each DHCP message counts
        if frame[6:12] != port.mac:
            return False
        kind = ethernet.ethertype(frame)
        if kind == ethernet.TYPE_ARP:
            return self._arp(tables, port, frame)
        if kind == ethernet.TYPE_IPV6 and _is_neighbor_message(frame):
            return self._nd(tables, port, frame)
        if at is not None:
            self.exchanges.asked(port, frame, at)
        source, _ = ip_addresses(frame)
        if source and (port.vsid, port.mac, len(source)) in tables.learners:
            self._claim(tables, port, source, "packet")
        return False

    def delivered(self, tables: Tables, packet: Packet) -> None:
        """A packet reaches its ports."""
        if not self.exchanges.open:
            return
        outer = packet.outer
        frame = packet.frame[outer.header : outer.length] if outer else packet.frame
        at = exchanges.find(frame)
        if at is None:
            return
        packet.cacheable = False
        for port in packet.ports:
            for address in self.exchanges.given(port, frame, at):
                self._claim(tables, port, address, "dhcp")

    def _arp(self, tables: Tables, port: Port, frame: Buffer) -> bool:
        message = arp.parse(frame)
        if message.sender_mac != port.mac:
            return False
        self.probes.heard(port.name, message.sender_ip)
        self._claim(tables, port, message.sender_ip, "arp")
        return probes.is_answer_arp(tables, port.vsid, frame, message)

    def _nd(self, tables: Tables, port: Port, frame: Buffer) -> bool:
        message = ndp.parse(frame)
        if message.link_address not in (None, port.mac):
            return False
        asks = message.type == ndp.NEIGHBOR_SOLICITATION
        used = message.source if asks else message.target
        self.probes.heard(port.name, used)
        self._claim(tables, port, used, "nd")
        return not asks and probes.is_answer_nd(tables, port.vsid, frame, message)

    def _claim(self, tables: Tables, port: Port, ca: bytes, how: str) -> None:
        if is_news(tables, port, ca):
            self._tell(Claim(port, ca, how))


def is_news(tables: Tables, port: Port, ca: bytes) -> bool:
    """Whether an address can be a VM's and the tables don't have it as this port's."""
    record = tables.records.get((port.vsid, ca))
    return (record is None or record.mac != port.mac) and _is_machines(ca)


def _is_machines(ca: bytes) -> bool:
    if not any(ca) or is_link_local(ca) or is_multicast(ca):
        return False
    if len(ca) == 4:
        return ca[0] not in (0, 127) and ca[0] < 240  # this network, loopback, reserved (RFC 6890)
    return ca != _LOOPBACK_V6


def _is_neighbor_message(frame: Buffer) -> bool:
    return ndp.icmpv6_type(frame) in (ndp.NEIGHBOR_SOLICITATION, ndp.NEIGHBOR_ADVERTISEMENT)
