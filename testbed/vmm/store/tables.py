"""The tables: which struct a row holds, its key, and the columns it is found by.

A row is its struct in JSON (``data``) and, beside it, the fields that queries need as columns.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from testbed.topology.plan import CustomerRoute, LookupRecord, Plan
from testbed.vmm import model
from testbed.wnv.objects import outside_address

T = TypeVar("T", bound=Struct)


@dataclass(frozen=True)
class Table(Generic[T]):
    """key and columns are fields of the struct; computed columns are made from it."""

    name: str
    struct: type[T]
    key: tuple[str, ...]
    columns: tuple[str, ...] = ()
    computed: Mapping[str, Callable[[T], Any]] = field(default_factory=dict)

    @cached_property
    def decode(self) -> Callable[[bytes], T]:
        """The struct in a row's ``data``."""
        return msgspec.json.Decoder(self.struct).decode

    @cached_property
    def upsert(self) -> str:
        """SQL that inserts a row, or writes it anew."""
        names = [*self.key, *self.columns, *self.computed, "data"]
        new = ", ".join(f"{name} = excluded.{name}" for name in names if name not in self.key)
        marks = ", ".join("?" * len(names))
        return (
            f"INSERT INTO {self.name} ({', '.join(names)}) VALUES ({marks}) "  # noqa: S608 - constants
            f"ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {new}"
        )

    def values(self, item: T) -> list[Any]:
        """What ``upsert`` is to be executed with."""
        plain = [getattr(item, name) for name in (*self.key, *self.columns)]
        made = [make(item) for make in self.computed.values()]
        return [*plain, *made, msgspec.json.encode(item)]

    def key_of(self, item: T) -> tuple[Any, ...]:
        """A row's key."""
        return tuple(getattr(item, name) for name in self.key)


def position(address: str) -> bytes:
    """An address as 16 bytes that sort as the addresses of its family do."""
    return int(ipaddress.ip_address(address)).to_bytes(16, "big")


NETWORKS = Table("networks", model.Network, ("rdid",), ("name",))
SUBNETS = Table("subnets", model.Subnet, ("vsid",), ("rdid",))
POOLS = Table("pools", model.Pool, ("name",), ("purpose", "vsid"))
POOL_ADDRESSES = Table(
    "pool_addresses",
    model.PoolAddress,
    ("pool", "address"),
    ("state", "owner", "revision"),
    {"position": lambda item: position(item.address)},
)
HOSTS = Table("hosts", model.Host, ("name",))
VMS = Table("vms", model.Vm, ("name",), ("host",))
PREPARATIONS = Table("preparations", model.Preparation, ("vm",), ("host",))
PLANS = Table("plans", Plan, ("name",))
PORTS = Table("ports", model.Port, ("port",), ("vm", "host", "rdid", "vsid", "mac"))
LOOKUP_RECORDS = Table(
    "lookup_records",
    LookupRecord,
    ("virtual_subnet_id", "customer_address", "mac_address"),
    computed={"outside": outside_address},
)
LEARNED = Table("learned", model.LearnedAddress, ("vsid", "ca", "mac"), ("host",))
CUSTOMER_ROUTES = Table(
    "customer_routes",
    CustomerRoute,
    ("routing_domain_id", "virtual_subnet_id", "destination_prefix", "next_hop"),
)
PROVIDER_ADDRESSES = Table(
    "provider_addresses", model.HostProviderAddress, ("host", "virtual_subnet_id"), ("provider_address",)
)
PROVIDER_ROUTES = Table(
    "provider_routes", model.HostProviderRoute, ("host", "destination_prefix", "next_hop")
)
TABLES: tuple[Table[Any], ...] = (
    NETWORKS,
    SUBNETS,
    POOLS,
    POOL_ADDRESSES,
    HOSTS,
    VMS,
    PREPARATIONS,
    PLANS,
    PORTS,
    LOOKUP_RECORDS,
    LEARNED,
    CUSTOMER_ROUTES,
    PROVIDER_ADDRESSES,
    PROVIDER_ROUTES,
)
