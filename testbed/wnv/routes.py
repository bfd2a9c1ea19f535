"""Routes with one look-up per prefix length, whatever their number; changed one at a time."""

from __future__ import annotations

import bisect
import ipaddress
from typing import NamedTuple


class Route(NamedTuple):
    """A route of some prefix. vsid: 0 in the PA space. next_hop: empty when on-link.

    Routes of one prefix compare as they are preferred: by metric, then in an order that does not
    depend on the order in which they came.
    """

    metric: int
    vsid: int
    next_hop: bytes


class Prefix(NamedTuple):
    """Addresses of ``size`` bytes whose first ``length`` bits are those of the integer ``network``."""

    size: int
    length: int
    network: int


def parse_prefix(text: str) -> Prefix:
    """The prefix "10.0.0.0/24"."""
    network = ipaddress.ip_network(text)
    return Prefix(network.max_prefixlen // 8, network.prefixlen, int(network.network_address))


def make_route(metric: int, next_hop: str, vsid: int = 0) -> Route:
    """A route by its parts as text."""
    hop = ipaddress.ip_address(next_hop)
    return Route(metric, vsid, b"" if hop.is_unspecified else hop.packed)


class RouteTable:
    """Routes by prefix. Equal routes may come several times; each has to go as often."""

    __slots__ = ("_by_length", "_masks")

    def __init__(self) -> None:
        # (size, length) -> network -> routes, best first
        self._by_length: dict[tuple[int, int], dict[int, list[Route]]] = {}
        self._masks: dict[int, list[tuple[int, int]]] = {}  # size -> (length, mask), longest first

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RouteTable) and self._by_length == other._by_length

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(self._by_length)

    def add(self, prefix: Prefix, route: Route) -> None:
        """One more route."""
        size, length, network = prefix
        if (size, length) not in self._by_length:
            self._by_length[size, length] = {}
            self._order(size)
        bisect.insort(self._by_length[size, length].setdefault(network, []), route)

    def remove(self, prefix: Prefix, route: Route) -> None:
        """One route less. Raises ValueError or KeyError when it is not there."""
        size, length, network = prefix
        networks = self._by_length[size, length]
        networks[network].remove(route)
        if not networks[network]:
            del networks[network]
        if not networks:
            del self._by_length[size, length]
            self._order(size)

    def matches(self, address: bytes) -> list[Route]:
        """The routes of the longest prefix that contains the address, best first."""
        size, value = len(address), int.from_bytes(address, "big")
        for length, mask in self._masks.get(size, ()):
            if found := self._by_length[size, length].get(value & mask):
                return found
        return []

    def prefix(self, address: bytes) -> str:
        """The longest prefix that contains the address, as text; "" where there is none."""
        size, value = len(address), int.from_bytes(address, "big")
        for length, mask in self._masks.get(size, ()):
            if value & mask in self._by_length[size, length]:
                network = ipaddress.ip_address((value & mask).to_bytes(size, "big"))
                return f"{network}/{length}"
        return ""

    def _order(self, size: int) -> None:
        lengths = sorted((length for each, length in self._by_length if each == size), reverse=True)
        bits = size * 8
        self._masks[size] = [(length, (1 << bits) - (1 << bits - length)) for length in lengths]
        if not lengths:
            del self._masks[size]
