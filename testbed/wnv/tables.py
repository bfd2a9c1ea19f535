"""The network policy as look-up tables, built once per policy change and never modified."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from testbed.packets.ethernet import parse_mac
from testbed.topology.plan import HostPolicy


class Record(NamedTuple):
    """A lookup record: where a customer address lives. gateway: it is a subnet's default gateway."""

    vsid: int
    mac: bytes
    pa: bytes
    gateway: bool


class Route(NamedTuple):
    """A route; network and mask are integers of ``size`` bytes. next_hop None: on-link."""

    size: int
    network: int
    mask: int
    metric: int
    vsid: int
    next_hop: bytes | None


class Tables:
    """Immutable after construction. Addresses are bytes in network order everywhere."""

    def __init__(self, policy: HostPolicy, preferred: frozenset[str]) -> None:
        """``preferred``: the PAs of this host that have passed duplicate address detection."""
        self.records = _records(policy)
        self.rdid_of = {route.virtual_subnet_id: route.routing_domain_id for route in policy.customer_routes}
        self._routes = _customer_routes(policy)
        self._provider_routes = _provider_routes(policy)
        self.local_pa: dict[int, bytes] = {}
        self.local_pas: set[bytes] = set()
        self.own_pas: set[bytes] = set()  # usable or not: what is behind them is on this host
        for address in policy.provider_addresses:
            packed = ipaddress.ip_address(address.provider_address).packed
            self.own_pas.add(packed)
            if address.provider_address in preferred:
                self.local_pa[address.virtual_subnet_id] = packed
                self.local_pas.add(packed)
        self.gateway_macs = {record.vsid: record.mac for record in self.records.values() if record.gateway}
        self.remote_pas = self._remote_pas()
        self._known_pas: dict[str, set[bytes]] = {}
        for record in self.records.values():
            if rdid := self.rdid_of.get(record.vsid):
                self._known_pas.setdefault(rdid, set()).add(record.pa)

    def customer_route(self, vsid: int, address: bytes) -> Route | None:
        """The best customer route of the VSID's routing domain: longest prefix, then lowest metric."""
        return _best(self._routes.get(self.rdid_of.get(vsid, ""), ()), address)

    def provider_next_hop(self, pa: bytes) -> bytes | None:
        """The PA to which a packet for ``pa`` goes on the PA network, or None without a route."""
        route = _best(self._provider_routes, pa)
        return None if route is None else route.next_hop or pa

    def knows_sender(self, vsid: int, pa: bytes) -> bool:
        """Whether some record of the VSID's routing domain has this PA."""
        return pa in self._known_pas.get(self.rdid_of.get(vsid, ""), ())

    def _remote_pas(self) -> dict[int, tuple[bytes, ...]]:
        found: dict[int, set[bytes]] = {}
        for record in self.records.values():
            if not record.gateway and record.pa not in self.own_pas:
                found.setdefault(record.vsid, set()).add(record.pa)
        return {vsid: tuple(sorted(pas)) for vsid, pas in found.items()}


def _records(policy: HostPolicy) -> dict[tuple[int, bytes], Record]:
    records = {}
    for record in policy.lookup_records:
        address = ipaddress.ip_address(record.customer_address).packed
        pa = ipaddress.ip_address(record.provider_address).packed
        vsid = record.virtual_subnet_id
        records[vsid, address] = Record(vsid, parse_mac(record.mac_address), pa, not record.vm_name)
    return records


def _customer_routes(policy: HostPolicy) -> dict[str, tuple[Route, ...]]:
    by_domain: dict[str, list[Route]] = {}
    for route in policy.customer_routes:
        by_domain.setdefault(route.routing_domain_id, []).append(
            _route(route.destination_prefix, route.next_hop, route.metric, route.virtual_subnet_id)
        )
    return {rdid: _in_order(routes) for rdid, routes in by_domain.items()}


def _provider_routes(policy: HostPolicy) -> tuple[Route, ...]:
    routes = [
        _route(route.destination_prefix, route.next_hop, route.metric) for route in policy.provider_routes
    ]
    for address in policy.provider_addresses:
        prefix = ipaddress.ip_interface(f"{address.provider_address}/{address.prefix_length}").network
        routes.append(_route(str(prefix), "0.0.0.0" if prefix.version == 4 else "::", 0))
    return _in_order(routes)


def _route(prefix: str, next_hop: str, metric: int, vsid: int = 0) -> Route:
    network = ipaddress.ip_network(prefix)
    hop = ipaddress.ip_address(next_hop)
    return Route(
        network.max_prefixlen // 8,
        int(network.network_address),
        int(network.netmask),
        metric,
        vsid,
        None if hop.is_unspecified else hop.packed,
    )


def _in_order(routes: list[Route]) -> tuple[Route, ...]:
    """Best first; equal ones stay in the policy's order, which is the same on every host."""
    return tuple(sorted(dict.fromkeys(routes), key=lambda route: (-route.mask, route.metric)))


def _best(routes: tuple[Route, ...], address: bytes) -> Route | None:
    value, size = int.from_bytes(address, "big"), len(address)
    for route in routes:
        if route.size == size and value & route.mask == route.network:
            return route
    return None
