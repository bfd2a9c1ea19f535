"""Checks on VSIDs, prefixes, addresses and MACs of a topology, and on its provider address pool."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from testbed.topology.naming import MIN_IPV6_MTU, NVGRE_OVERHEAD, canonical_mac, network_rdid
from testbed.topology.problems import Path, Problems
from testbed.topology.schema import Network, Subnet, Topology, Vnic

Prefix = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


class KnownSubnet(NamedTuple):
    """The good prefixes of a subnet and its gateways by IP version. whole: no prefix was refused."""

    prefixes: list[Prefix]
    gateways: dict[int, Address]
    whole: bool


Subnets = dict[int, KnownSubnet]  # by VSID

LAST_VSID = 0xFFFFFE
_UNUSABLE: list[tuple[Prefix, str]] = [
    (ipaddress.ip_network("0.0.0.0/8"), "the unspecified network"),
    (ipaddress.ip_network("127.0.0.0/8"), "loopback"),
    (ipaddress.ip_network("169.254.0.0/16"), "link-local"),
    (ipaddress.ip_network("224.0.0.0/4"), "multicast"),
    (ipaddress.ip_network("240.0.0.0/4"), "reserved"),
    (ipaddress.ip_network("::/127"), "the unspecified address or loopback"),
    (ipaddress.ip_network("::ffff:0.0.0.0/96"), "IPv4-mapped"),
    (ipaddress.ip_network("fe80::/10"), "link-local"),
    (ipaddress.ip_network("ff00::/8"), "multicast"),
]


def check_addresses(topology: Topology, problems: Problems) -> None:
    """Note what is wrong with the numbers in a topology."""
    subnets = _check_networks(topology, problems)
    _check_macs(topology, problems)
    _check_vnics(topology, subnets, problems)
    _check_pool(topology, problems)
    _check_pa_mtu(topology, subnets, problems)


def _check_networks(topology: Topology, problems: Problems) -> Subnets:
    subnets: Subnets = {}
    rdids: list[tuple[Path, str]] = []
    vsids: list[tuple[Path, str]] = []
    for i, network in enumerate(topology.networks):
        rdids.append((("networks", i, "rdid"), network_rdid(topology.name, network)))
        earlier: list[tuple[Prefix, Path]] = []
        for j, subnet in enumerate(network.subnets):
            here: Path = ("networks", i, "subnets", j)
            if fault := _vsid_fault(subnet.vsid):
                problems.add((*here, "vsid"), fault)
            vsids.append(((*here, "vsid"), str(subnet.vsid)))
            prefixes = _check_prefixes(here, subnet, network, earlier, problems)
            gateways = _check_gateways(here, subnet, prefixes, problems)
            whole = len(prefixes) == len(subnet.prefixes)
            subnets.setdefault(subnet.vsid, KnownSubnet(prefixes, gateways, whole))
    problems.unique(vsids, "is also the VSID of {first}; a VSID names one subnet only, choose another")
    problems.unique(
        rdids, "is also the RDID of {first}; a routing domain is one network, choose another GUID"
    )
    return subnets


def _vsid_fault(vsid: int) -> str:
    """What is wrong with a subnet's VSID, or ""."""
    remedy = f"use 4096 to {LAST_VSID}"
    if vsid == 0:
        return f"VSID 0 means not virtualised and has no subnet; {remedy}"
    if vsid < 0x1000:
        return f"VSID {vsid} is reserved, as are all of 1 to 4095 (RFC 7637 section 3.2); {remedy}"
    if vsid > LAST_VSID:
        return f"VSID {vsid} (0xFFFFFF) is for traffic between endpoints (RFC 7637 section 3.2); {remedy}"
    return ""


def _check_prefixes(
    here: Path, subnet: Subnet, network: Network, earlier: list[tuple[Prefix, Path]], problems: Problems
) -> list[Prefix]:
    """The good prefixes of a subnet; ``earlier`` collects those of the whole network."""
    good: list[Prefix] = []
    for k, text in enumerate(subnet.prefixes):
        path: Path = (*here, "prefixes", k)
        prefix = _prefix(text)
        if isinstance(prefix, str):
            problems.add(path, prefix)
            continue
        if any(other.version == prefix.version for other in good):
            problems.add(path, f"a second IPv{prefix.version} prefix; a subnet has one, make another subnet")
            continue
        for other, place in earlier:
            if isinstance(other, type(prefix)) and other.overlaps(prefix):
                where = f"{other}, {problems.where(place)}"
                problems.add(
                    path, f"{prefix} overlaps {where} in network {network.name}; choose another prefix"
                )
                break
        earlier.append((prefix, path))
        good.append(prefix)
    return good


