"""ARP and Neighbor Discovery of the VMs: answered here, forwarded, flooded or ended.

Broadcast ARP requests and multicast solicitations are answered from the lookup records, with the
record's MAC; nothing goes onto the wire (hnv.md section 6.1). Unicast ones go to the VM they are for, so
that neighbor unreachability detection really probes it, but never out of its subnet. A DAD probe finds
an owner only when the record belongs to another MAC than the prober's.

What no record knows is flooded where the VSID has L2Only records, whose VMs answer for themselves. "The
virtual network" of the source is read as the VSID (chosen): in another subnet nobody could answer.
There, announcements are flooded too, unless they contradict a record; elsewhere they end here.
A remote record that is not encapsulated is answered for even when asked directly (chosen): plain IP
carries no ARP.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from testbed.packets import arp, ndp
from testbed.packets.checksum import Buffer
from testbed.switch.drops import Drop
from testbed.switch.packet import Packet, Reply
from testbed.switch.switching import GROUP_BIT
from testbed.wnv.tables import EVERYONE, Record, Tables


class Flood(NamedTuple):
    """Send it to all of the VSID; ``address``: the CA group."""

    address: bytes


class Inside(NamedTuple):
    """Forward it to the CA ``address``, but not out of the VSID."""

    address: bytes


Answer: TypeAlias = Reply | Drop | Flood | Inside


def resolve_arp(tables: Tables, packet: Packet) -> Answer:
    """What becomes of an ARP message. Raises MalformedFrame."""
    message = arp.parse(packet.frame)
    record = tables.records.get((packet.vsid, message.target_ip))
    if not packet.frame[0] & GROUP_BIT:
        if record and _answered_for(tables, record):
            return answer_arp(message, record)
        return Inside(message.target_ip)
    announced = message.operation != arp.REQUEST or message.sender_ip == message.target_ip
    if announced and (message.operation != arp.REQUEST or record is None or record.mac == message.sender_mac):
        return _announcement(tables, packet, message.sender_ip, message.sender_mac, EVERYONE[4])
    if record is None and tables.has_learners(packet.vsid):
        return Flood(EVERYONE[4])
    return answer_arp(message, record)


def resolve_nd(tables: Tables, packet: Packet) -> Answer | None:
    """What becomes of a frame that is Neighbor Discovery; None for other IPv6. Raises MalformedFrame."""
    kind = ndp.icmpv6_type(packet.frame)
    if kind in (ndp.ROUTER_ADVERTISEMENT, ndp.REDIRECT):
        return Drop.ROUTER_BLOCKED
    if kind == ndp.ROUTER_SOLICITATION:
        return Drop.NEIGHBOR_CONSUMED
    if kind not in (ndp.NEIGHBOR_SOLICITATION, ndp.NEIGHBOR_ADVERTISEMENT):
        return None
    message = ndp.parse(packet.frame)
    multicast = bool(packet.frame[0] & GROUP_BIT)
    if message.type == ndp.NEIGHBOR_ADVERTISEMENT:
        return _advertisement(tables, packet, message, multicast=multicast)
    record = tables.records.get((packet.vsid, message.target))
    if not multicast:
        answered = record and _answered_for(tables, record)
        return answer_nd(message, record, packet.frame) if answered else Inside(message.target)
    if record is None and tables.has_learners(packet.vsid):
        return Flood(message.destination)
    return answer_nd(message, record, packet.frame)


def answer_arp(message: arp.Arp, record: Record | None) -> Reply | Drop:
    """The record's answer to an ARP request for its CA."""
    if message.operation != arp.REQUEST:
        return Drop.NEIGHBOR_CONSUMED
    if record is None:
        return Drop.NO_LOOKUP_RECORD
    if record.mac == message.sender_mac:
        return Drop.NEIGHBOR_CONSUMED  # its own address: a probe or an announcement
    answer = arp.Arp(arp.REPLY, record.mac, message.target_ip, message.sender_mac, message.sender_ip)
    return Reply(arp.build(answer, message.sender_mac))


def answer_nd(message: ndp.Neighbor, record: Record | None, frame: Buffer) -> Reply | Drop:
    """The record's answer to the solicitation in ``frame``."""
    if message.type != ndp.NEIGHBOR_SOLICITATION:
        return Drop.NEIGHBOR_CONSUMED
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


def _answered_for(tables: Tables, record: Record) -> bool:
    """Whether nobody can be asked directly: a gateway, or a VM that ARP and ND do not reach."""
    return record.gateway or not (record.encapsulated or record.pa in tables.own_pas)


def _advertisement(tables: Tables, packet: Packet, message: ndp.Neighbor, *, multicast: bool) -> Answer:
    if multicast:
        return _announcement(tables, packet, message.target, bytes(packet.frame[6:12]), message.destination)
    receiver = tables.records.get((packet.vsid, message.destination))
    if receiver and _answered_for(tables, receiver):
        return Drop.NEIGHBOR_CONSUMED
    return Inside(message.destination)


def _announcement(tables: Tables, packet: Packet, address: bytes, mac: bytes, group: bytes) -> Answer:
    """A VM tells all that it has an address: of interest only where addresses are learned."""
    record = tables.records.get((packet.vsid, address))
    if tables.has_learners(packet.vsid) and (record is None or record.mac == mac):
        return Flood(group)
    return Drop.NEIGHBOR_CONSUMED
