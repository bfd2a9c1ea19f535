"""A kernel's addresses and neighbors in a running node, as its owner would change them with ``ip``."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute

from testbed.namespaces import in_netns

# linux/neighbour.h
_STATES = {
    0x01: "INCOMPLETE",
    0x02: "REACHABLE",
    0x04: "STALE",
    0x08: "DELAY",
    0x10: "PROBE",
    0x20: "FAILED",
    0x40: "NOARP",
    0x80: "PERMANENT",
}


@contextmanager
def _interface(netns: int, name: str) -> Iterator[tuple[Any, int]]:
    with in_netns(netns), IPRoute() as ip:
        found = ip.link_lookup(ifname=name)
        if not found:
            raise LookupError(f"interface {name} is not there")
        yield ip, found[0]


def _arguments(index: int, address: str) -> dict[str, Any]:
    interface = ipaddress.ip_interface(address)
    return {"index": index, "address": str(interface.ip), "prefixlen": interface.network.prefixlen}


def add_address(netns: int, name: str, address: str) -> None:
    """Give an interface an address ("10.0.0.9/24"); IPv6: the kernel then probes for duplicates."""
    with _interface(netns, name) as (ip, index):
        ip.addr("add", **_arguments(index, address))


def remove_address(netns: int, name: str, address: str) -> None:
    """Take an address away again."""
    with _interface(netns, name) as (ip, index):
        ip.addr("del", **_arguments(index, address))


def mtu(netns: int, name: str) -> int:
    """MTU of an interface in bytes of IP packet."""
    with _interface(netns, name) as (ip, index):
        return int(ip.get_links(index)[0].get("mtu"))


def set_mtu(netns: int, name: str, size: int) -> None:
    """Change the MTU of an interface."""
    with _interface(netns, name) as (ip, index):
        ip.link("set", index=index, mtu=size)


def neighbor(netns: int, name: str, address: str) -> tuple[str, str] | None:
    """(MAC, state) of an entry in the kernel's neighbor table; None when there is none."""
    with _interface(netns, name) as (ip, index):
        for entry in ip.get_neighbours(ifindex=index, family=_family(address)):
            if entry.get("dst") == address:
                return str(entry.get("lladdr") or ""), _STATES.get(entry["state"], hex(entry["state"]))
    return None


def forget_neighbor(netns: int, name: str, address: str) -> None:
    """Remove an entry of the neighbor table, if there is one."""
    if neighbor(netns, name, address) is not None:
        with _interface(netns, name) as (ip, index):
            ip.neigh("del", dst=address, ifindex=index, family=_family(address))


def probe_neighbor(netns: int, name: str, address: str, link_address: str) -> None:
    """Have the kernel ask a neighbor by unicast whether it is still there (state PROBE)."""
    with _interface(netns, name) as (ip, index):
        ip.neigh(
            "replace",
            dst=address,
            lladdr=link_address,
            ifindex=index,
            state="probe",
            family=_family(address),
        )


def _family(address: str) -> int:
    return 10 if ":" in address else 2  # AF_INET6, AF_INET