def _prefix(text: str) -> Prefix | str:
    """The prefix in ``text``, or what is wrong with it."""
    address, slash, length = text.partition("/")
    if not slash or not length.isdecimal() or not length.isascii():
        return f'"{text}" is no prefix; write it with its length, like 10.0.0.0/24'
    try:
        prefix = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return f'"{text}" is no prefix; write it like 10.0.0.0/24 or fd00::/64'
    if ipaddress.ip_address(address) != prefix.network_address:
        return f"{text} has host bits set; write {prefix}"
    if prefix.max_prefixlen - prefix.prefixlen < 2:
        return f"{text} has no room for a gateway and a VM; use /{prefix.max_prefixlen - 2} or shorter"
    for bad, what in _UNUSABLE:
        if isinstance(bad, type(prefix)) and bad.overlaps(prefix):
            return f"{text} overlaps {bad} ({what}); choose another prefix"
    return prefix


def _check_gateways(
    here: Path, subnet: Subnet, prefixes: list[Prefix], problems: Problems
) -> dict[int, Address]:
    """The gateways of a subnet by IP version, given or by default."""
    gateways: dict[int, Address] = {}
    for k, text in enumerate(subnet.gateways):
        path: Path = (*here, "gateways", k)
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            problems.add(path, f'"{text}" is no address; write it like 10.0.0.1, without a length')
            continue
        prefix = next((prefix for prefix in prefixes if address in prefix), None)
        if prefix is None:
            problems.add(path, f"{address} is in no prefix of the subnet; choose one of {_shown(prefixes)}")
        elif address.version in gateways:
            problems.add(path, f"a second IPv{address.version} gateway; a prefix has one, remove it")
        elif fault := _edge(address, prefix):
            problems.add(path, fault)
        else:
            gateways[address.version] = address
    for prefix in prefixes:
        gateways.setdefault(prefix.version, prefix[1])
    return gateways


def _edge(address: Address, prefix: Prefix) -> str:
    """What is wrong with an address at the edge of its prefix, or ""."""
    if address == prefix.network_address:
        what = "network" if prefix.version == 4 else "subnet-router anycast"
        return f"{address} is the {what} address of {prefix}; choose another"
    if prefix.version == 4 and address == prefix.broadcast_address:
        return f"{address} is the broadcast address of {prefix}; choose another"
    return ""


def _shown(prefixes: list[Prefix]) -> str:
    return ", ".join(str(prefix) for prefix in prefixes) or "none"


def _check_macs(topology: Topology, problems: Problems) -> None:
    macs: list[tuple[Path, str | None]] = []
    for i, host in enumerate(topology.hosts):
        macs += [(("hosts", i, "nics", j, "mac"), nic.mac) for j, nic in enumerate(host.nics)]
    for i, vm in enumerate(topology.vms):
        macs += [(("vms", i, "vnics", j, "mac"), vnic.mac) for j, vnic in enumerate(vm.vnics)]
    given = [(path, canonical_mac(mac)) for path, mac in macs if mac is not None]
    for path, mac in given:
        if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
            what = "the zero address" if mac.startswith("00") else "a multicast address"
            problems.add(
                path, f"{mac} is {what}; choose one whose first octet is even, like 02:00:00:00:00:01"
            )
    problems.unique(given, "is also the MAC address of {first}; give each adapter its own, or leave it out")


def _check_vnics(topology: Topology, subnets: Subnets, problems: Problems) -> None:
    used: dict[tuple[int, Address], Path] = {}
    for path, vnic in _vnics(topology):
        if vnic.vsid and vnic.vsid not in subnets:
            if fault := _vsid_fault(vnic.vsid):
                problems.add((*path, "vsid"), fault)
            else:
                problems.unknown((*path, "vsid"), "VSID", str(vnic.vsid), [str(vsid) for vsid in subnets])
            continue
        if vnic.gateway and not (vnic.vsid and vnic.addresses):
            problems.add((*path, "gateway"), "a gateway needs a VSID and addresses; give it both")
        for k, text in enumerate(vnic.addresses):
            here: Path = (*path, "addresses", k)
            address = _plain_address(text, problems, here) if vnic.vsid == 0 else None
            if vnic.vsid:
                address = _customer_address(text, vnic.vsid, subnets, problems, here)
            if address is None:
                continue
            if (vnic.vsid, address) in used:
                where = f"{problems.where(used[vnic.vsid, address])} has it in VSID {vnic.vsid}"
                problems.add(here, f"{address} is taken, {where}; choose another address")
            used.setdefault((vnic.vsid, address), here)


