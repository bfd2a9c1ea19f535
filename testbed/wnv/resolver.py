"""ARP and Neighbor Discovery of the VMs, answered or forwarded (hnv.md section 6.1).

Broadcast ARP requests and multicast solicitations are answered here from the lookup records,
with the record's MAC; nothing goes onto the wire. Unicast ones go to the VM they are for, so
that neighbor unreachability detection really probes it. A DAD probe finds an owner only when
the record belongs to another MAC than the prober's.
"""

from __future__ import annotations

from testbed.packets import arp, ndp
from testbed.packets.checksum import Buffer
from testbed.switch.drops import Drop
from testbed.switch.packet import Packet, Reply
from testbed.wnv.tables import Record, Tables

MULTICAST_BIT = 1


def resolve_arp(tables: Tables, packet: Packet) -> Reply | Drop | bytes:
    """A verdict, or the CA (4 bytes) to which the frame is to be forwarded."""
    message = arp.parse(packet.frame)
    record = tables.records.get((packet.vsid, message.target_ip))
    if not packet.frame[0] & MULTICAST_BIT and not (record and record.gateway):
        return message.target_ip
    if message.operation != arp.REQUEST:
        return Drop.NEIGHBOR_CONSUMED
    if record is None:
        return Drop.NO_LOOKUP_RECORD
    if record.mac == message.sender_mac:
        return Drop.NEIGHBOR_CONSUMED  # its own address: a probe or an announcement
    answer = arp.Arp(arp.REPLY, record.mac, message.target_ip, message.sender_mac, message.sender_ip)
    return Reply(arp.build(answer, message.sender_mac))


def resolve_nd(tables: Tables, packet: Packet) -> Reply | Drop | None:
    """A verdict for ICMPv6 that is Neighbor Discovery; None lets the packet be forwarded as IP."""
    kind = ndp.icmpv6_type(packet.frame)
    if kind in (ndp.ROUTER_ADVERTISEMENT, ndp.REDIRECT):
        return Drop.ROUTER_BLOCKED
    if kind == ndp.ROUTER_SOLICITATION:
        return Drop.NEIGHBOR_CONSUMED
    if kind not in (ndp.NEIGHBOR_SOLICITATION, ndp.NEIGHBOR_ADVERTISEMENT):
        return None
    message = ndp.parse(packet.frame)
    record = tables.records.get((packet.vsid, message.target))
    multicast = bool(packet.frame[0] & MULTICAST_BIT)
    if message.type == ndp.NEIGHBOR_ADVERTISEMENT:
        return Drop.NEIGHBOR_CONSUMED if multicast else None
    if not multicast and not (record and record.gateway):
        return None
    return _answer(message, record, packet.frame)


def _answer(message: ndp.Neighbor, record: Record | None, frame: Buffer) -> Reply | Drop:
    if record is None:
        return Drop.NO_LOOKUP_RECORD
    asker = bytes(frame[6:12])
    if record.mac == asker:
        return Drop.NEIGHBOR_CONSUMED
    flags = ndp.FLAG_OVERRIDE
    destination, mac = ndp.ALL_NODES, b"\x33\x33\0\0\0\x01"
    if not message.is_dad:  # RFC 4861 section 7.2.4: an answer to a probe goes to all nodes
        flags |= ndp.FLAG_SOLICITED
        destination, mac = message.source, message.link_address or asker
    if record.gateway:
        flags |= ndp.FLAG_ROUTER
    answer = ndp.Neighbor(
        ndp.NEIGHBOR_ADVERTISEMENT, message.target, destination, message.target, flags, record.mac
    )
    return Reply(ndp.build(answer, mac, record.mac))
