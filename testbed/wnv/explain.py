"""What the WNV filter had before it when it decided on a packet: routes, records, addresses. Changes nothing.

Everything here is plain data, addresses as text.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from testbed.packets import arp, ethernet, ndp
from testbed.packets.ethernet import format_mac
from testbed.packets.malformed import MalformedFrame
from testbed.switch.packet import Hold, Packet, Reply, Tunnel, Verdict
from testbed.switch.state import SwitchState
from testbed.switch.switching import GROUP_BIT
from testbed.wnv.forwarding import NextHop, find_next_hop
from testbed.wnv.tables import EVERYONE, Record, Tables, is_multicast
from testbed.wnv.translation import ip_addresses

Details = dict[str, Any]
UNRESOLVED = "unresolved"
_ND = (ndp.NEIGHBOR_SOLICITATION, ndp.NEIGHBOR_ADVERTISEMENT)


def outbound(state: SwitchState, tables: Tables, packet: Packet, verdict: Verdict) -> Details:
    """Of a VM's packet that the filter has seen."""
    if packet.vsid == 0:
        return {"vsid": 0, "switched": "by MAC, outside virtual subnets"}
    found: Details = {"vsid": packet.vsid, "routing_domain": tables.rdid_of.get(packet.vsid, "none")}
    try:
        found |= _question(tables, packet, verdict)
        if "asks_for" not in found:
            found |= _destination(tables, packet)
    except MalformedFrame as error:
        return {**found, "malformed": str(error)}
    if packet.tunnels:
        found["tunnels"] = [_tunnel(state, tables, packet, tunnel) for tunnel in packet.tunnels]
    waiting = [*packet.waiting, *([verdict.next_hop] if isinstance(verdict, Hold) else [])]
    if waiting:
        found["would_wait_for"] = [_hop(state, tables, packet, hop) for hop in waiting]
    if (turned := packet.translation) is not None and turned.next_hop is not None:
        found["translation"] = {"source": _text(turned.source), "destination": _text(turned.destination)}
        found |= _hop(state, tables, packet, turned.next_hop)
    if packet.macs and packet.macs != bytes(packet.frame[:12]):
        found["rewrite"] = _rewrite(packet)
    return found


def inbound(tables: Tables, packet: Packet) -> Details:
    """Of a frame from the wire."""
    outer = packet.outer
    if outer is None:
        found: Details = {"nvgre": False}
        if (turned := packet.translation) is not None:
            found["translation"] = {"source": _text(turned.source), "destination": _text(turned.destination)}
        return found
    return {
        "vsid": outer.vsid,
        "routing_domain": tables.rdid_of.get(outer.vsid, "none"),
        "provider_address": _text(outer.destination_pa),
        "is_local": outer.destination_pa in tables.local_pas,
        "is_group": tables.is_group(outer.vsid, outer.destination_pa),
        "sender": _text(outer.source_pa),
        "sender_is_known": tables.knows_sender(outer.vsid, outer.source_pa),
        "inner_destination_mac": format_mac(packet.frame[outer.header : outer.header + 6]),
    }


def _question(tables: Tables, packet: Packet, verdict: Verdict) -> Details:
    """Of ARP and Neighbor Discovery: whom it is about, and with which MAC it is answered."""
    kind = ethernet.ethertype(packet.frame)
    if kind == ethernet.TYPE_ARP:
        message = arp.parse(packet.frame)
        protocol, target = "ARP", message.target_ip
    elif kind == ethernet.TYPE_IPV6 and ndp.icmpv6_type(packet.frame) in _ND:
        protocol, target = "Neighbor Discovery", ndp.parse(packet.frame).target
    else:
        return {}
    record = tables.records.get((packet.vsid, target))
    found: Details = {"protocol": protocol, "asks_for": _text(target)}
    if record is not None:
        found["record"] = _record(record)
    if isinstance(verdict, Reply) and record is not None:
        found["answered_with"] = format_mac(record.mac)
        found["answered_for"] = "the default gateway" if record.gateway else "the record's VM"
    return found | _flooded(tables, packet, EVERYONE[len(target)])


def _destination(tables: Tables, packet: Packet) -> Details:
    """Of other packets: the group, or route and record."""
    _, destination = ip_addresses(packet.frame)
    if not destination:
        return {}
    if packet.frame[0] & GROUP_BIT or is_multicast(destination) or destination == EVERYONE[4]:
        return {"destination": _text(destination), **_flooded(tables, packet, destination)}
    found: Details = {"destination": _text(destination)}
    if routes := tables.customer_routes(packet.vsid, destination):
        route, prefix = routes[0], tables.customer_prefix(packet.vsid, destination)
        next_hop = find_next_hop(tables, packet.vsid, destination)
        if isinstance(next_hop, NextHop):
            route = next_hop.route
            found["record"] = _record(next_hop.record)
        found["route"] = {
            "prefix": prefix,
            "metric": route.metric,
            "next_hop": _text(route.next_hop) if route.next_hop else "on-link",
            "vsid": route.vsid,
        }
    if "record" not in found:
        key = packet.vsid, bytes(packet.frame[:6]), len(destination)
        if (learner := tables.learners.get(key)) is not None:
            found["record"] = {**_record(learner), "found_by": "the destination MAC"}
    return found


def _flooded(tables: Tables, packet: Packet, group: bytes) -> Details:
    several = bool(packet.ports) + len(packet.tunnels) + len(packet.waiting)
    if not several or not packet.macs or not packet.macs[0] & GROUP_BIT:
        return {}
    pa = tables.group(packet.vsid, group)
    return {"flooded": f"to the PA group {_text(pa)}" if pa else "source replication, one copy to each host"}


def _tunnel(state: SwitchState, tables: Tables, packet: Packet, tunnel: Tunnel) -> Details:
    return {
        "source_pa": _text(tunnel.source_pa),
        "destination_pa": _text(tunnel.destination_pa),
        "vsid": tunnel.vsid,
        "flow_id": tunnel.flow_id,
        **_hop(state, tables, packet, tunnel.next_hop, tunnel.destination_pa),
    }


def _hop(
    state: SwitchState, tables: Tables, packet: Packet, next_hop: bytes, destination: bytes = b""
) -> Details:
    neighbor = state.neighbor(next_hop)
    found: Details = {
        "provider_route": tables.provider_prefix(destination or next_hop) or "none (a group)",
        "next_hop": _text(next_hop),
        "next_hop_mac": UNRESOLVED if neighbor is None else format_mac(neighbor),
    }
    if neighbor is None and (source := tables.local_pa.get((packet.vsid, len(next_hop)))):
        found["source_pa"] = _text(source)
    return found


def _record(record: Record) -> Details:
    return {
        "customer_address": _text(record.address),
        "virtual_subnet_id": record.vsid,
        "mac_address": format_mac(record.mac),
        "provider_address": _text(record.pa),
        "rule": record.rule,
        "gateway": record.gateway,
    }


def _rewrite(packet: Packet) -> Details:
    old = bytes(packet.frame[:12])
    names = (("destination_mac", slice(0, 6)), ("source_mac", slice(6, 12)))
    return {name: format_mac(packet.macs[at]) for name, at in names if packet.macs[at] != old[at]}


def _text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))
