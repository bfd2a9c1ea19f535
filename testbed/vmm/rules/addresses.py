"""Addresses, prefixes and MACs of orders, in canonical text, or refused with the place they stand at."""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

from testbed.packets.ethernet import format_mac, parse_mac
from testbed.vmm.refusals import Malformed, Unusable

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Prefix: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_address(place: str, text: str) -> Address:
    """An address without a zone."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise Malformed(f"{place}: {text!r} is no IP address", "write it like 10.0.0.5 or fd00::5") from None
    if "%" in text:
        raise Malformed(f"{place}: {text!r} names a zone", "leave out what begins with '%'")
    return address


def parse_prefix(place: str, text: str) -> Prefix:
    """A prefix whose host bits are zero."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        remedy = "write it like 10.0.0.0/24 or fd00::/64"
        raise Malformed(f"{place}: {text!r}: {error}", remedy) from None


def unicast_mac(place: str, text: str) -> str:
    """The MAC of one adapter."""
    try:
        mac = parse_mac(text)
    except ValueError:
        raise Malformed(f"{place}: {text!r} is no MAC address", "write it like 00:15:5d:00:00:01") from None
    if mac[0] & 1 or not any(mac):
        raise Unusable(f"{place}: {text} is not the MAC of one adapter", "give a unicast MAC")
    return format_mac(mac)


def bounds(prefix: Prefix) -> tuple[Address, Address]:
    """The lowest and highest address of a prefix that a machine can have.

    Without the network's and the broadcast address of IPv4, and the anycast address of IPv6's routers
    (RFC 4291 section 2.6.1); prefixes of one or two addresses have neither (RFC 3021, RFC 6164).
    """
    if prefix.num_addresses <= 2:
        return prefix[0], prefix[-1]
    return prefix[1], prefix[-2] if prefix.version == 4 else prefix[-1]


def within(place: str, address: Address, prefixes: tuple[str, ...]) -> Prefix:
    """The prefix in which the address can be a machine's."""
    for prefix in map(ipaddress.ip_network, prefixes):
        if address in prefix:
            low, high = bounds(prefix)
            if low <= address <= high:  # type: ignore[operator]  # of one family: it is in the prefix
                return prefix
            raise Unusable(
                f"{place}: {address} stands for all of {prefix}", f"choose one from {low} to {high}"
            )
    listed = " and ".join(prefixes)
    raise Unusable(f"{place}: {address} is outside the subnet", f"choose an address in {listed}")
