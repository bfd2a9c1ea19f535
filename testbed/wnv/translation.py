"""Records that are not encapsulated: IP rewrite (rule Nat), or addresses as they are (rule None).

Such a packet goes over the PA network as plain IP. With Nat each VM has a PA of its own, and both
addresses are replaced by PAs; with None the CAs themselves must be known there. The packet carries no
VSID, so that its addresses alone say whose it is. Only what two such records describe is translated:
what a VM sends from another address, or through a gateway, is dropped by name, as is what comes from a
sender without a record. IP only: ARP and ND for such records are answered where they are asked.
"""

from __future__ import annotations

from testbed.packets import ethernet
from testbed.packets.checksum import Buffer
from testbed.switch.drops import Drop
from testbed.switch.packet import Hold, Packet, Translation, Verdict
from testbed.switch.state import SwitchState
from testbed.wnv import mismatch
from testbed.wnv.tables import Record, Tables


def to_outside(state: SwitchState, tables: Tables, packet: Packet, record: Record) -> Verdict:
    """Send a VM's packet to a record of another host that is not encapsulated."""
    source, destination = ip_addresses(packet.frame)
    own = tables.records.get((packet.vsid, source))
    if own is None or own.rule != record.rule or own.pa not in tables.local_pas:
        return Drop.NOT_TRANSLATABLE
    if destination != record.address:
        return Drop.NOT_TRANSLATABLE
    next_hop = tables.provider_next_hop(record.pa)
    if next_hop is None:
        return Drop.NO_PROVIDER_ROUTE
    if state.neighbor(next_hop) is None:
        return Hold(next_hop)
    packet.translation = Translation(own.outside, record.outside, next_hop)
    packet.cacheable = False
    return None


def from_outside(state: SwitchState, tables: Tables, packet: Packet) -> Verdict:
    """Find the port of a packet from the wire that is not NVGRE; nothing is done when it is for no record."""
    source, destination = ip_addresses(packet.frame)
    record = tables.outside.get(destination)
    if record is None or record.pa not in tables.local_pas:
        return None
    packet.vsid = record.vsid
    sender = tables.outside.get(source)
    if sender is None or not _belong_together(tables, sender, record):
        mismatch.report(state, packet.source.name, record.vsid, source, source)
        return Drop.POLICY_MISMATCH
    port = state.port_with_mac(record.vsid, record.mac)
    if port is None:
        return Drop.NO_PORT
    gateway = None if sender.vsid == record.vsid else tables.gateway_mac(record.vsid, len(record.address))
    packet.macs = record.mac + (gateway or sender.mac)
    packet.ports = (port,)
    packet.translation = Translation(sender.address, record.address, None)
    packet.cacheable = False
    return None


def ip_addresses(frame: Buffer) -> tuple[bytes, bytes]:
    """Source and destination of an IP packet, empty for anything else."""
    kind = ethernet.ethertype(frame)
    if kind == ethernet.TYPE_IPV4 and len(frame) >= 34:
        return bytes(frame[26:30]), bytes(frame[30:34])
    if kind == ethernet.TYPE_IPV6 and len(frame) >= 54:
        return bytes(frame[22:38]), bytes(frame[38:54])
    return b"", b""


def _belong_together(tables: Tables, one: Record, other: Record) -> bool:
    domain = tables.rdid_of.get(one.vsid)
    return one.rule == other.rule and domain is not None and domain == tables.rdid_of.get(other.vsid)
