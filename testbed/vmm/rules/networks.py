"""VM networks and their subnets; a subnet brings its pools, gateways' records and on-link routes."""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Iterator

from testbed.topology.naming import assign_macs, canonical_rdid
from testbed.topology.plan import NOWHERE, CustomerRoute, LookupRecord
from testbed.vmm.model import AddressRange, Network, NewNetwork, NewSubnet, Subnet
from testbed.vmm.refusals import Conflict, Malformed, Missing, Unusable
from testbed.vmm.rules import policy, pools
from testbed.vmm.rules.addresses import Prefix, parse_address, parse_prefix, unicast_mac, within
from testbed.vmm.store.database import Reader, Transaction
from testbed.vmm.store.tables import (
    CUSTOMER_ROUTES,
    LOOKUP_RECORDS,
    NETWORKS,
    POOLS,
    PORTS,
    PROVIDER_ADDRESSES,
    SUBNETS,
)
from testbed.wnv.objects import FIRST_VSID, LAST_VSID

# CA and MAC of the records that stand for all broadcast and multicast of a family
_GROUPS = (("255.255.255.255", "ff:ff:ff:ff:ff:ff"), ("ff02::1", "33:33:00:00:00:01"))


def network_of(reader: Reader, rdid: str) -> Network:
    """The network with an RDID, in braces or not."""
    if network := reader.get(NETWORKS, canonical_rdid(rdid)):
        return network
    raise Missing(f"there is no network {rdid}", "use an rdid that GET /v1/networks lists")


def existing_subnet(reader: Reader, vsid: int) -> Subnet:
    """The subnet that a path names."""
    if subnet := reader.get(SUBNETS, vsid):
        return subnet
    raise Missing(f"there is no subnet with VSID {vsid}", "use a VSID that GET /v1/subnets lists")


def add_network(tx: Transaction, order: NewNetwork) -> Network:
    """A new network without subnets."""
    rdid = canonical_rdid(order.rdid or str(uuid.uuid4()))
    if tx.get(NETWORKS, rdid):
        raise Conflict(f"there is a network {rdid} already", "choose another rdid")
    if tx.exists(NETWORKS, name=order.name):
        raise Conflict(f"there is a network called {order.name} already", "choose another name")
    network = Network(rdid, order.name)
    tx.put(NETWORKS, network)
    tx.event("network", order.name, change="added", rdid=rdid)
    return network


def remove_network(tx: Transaction, rdid: str) -> None:
    """Remove a network that has no subnets."""
    network = network_of(tx, rdid)
    if tx.exists(SUBNETS, rdid=network.rdid):
        raise Conflict(f"network {network.name} has subnets", "remove them first")
    tx.delete(NETWORKS, network)
    tx.event("network", network.name, change="removed", rdid=network.rdid)


def add_subnet(tx: Transaction, order: NewSubnet) -> Subnet:
    """A new subnet with its pools, its gateways' records, its groups' records and on-link routes."""
    place = f"subnet {order.vsid}"
    if not FIRST_VSID <= order.vsid <= LAST_VSID:
        raise Unusable(f"{place}: the VSID is reserved", f"choose one from {FIRST_VSID} to {LAST_VSID}")
    rdid = canonical_rdid(order.rdid)
    if not tx.get(NETWORKS, rdid):
        raise Unusable(f"{place}: there is no network {rdid}", "add it first (POST /v1/networks)")
    if tx.get(SUBNETS, order.vsid):
        raise Conflict(f"{place}: it is there already", "choose another VSID")
    prefixes = _prefixes(tx, place, rdid, order.prefixes)
    subnet = Subnet(
        vsid=order.vsid,
        rdid=rdid,
        prefixes=tuple(map(str, prefixes)),
        gateways=_gateways(place, prefixes, order.gateways),
        gateway_mac=unicast_mac(place, order.gateway_mac or _gateway_mac(order.vsid)),
        multicast=_group(tx, place, order.multicast),
    )
    tx.put(SUBNETS, subnet)
    _make_pools(tx, subnet, prefixes, order.ranges)
    for record in _records(tx, subnet):
        policy.put_record(tx, record)
    for prefix in prefixes:
        route = CustomerRoute(rdid, subnet.vsid, str(prefix), policy.UNSPECIFIED[prefix.version])
        policy.put_customer_route(tx, route)
    tx.event("subnet", str(subnet.vsid), change="added", rdid=rdid)
    return subnet


