"""The WNV filter as a stage: between the extensions that see CAs and those that see PAs.

Forwarding as Windows Server 2012 R2 does it (hnv.md section 6.1): by destination CA alone.
Customer route, lookup record, then a port of this host or the PA network. The inner destination
MAC is the record's. A packet between two virtual subnets of a routing domain leaves with the
VSID of its destination, never into another routing domain.
"""

from __future__ import annotations

import zlib

from testbed.packets import ethernet, nvgre
from testbed.packets.checksum import Buffer
from testbed.switch.drops import Drop
from testbed.switch.packet import Hold, Packet, Tunnel, Verdict
from testbed.switch.pipeline import WNV
from testbed.switch.state import SwitchState
from testbed.topology.plan import HostPolicy
from testbed.wnv.resolver import MULTICAST_BIT, resolve_arp, resolve_nd
from testbed.wnv.tables import Record, Tables


class WnvFilter:
    """Encapsulates, decapsulates, answers for neighbors. ``tables``: the policy, replaced as a whole."""

    name = WNV

    def __init__(self, state: SwitchState) -> None:
        self._state = state
        self.tables = Tables(HostPolicy(), frozenset())

    def outbound(self, packet: Packet) -> Verdict:
        """A VM's packet: find where its destination CA lives."""
        if packet.vsid == 0:
            return self._by_mac(packet)
        kind = ethernet.ethertype(packet.frame)
        if kind == ethernet.TYPE_ARP:
            found = resolve_arp(self.tables, packet)
            return self._unicast(packet, found) if isinstance(found, bytes) else found
        if kind == ethernet.TYPE_IPV4:
            if len(packet.frame) < 34:
                return Drop.MALFORMED
            return self._ip(packet, bytes(packet.frame[30:34]))
        if kind == ethernet.TYPE_IPV6:
            if len(packet.frame) < 54:
                return Drop.MALFORMED
            verdict = resolve_nd(self.tables, packet)
            return verdict or self._ip(packet, bytes(packet.frame[38:54]))
        return Drop.NOT_IP

    def inbound(self, packet: Packet) -> Verdict:
        """A frame from the wire: NVGRE for one of this host's PAs, or a frame for a VSID-0 port."""
        if not _is_gre(packet.frame) or self._state.port_with_mac(0, bytes(packet.frame[:6])):
            return self._outside(packet)
        outer = packet.outer = nvgre.parse(packet.frame)
        state = self._state
        packet.vsid = outer.vsid
        if outer.destination_pa not in self.tables.local_pas:
            return Drop.PA_NOT_LOCAL
        if not self.tables.knows_sender(outer.vsid, outer.source_pa):
            return Drop.POLICY_MISMATCH
        inner = packet.frame[nvgre.OUTER : outer.length]
        if ethernet.ethertype(inner) in (ethernet.TYPE_VLAN, ethernet.TYPE_QINQ):
            return Drop.INNER_TAGGED
        if inner[0] & MULTICAST_BIT:
            packet.ports = state.ports_of(outer.vsid)
        elif port := state.port_with_mac(outer.vsid, bytes(inner[:6])):
            packet.ports = (port,)
        return None

    def _ip(self, packet: Packet, destination: bytes) -> Verdict:
        if packet.frame[0] & MULTICAST_BIT:
            return self._replicate(packet)
        return self._unicast(packet, destination)

    def _unicast(self, packet: Packet, destination: bytes) -> Verdict:
        tables = self.tables
        route = tables.customer_route(packet.vsid, destination)
        if route is None:
            return Drop.NO_CUSTOMER_ROUTE
        record = tables.records.get((route.vsid, route.next_hop or destination))
        if record is None:
            return Drop.NO_LOOKUP_RECORD
        if record.gateway:
            return Drop.GATEWAY_ADDRESS
        packet.macs = record.mac + self._source_mac(packet, record)
        if record.pa in tables.own_pas:
            port = self._state.port_with_mac(record.vsid, record.mac)
            packet.ports = (port,) if port else ()
            return None if port else Drop.NO_PORT
        tunnel = self._tunnel(packet, record.vsid, record.pa)
        if not isinstance(tunnel, Tunnel):
            return tunnel
        packet.tunnels = (tunnel,)
        return None

    def _source_mac(self, packet: Packet, record: Record) -> bytes:
        """Unchanged inside a subnet; a routed packet comes from the gateway of its new subnet."""
        if record.vsid == packet.vsid:
            return bytes(packet.frame[6:12])
        return self.tables.gateway_macs.get(record.vsid, bytes(packet.frame[6:12]))

    def _replicate(self, packet: Packet) -> Verdict:
        """Source replication: one copy per remote host with VMs of the VSID (RFC 7637 section 4.2).

        A host that can't be reached holds up its own copy only.
        """
        packet.macs = bytes(packet.frame[:12])
        if packet.only is None:
            packet.ports = tuple(
                port for port in self._state.ports_of(packet.vsid) if port is not packet.source
            )
        copies = [self._tunnel(packet, packet.vsid, pa) for pa in self.tables.remote_pas.get(packet.vsid, ())]
        tunnels = [copy for copy in copies if isinstance(copy, Tunnel)]
        if packet.only is None:
            packet.tunnels = tuple(tunnels)
            packet.waiting = tuple({copy.next_hop: None for copy in copies if isinstance(copy, Hold)})
            packet.lost = tuple(copy for copy in copies if isinstance(copy, Drop))
        else:
            packet.tunnels = tuple(tunnel for tunnel in tunnels if tunnel.next_hop == packet.only)
        if packet.ports or packet.tunnels or packet.waiting:
            return None
        return packet.lost[0] if packet.lost else Drop.NO_LOOKUP_RECORD

    def _tunnel(self, packet: Packet, vsid: int, destination: bytes) -> Tunnel | Hold | Drop:
        tables = self.tables
        source = tables.local_pa.get(packet.vsid)
        if source is None:
            return Drop.NO_PROVIDER_ADDRESS
        next_hop = tables.provider_next_hop(destination)
        if next_hop is None:
            return Drop.NO_PROVIDER_ROUTE
        if next_hop not in self._state.neighbors:
            return Hold(next_hop)
        return Tunnel(source, destination, next_hop, vsid, _flow_id(packet.frame))

    def _by_mac(self, packet: Packet) -> Verdict:
        """VSID 0 is not virtualised: plain layer 2, to a local VSID-0 port or the cable."""
        destination = bytes(packet.frame[:6])
        if destination[0] & MULTICAST_BIT:
            packet.ports = tuple(port for port in self._state.ports_of(0) if port is not packet.source)
            packet.to_wire = True
        elif port := self._state.port_with_mac(0, destination):
            packet.ports = (port,)
        else:
            packet.to_wire = True
        return None

    def _outside(self, packet: Packet) -> Verdict:
        destination = bytes(packet.frame[:6])
        if destination[0] & MULTICAST_BIT:
            packet.ports = self._state.ports_of(0)
        elif port := self._state.port_with_mac(0, destination):
            packet.ports = (port,)
        if packet.ports:
            return None
        # ARP of the PA network: the control process reads it from a socket of its own
        arp = ethernet.ethertype(packet.frame) == ethernet.TYPE_ARP
        return Drop.NEIGHBOR_CONSUMED if arp else Drop.NOT_NVGRE


def _is_gre(frame: Buffer) -> bool:
    ipv4 = ethernet.ethertype(frame) == ethernet.TYPE_IPV4 and len(frame) >= 34
    return ipv4 and frame[23] == nvgre.PROTOCOL_GRE


def _flow_id(frame: Buffer) -> int:
    """8 bits of entropy, constant per inner flow (RFC 7637 section 3.2).

    From the addresses and, for TCP and UDP that are not fragments, the ports.
    """
    if frame[12:14] == b"\x08\x00":
        ported = frame[23] in (6, 17) and frame[14] == 0x45 and not (frame[20] << 8 | frame[21]) & 0x3FFF
        return zlib.crc32(frame[26 : 38 if ported else 34], frame[23]) & 0xFF
    if frame[12:14] == b"\x86\xdd":
        return zlib.crc32(frame[22 : 58 if frame[20] in (6, 17) else 54], frame[20]) & 0xFF
    return 0
