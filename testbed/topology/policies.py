"""The network policy of a lab, made from its networks and VMs, and the part of it that each host gets."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from testbed.topology.plan import (
    NOWHERE,
    CustomerRoute,
    HostPolicy,
    LookupRecord,
    NetworkPlan,
    ProviderAddress,
    SubnetPlan,
    VmPlan,
    VnicPlan,
)

Pas = dict[tuple[str, int], str]  # PA by host and VSID
_UNSPECIFIED = {4: "0.0.0.0", 6: "::"}
_EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}
# CA and MAC of the records that stand for all broadcast and multicast of a family
_GROUPS = (("255.255.255.255", "ff:ff:ff:ff:ff:ff"), ("ff02::1", "33:33:00:00:00:01"))


class Policies:
    """The network policy of the whole lab, of which each host gets the part it needs."""

    def __init__(
        self,
        networks: tuple[NetworkPlan, ...],
        vms: tuple[VmPlan, ...],
        pas: Pas,
        pool: ipaddress.IPv4Network | ipaddress.IPv6Network,
    ) -> None:
        self._pas = pas
        self._pool = pool
        self._networks = networks
        self._records: dict[int, list[LookupRecord]] = {}  # of VMs, by VSID
        self._ways_out: dict[int, list[str]] = {}  # CAs of gateway VMs, by VSID
        subnets = {subnet.vsid: subnet for network in networks for subnet in network.subnets}
        for vm in vms:
            for vnic in vm.vnics:
                if vnic.vsid:
                    records = _vm_records(vm, vnic, subnets[vnic.vsid], pas[vm.host, vnic.vsid])
                    self._records.setdefault(vnic.vsid, []).extend(records)
                if vnic.is_gateway:
                    self._ways_out.setdefault(vnic.vsid, []).extend(_bare(vnic.addresses))

    def host(self, name: str) -> HostPolicy:
        """The policy of one host: that of every routing domain of which it has a VM."""
        own = {vsid: pa for (host, vsid), pa in sorted(self._pas.items()) if host == name}
        records: list[LookupRecord] = []
        routes: list[CustomerRoute] = []
        for network in self._networks:
            if not any(subnet.vsid in own for subnet in network.subnets):
                continue
            for subnet in network.subnets:
                records += self._gateways(subnet)
                records += self._groups(subnet)
                records += self._records.get(subnet.vsid, [])
                routes += _on_link(network.rdid, subnet)
                routes += self._default_routes(network.rdid, subnet.vsid)
        return HostPolicy(
            lookup_records=tuple(sorted(records, key=_record_order)),
            customer_routes=tuple(routes),
            provider_addresses=tuple(
                ProviderAddress(pa, self._pool.prefixlen, vsid) for vsid, pa in own.items()
            ),
        )

    def _gateways(self, subnet: SubnetPlan) -> Iterator[LookupRecord]:
        for gateway in subnet.gateways:
            yield LookupRecord(gateway, subnet.vsid, subnet.gateway_mac, NOWHERE[self._pool.version])

    @staticmethod
    def _groups(subnet: SubnetPlan) -> Iterator[LookupRecord]:
        for address, mac in _GROUPS if subnet.multicast else ():
            yield LookupRecord(address, subnet.vsid, mac, subnet.multicast)

    def _default_routes(self, rdid: str, vsid: int) -> Iterator[CustomerRoute]:
        for address in self._ways_out.get(vsid, []):
            yield CustomerRoute(rdid, vsid, _EVERYTHING[ipaddress.ip_address(address).version], address)


def _vm_records(vm: VmPlan, vnic: VnicPlan, subnet: SubnetPlan, pa: str) -> Iterator[LookupRecord]:
    """Static for known addresses; L2Only, for each family of the subnet, where there are none."""
    for address in _bare(vnic.addresses):
        yield LookupRecord(address, vnic.vsid, vnic.mac, pa, vm.name)
    versions = {ipaddress.ip_network(prefix).version for prefix in subnet.prefixes}
    for version in sorted(versions):
        if not vnic.addresses:
            yield LookupRecord(_UNSPECIFIED[version], vnic.vsid, vnic.mac, pa, vm.name, type="L2Only")
        elif vnic.is_gateway:
            yield LookupRecord(
                _UNSPECIFIED[version], vnic.vsid, vnic.mac, pa, vm.name, type="GatewayWildcard"
            )


def _bare(addresses: tuple[str, ...]) -> Iterator[str]:
    return (address.partition("/")[0] for address in addresses)


def _record_order(record: LookupRecord) -> tuple[int, int, bytes, str]:
    """By VSID and address, so that the order of VMs in the file makes no difference."""
    address = ipaddress.ip_address(record.customer_address)
    return record.virtual_subnet_id, address.version, address.packed, record.mac_address


def _on_link(rdid: str, subnet: SubnetPlan) -> Iterator[CustomerRoute]:
    for prefix in subnet.prefixes:
        yield CustomerRoute(rdid, subnet.vsid, prefix, _UNSPECIFIED[ipaddress.ip_network(prefix).version])
