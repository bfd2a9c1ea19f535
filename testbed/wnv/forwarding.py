"""Where a VM's packet goes: a port of this host, or the PA network. The same for every mode of the filter.

By destination CA alone: customer route, lookup record, then a port of this host or a PA next hop
(hnv.md section 6.1). The inner destination MAC becomes the record's. A packet between two virtual
subnets of a routing domain leaves with the VSID of its destination, never into another routing domain.

Chosen, as nobody has measured it: the TTL stays as it is, inside a subnet and across.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from testbed.packets.checksum import Buffer
from testbed.switch.drops import Drop
from testbed.switch.packet import Hold, Packet, Tunnel, Verdict
from testbed.switch.pipeline import WNV
from testbed.switch.state import SwitchState
from testbed.switch.switching import GROUP_BIT, other_ports
from testbed.topology.plan import HostPolicy
from testbed.wnv import translation
from testbed.wnv.routes import Route
from testbed.wnv.tables import Record, Tables, is_link_local, is_multicast

_BROADCAST_MAC = b"\xff" * 6


class NextHop(NamedTuple):
    """The CA to which a packet goes next, in its own subnet or another, where that is, and by which route."""

    address: bytes
    record: Record
    route: Route


def find_next_hop(tables: Tables, vsid: int, destination: bytes) -> NextHop | Drop:
    """Route and record for a CA: of the best prefix's routes the usable one with the lowest metric.

    A route is usable when there is a record of its next hop (of the destination itself, if on-link). A
    link-local destination is never routed (RFC 3927 section 7, RFC 4291 section 2.5.6).
    """
    routes = tables.customer_routes(vsid, destination)
    for route in routes:
        if route.next_hop and is_link_local(destination):
            continue
        address = route.next_hop or destination
        record = tables.records.get((route.vsid, address))
        if record is not None and not (route.next_hop and record.gateway):
            return NextHop(address, record, route)
    return Drop.NO_LOOKUP_RECORD if routes else Drop.NO_CUSTOMER_ROUTE


class Forwarding:
    """Gives packets their destinations. ``tables``: the policy. ``flow_entropy`` False: FlowID 0."""

    def __init__(self, state: SwitchState, *, flow_entropy: bool) -> None:
        self._state = state
        self._flow_entropy = flow_entropy
        self.tables = Tables(HostPolicy(), frozenset())

    def name_gateway(self, packet: Packet, size: int) -> None:
        """Say who tells the VM that a packet is too big: the default gateway of its family."""
        address = self.tables.gateway(packet.vsid, size)
        if address is not None:
            packet.gateway = self.tables.records[packet.vsid, address].mac, address

    def unicast(self, packet: Packet, destination: bytes) -> Verdict:
        """To one CA, routed where needed.

        One without a record goes to the VM that the frame's MAC names, if it is link-local (no record
        names those, and guests probe their neighbors from them), or if that VM has an L2Only record, so
        that a DHCP server reaches its client (both chosen).
        """
        found = find_next_hop(self.tables, packet.vsid, destination)
        if isinstance(found, NextHop):
            return self._to_record(packet, found.record)
        learner = self._named_by_mac(packet, destination)
        return found if learner is None else self._to_record(packet, learner)

    def inside(self, packet: Packet, destination: bytes) -> Verdict:
        """To one CA, but not out of the subnet: for ARP and ND."""
        record = self.tables.records.get((packet.vsid, destination)) or self._named_by_mac(
            packet, destination
        )
        return Drop.NO_LOOKUP_RECORD if record is None else self._to_record(packet, record)

    def flood(self, packet: Packet, destination: bytes) -> Verdict:
        """To all of the VSID: to the PA group of the CA group ``destination``, if it has one.

        Else source replication: one copy per remote host with VMs of the VSID (RFC 7637 section 4.2).
        A host that can't be reached holds up its own copy only.
        """
        packet.macs = _group_mac(packet.frame, destination, self._state) + bytes(packet.frame[6:12])
        if packet.only is None:
            packet.ports = other_ports(self._state, packet)
        group = self.tables.group(packet.vsid, destination)
        targets = (group,) if group else self.tables.remote_pas(packet.vsid)
        copies = [self._tunnel(packet, packet.vsid, pa) for pa in targets]
        tunnels = [copy for copy in copies if isinstance(copy, Tunnel)]
        losses = [copy for copy in copies if isinstance(copy, Drop)]
        if packet.only is None:
            packet.tunnels = tuple(tunnels)
            packet.waiting = tuple(copy.next_hop for copy in copies if isinstance(copy, Hold))
            packet.lost = tuple((WNV, reason) for reason in losses)
        else:
            packet.tunnels = tuple(tunnel for tunnel in tunnels if tunnel.next_hop == packet.only)
        if packet.ports or packet.tunnels or packet.waiting or packet.lost:
            return None
        return losses[0] if losses else Drop.NO_LOOKUP_RECORD

    def _named_by_mac(self, packet: Packet, destination: bytes) -> Record | None:
        mac = bytes(packet.frame[:6])
        if is_link_local(destination):
            return self.tables.machine(packet.vsid, mac)
        return self.tables.learners.get((packet.vsid, mac, len(destination)))

    def _to_record(self, packet: Packet, record: Record) -> Verdict:
        if record.gateway:
            return Drop.GATEWAY_ADDRESS
        packet.macs = record.mac + self._source_mac(packet, record)
        if record.pa in self.tables.own_pas:
            port = self._state.port_with_mac(record.vsid, record.mac)
            packet.ports = (port,) if port else ()
            return None if port else Drop.NO_PORT
        if not record.encapsulated:
            return translation.to_outside(self._state, self.tables, packet, record)
        tunnel = self._tunnel(packet, record.vsid, record.pa)
        if not isinstance(tunnel, Tunnel):
            return tunnel
        packet.tunnels = (tunnel,)
        return None

    def _source_mac(self, packet: Packet, record: Record) -> bytes:
        """Unchanged inside a subnet; a routed packet comes from the gateway of its new subnet."""
        own = bytes(packet.frame[6:12])
        if record.vsid == packet.vsid:
            return own
        return self.tables.gateway_mac(record.vsid, len(record.address)) or own

    def _tunnel(self, packet: Packet, vsid: int, destination: bytes) -> Tunnel | Hold | Drop:
        tables = self.tables
        source = tables.local_pa.get((packet.vsid, len(destination)))
        if source is None:
            return Drop.NO_PROVIDER_ADDRESS
        next_hop = destination if is_multicast(destination) else tables.provider_next_hop(destination)
        if next_hop is None:
            return Drop.NO_PROVIDER_ROUTE
        if self._state.neighbor(next_hop) is None:
            return Hold(next_hop)
        flow_id = flow_id_of(packet.frame) if self._flow_entropy else 0
        return Tunnel(source, destination, next_hop, vsid, flow_id)


def flow_id_of(frame: Buffer) -> int:
    """8 bits of entropy, constant per inner flow (RFC 7637 section 3.2).

    From the addresses and, for TCP and UDP that are not fragments, the ports.
    """
    if frame[12:14] == b"\x08\x00":
        ported = frame[23] in (6, 17) and frame[14] == 0x45 and not (frame[20] << 8 | frame[21]) & 0x3FFF
        return zlib.crc32(frame[26 : 38 if ported else 34], frame[23]) & 0xFF
    if frame[12:14] == b"\x86\xdd":
        return zlib.crc32(frame[22 : 58 if frame[20] in (6, 17) else 54], frame[20]) & 0xFF
    return 0


def _group_mac(frame: Buffer, destination: bytes, state: SwitchState) -> bytes:
    """The frame's own, or that of the CA group when the VM has sent to a single MAC."""
    if frame[0] & GROUP_BIT:
        return bytes(frame[:6])
    return state.neighbor(destination) or _BROADCAST_MAC
