"""What a network namespace's kernel says of its interfaces and filters. Changes nothing."""

from __future__ import annotations

import os
from typing import NamedTuple

from pyroute2 import IPRoute, NetlinkError
from pyroute2.nftables.main import NFTables

from testbed.namespaces import in_netns

_IFF_UP = 0x1  # linux/if.h


class Link(NamedTuple):
    """An interface. up: as its owner wants it; carrier: its cable leads to a live end; mac "" where none."""

    up: bool
    carrier: bool
    mtu: int
    mac: str

    @property
    def passes(self) -> bool:
        """Whether anything can pass."""
        return self.up and self.carrier


def links(netns: int) -> dict[str, Link]:
    """All interfaces, by name."""
    with in_netns(netns), IPRoute() as ip:
        return {
            str(link.get("ifname")): Link(
                bool(link["flags"] & _IFF_UP),
                bool(link.get("carrier")),
                int(link.get("mtu")),
                str(link.get("address") or ""),
            )
            for link in ip.get_links()
        }


def filters(netns: int) -> list[str]:
    """Tables of nftables that look at packets (those with base chains), by name.

    Rules of the older iptables interface are not seen.
    """
    try:
        with in_netns(netns), NFTables(nfgen_family=0) as tables:
            chains = list(tables.get_chains())
    except (NetlinkError, OSError):  # a kernel without nftables
        return []
    return sorted({str(each.get("NFTA_CHAIN_TABLE")) for each in chains if each.get("NFTA_CHAIN_HOOK")})


def ignores_echoes(netns: int, version: int) -> bool:
    """Whether the kernel is told to answer no ICMP echo of the family 4 or 6."""
    name = "net/ipv4/icmp_echo_ignore_all" if version == 4 else "net/ipv6/icmp/echo_ignore_all"
    with in_netns(netns):
        try:
            file = os.open(f"/proc/sys/{name}", os.O_RDONLY)
        except OSError:
            return False
        try:
            return os.read(file, 16).strip() != b"0"
        finally:
            os.close(file)