def remove_subnet(tx: Transaction, vsid: int) -> None:
    """Remove a subnet that has no adapters, with all its policy and pools."""
    subnet = existing_subnet(tx, vsid)
    if tx.exists(PORTS, vsid=vsid):
        raise Conflict(f"subnet {vsid} has adapters", "remove the VMs first")
    for record in tx.select(LOOKUP_RECORDS, virtual_subnet_id=vsid):
        policy.drop_record(tx, record)
    for route in tx.select(CUSTOMER_ROUTES, virtual_subnet_id=vsid):
        policy.drop_customer_route(tx, route)
    for item in tx.select(PROVIDER_ADDRESSES, virtual_subnet_id=vsid):
        policy.drop_provider_address(tx, item)
    for pool in tx.select(POOLS, vsid=vsid):
        pools.drop(tx, pool)
    tx.delete(SUBNETS, subnet)
    tx.event("subnet", str(vsid), change="removed", rdid=subnet.rdid)


def _prefixes(reader: Reader, place: str, rdid: str, texts: tuple[str, ...]) -> list[Prefix]:
    prefixes = [parse_prefix(f"{place}: prefixes", text) for text in texts]
    if len({prefix.version for prefix in prefixes}) != len(prefixes):
        raise Unusable(f"{place}: it has two prefixes of one family", "make two subnets")
    for prefix in prefixes:
        if prefix.is_multicast or prefix.is_loopback or prefix.is_link_local:
            raise Unusable(f"{place}: {prefix} has no addresses of VMs", "give a unicast prefix")
        for other in reader.select(SUBNETS, rdid=rdid):
            for there in map(ipaddress.ip_network, other.prefixes):
                if prefix.version == there.version and prefix.overlaps(there):
                    raise Conflict(
                        f"{place}: {prefix} overlaps {there} of subnet {other.vsid}",
                        "subnets of one network don't overlap: choose another prefix",
                    )
    return prefixes


def _gateways(place: str, prefixes: list[Prefix], given: tuple[str, ...]) -> tuple[str, ...]:
    chosen = {}
    for text in given:
        address = parse_address(f"{place}: gateways", text)
        within(f"{place}: gateways", address, tuple(map(str, prefixes)))
        if address.version in chosen:
            raise Unusable(f"{place}: it has two gateways of one family", "give one for each prefix")
        chosen[address.version] = str(address)
    return tuple(
        chosen.get(prefix.version, str(prefix[1])) for prefix in prefixes if prefix.num_addresses > 1
    )


def _gateway_mac(vsid: int) -> str:
    identity = f"gateway/{vsid}"
    return assign_macs([identity], ())[identity]


def _group(reader: Reader, place: str, text: str) -> str:
    if not text:
        return ""
    group = parse_address(f"{place}: multicast", text)
    if not group.is_multicast:
        raise Unusable(f"{place}: {group} is no PA group", "give a multicast address of the PA network")
    if group.version != pools.pa_version(reader):
        raise Unusable(f"{place}: {group} is not of the PA network's family", "give one that is")
    return str(group)


def _make_pools(
    tx: Transaction, subnet: Subnet, prefixes: list[Prefix], ranges: tuple[AddressRange, ...]
) -> None:
    parts: dict[int, AddressRange] = {}
    for part in ranges:
        version = parse_address(f"subnet {subnet.vsid}: ranges", part.first).version
        if version in parts or version not in {prefix.version for prefix in prefixes}:
            raise Malformed(f"subnet {subnet.vsid}: ranges", "give at most one for each prefix")
        parts[version] = part
    for prefix in prefixes:
        version = prefix.version
        name = pools.ca_pool_name(subnet.vsid, version)
        pool = pools.make_pool(tx, name, "ca", subnet.vsid, prefix, parts.get(version))
        for gateway in subnet.gateways:
            if ipaddress.ip_address(gateway).version == version:
                pools.mark(tx, pool, gateway, "reserved", pools.GATEWAY)


def _records(reader: Reader, subnet: Subnet) -> Iterator[LookupRecord]:
    nowhere = NOWHERE[pools.pa_version(reader)]
    for gateway in subnet.gateways:
        yield LookupRecord(gateway, subnet.vsid, subnet.gateway_mac, nowhere)
    for address, mac in _GROUPS if subnet.multicast else ():
        yield LookupRecord(address, subnet.vsid, mac, subnet.multicast)
