"""Addresses of a virtual subnet that nobody has."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.testing.lab import LiveLab

_FROM_THE_END = 16


def prefix(lab: LiveLab, vsid: int, version: int) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The first prefix of a virtual subnet of this IP version. Skips the test when there is none."""
    for network in lab.lab.plan.networks:
        for subnet in network.subnets:
            for each in map(ipaddress.ip_network, subnet.prefixes):
                if subnet.vsid == vsid and each.version == version:
                    return each
    lab.require(None, f"no IPv{version} prefix of VSID {vsid}")
    raise AssertionError


def free(lab: LiveLab, vsid: int, version: int, number: int = 0) -> str:
    """An address near the end of the prefix that no VM and no record has; ``number``: which, from 0 to 7.

    Skips the test when there is none.
    """
    found = prefix(lab, vsid, version)
    lab.require(found.num_addresses > 2 * _FROM_THE_END, f"no free addresses in {found}")
    last = found.network_address + (found.num_addresses - 1)
    address = str(last - _FROM_THE_END + number)
    taken = any(address in each.addresses() for each in lab.vms if each.vsid == vsid)
    lab.require(not taken, f"no free address {address}")
    return address