def _vnics(topology: Topology) -> Iterator[tuple[Path, Vnic]]:
    for i, vm in enumerate(topology.vms):
        for j, vnic in enumerate(vm.vnics):
            yield ("vms", i, "vnics", j), vnic


def _customer_address(
    text: str, vsid: int, subnets: Subnets, problems: Problems, path: Path
) -> Address | None:
    """The good CA in ``text``, or None after noting the problem."""
    prefixes, gateways, whole = subnets[vsid]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        remedy = f"write {text.partition('/')[0]}" if "/" in text else "write it like 10.0.0.5"
        what = "has a prefix length, which its subnet decides" if "/" in text else "is no address"
        problems.add(path, f'"{text}" {what}; {remedy}')
        return None
    prefix = next((prefix for prefix in prefixes if address in prefix), None)
    if prefix is None:
        if whole:
            problems.add(path, f"{address} is outside VSID {vsid}; choose one in {_shown(prefixes)}")
        return None
    if fault := _edge(address, prefix):
        problems.add(path, fault)
        return None
    if address == gateways[address.version]:
        problems.add(path, f"{address} is the gateway of VSID {vsid}; choose another address")
        return None
    return address


def _plain_address(text: str, problems: Problems, path: Path) -> Address | None:
    """The good address of an adapter that is not virtualised, or None after noting the problem."""
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        problems.add(path, f'"{text}" is no address; write it like 192.0.2.5/24')
        return None
    if "/" not in text or not text.partition("/")[2].isdecimal():
        length = 24 if interface.version == 4 else 64
        remedy = f"write {interface.ip}/{length}"
        problems.add(path, f"{text} has no prefix length, which an adapter of VSID 0 needs; {remedy}")
        return None
    for bad, what in _UNUSABLE:
        if interface.ip in bad:
            problems.add(path, f"{interface.ip} is {what}; choose another address")
            return None
    network = interface.network
    if network.max_prefixlen - network.prefixlen >= 2 and (fault := _edge(interface.ip, network)):
        problems.add(path, fault)
        return None
    return interface.ip


def _check_pool(topology: Topology, problems: Problems) -> None:
    path: Path = ("fabric", "pa_pool")
    pool = _prefix(topology.fabric.pa_pool)
    if isinstance(pool, str):
        problems.add(path, pool)
        return
    needed = len({(vm.host, vnic.vsid) for vm in topology.vms for vnic in vm.vnics if vnic.vsid})
    free = pool.num_addresses - 2
    _check_groups(topology, pool.version, problems)
    if needed > free:
        length = pool.max_prefixlen - (needed + 1).bit_length()
        reason = f"{needed} are needed, one for each VSID on each host"
        problems.add(path, f"{pool} has {free} addresses, but {reason}; use /{length} or shorter")


def _check_groups(topology: Topology, version: int, problems: Problems) -> None:
    """PA multicast groups must be such, and of the pool's family."""
    example = "239.0.0.1" if version == 4 else "ff15::1"
    for i, network in enumerate(topology.networks):
        for j, subnet in enumerate(network.subnets):
            if subnet.multicast is None:
                continue
            path: Path = ("networks", i, "subnets", j, "multicast")
            try:
                group = ipaddress.ip_address(subnet.multicast)
            except ValueError:
                problems.add(path, f'"{subnet.multicast}" is no address; write it like {example}')
                continue
            if not group.is_multicast:
                problems.add(path, f"{group} is no multicast address; choose one like {example}")
            elif group.version != version:
                problems.add(path, f"{group} is not of pa_pool's address family; choose one like {example}")


def _check_pa_mtu(topology: Topology, subnets: Subnets, problems: Problems) -> None:
    """The kernel turns IPv6 off on a link of less than 1280 bytes (RFC 8200 section 5)."""
    pool = _prefix(topology.fabric.pa_pool)
    if isinstance(pool, str):
        return
    least = MIN_IPV6_MTU + NVGRE_OVERHEAD[pool.version]
    if topology.fabric.pa_mtu >= least:
        return
    customer = any(prefix.version == 6 for subnet in subnets.values() for prefix in subnet.prefixes)
    if customer or pool.version == 6:
        what = f"{topology.fabric.pa_mtu} leaves VMs less than the {MIN_IPV6_MTU} bytes that IPv6 needs"
        problems.add(("fabric", "pa_mtu"), f"{what}; use at least {least}")
