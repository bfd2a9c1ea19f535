"""The kinds of policy objects: their keys, what of them can be changed, and when one is valid.

Names and rules are those of the NetWNV cmdlets (hnv.md section 5), in snake_case. Every check raises
BadInput, which names the object, the field and the remedy, and returns the object in canonical text:
MACs with colons and in lower case, RDIDs in braces and in lower case, addresses as short as they go.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from testbed.errors import BadInput
from testbed.packets.ethernet import format_mac, parse_mac
from testbed.topology.plan import CustomerRoute, HostPolicy, LookupRecord, ProviderAddress, ProviderRoute

Kind = Literal["lookup-records", "customer-routes", "provider-addresses", "provider-routes"]
PolicyObject: TypeAlias = LookupRecord | CustomerRoute | ProviderAddress | ProviderRoute
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Fields: TypeAlias = Mapping[str, Any]

FIRST_VSID, LAST_VSID = 0x1000, 0xFFFFFE  # 0-0xFFF and 0xFFFFFF are reserved (RFC 7637 section 3.2)
LAST_METRIC = 0xFFFFFFFF
LIMITED_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
ENCAP = "TranslationMethodEncap"
NAT = "TranslationMethodNat"
_GUID = re.compile(r"\{?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?\Z")


class Properties(NamedTuple):
    """A kind of object: its type, the fields of its key, and those that ``set`` can change."""

    type: type[PolicyObject]
    key: tuple[str, ...]
    changeable: tuple[str, ...]


KINDS: dict[str, Properties] = {
    "lookup-records": Properties(
        LookupRecord,
        ("customer_address", "virtual_subnet_id", "mac_address"),
        ("provider_address", "customer_id", "context", "rule", "vm_name", "use_vm_mac_address"),
    ),
    "customer-routes": Properties(
        CustomerRoute,
        ("routing_domain_id", "virtual_subnet_id", "destination_prefix", "next_hop"),
        ("metric",),
    ),
    # A PA may serve several virtual subnets: one object for each
    "provider-addresses": Properties(
        ProviderAddress, ("provider_address", "virtual_subnet_id"), ("prefix_length",)
    ),
    "provider-routes": Properties(ProviderRoute, ("destination_prefix", "next_hop"), ("metric",)),
}


def properties(kind: str) -> Properties:
    """What is known of a kind of object."""
    try:
        return KINDS[kind]
    except KeyError:
        raise BadInput(
            f"no kind of policy object is called {kind!r}: use one of {', '.join(KINDS)}"
        ) from None


def objects_of(policy: HostPolicy, kind: str) -> tuple[PolicyObject, ...]:
    """A policy's objects of one kind."""
    found: tuple[PolicyObject, ...] = getattr(policy, kind.replace("-", "_"))
    return found


def key_of(kind: str, item: PolicyObject) -> tuple[Any, ...]:
    """What identifies an object among those of its kind."""
    return tuple(getattr(item, name) for name in KINDS[kind].key)


def convert(kind: str, fields: Fields) -> PolicyObject:
    """A valid object from plain data."""
    known = properties(kind)
    _check_names(kind, fields)
    try:
        item: PolicyObject = msgspec.convert(dict(fields), known.type, strict=False)
    except msgspec.ValidationError as error:
        raise BadInput(f"{kind}: {_explained(error)}") from error
    return checked(kind, item)


def partial(kind: str, fields: Fields) -> dict[str, Any]:
    """Some fields of a kind of object, in canonical text; none of them need be there."""
    known = properties(kind)
    _check_names(kind, fields)
    types = _types(known.type)
    found = {}
    for name, value in fields.items():
        try:
            found[name] = msgspec.convert(value, types[name], strict=False)
        except msgspec.ValidationError as error:
            raise BadInput(f"{kind}: {name}: {_explained(error)}") from error
        if canonical := _CANONICAL.get(name):
            found[name] = canonical(f"{kind}: {name}", found[name])
    return found


@cache
def _types(kind: type[PolicyObject]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(kind)}


def checked(kind: str, item: PolicyObject) -> PolicyObject:
    """The object in canonical text, if it is valid by itself."""
    changes = {
        name: canonical(f"{kind}: {name}", getattr(item, name))
        for name, canonical in _CANONICAL.items()
        if name in KINDS[kind].type.__struct_fields__
    }
    item = msgspec.structs.replace(item, **changes)
    place = describe(kind, item)
    if isinstance(item, LookupRecord):
        _check_record(place, item)
    elif isinstance(item, ProviderAddress):
        _check_provider_address(place, item)
    else:
        _check_route(place, item)
    return item


def describe(kind: str, item: PolicyObject) -> str:
    """An object for a message: its kind and its key."""
    return f"{kind}: {' '.join(str(part) for part in key_of(kind, item))}"


def is_group(address: Address) -> bool:
    """Whether an address stands for several machines."""
    return address.is_multicast or address == LIMITED_BROADCAST


def is_multicast(text: str) -> bool:
    """Whether the address ``text`` is a multicast one."""
    return ipaddress.ip_address(text).is_multicast


def outside_address(record: LookupRecord) -> str | None:
    """The address by which the PA network knows a CA that is not encapsulated; None for one that is."""
    if record.rule == ENCAP:
        return None
    return record.provider_address if record.rule == NAT else record.customer_address


# ---- canonical text -----------------------------------------------------------------------


def _address(place: str, text: str) -> str:
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        raise BadInput(f"{place}: {text!r} is no IP address: write it like 10.0.0.5 or fd00::5") from None
    if "%" in text:
        raise BadInput(f"{place}: {text!r} names a zone: leave out what begins with '%'")
    return str(address)


def _prefix(place: str, text: str) -> str:
    if "/" not in text:
        raise BadInput(f"{place}: {text!r} has no prefix length: write it like 10.0.0.0/24 or fd00::/64")
    try:
        return str(ipaddress.ip_network(text.strip()))
    except ValueError as error:
        try:
            right = ipaddress.ip_network(text.strip(), strict=False)
        except ValueError:
            message = f"{place}: {text!r} is no prefix: write it like 10.0.0.0/24 or fd00::/64"
            raise BadInput(message) from error
        raise BadInput(f"{place}: {text!r} has host bits: write {right}") from error


def _mac(place: str, text: str) -> str:
    try:
        return format_mac(parse_mac(text.strip()))
    except ValueError:
        raise BadInput(f"{place}: {text!r} is no MAC address: write it like 00:15:5d:00:00:01") from None


def _rdid(place: str, text: str) -> str:
    if found := _GUID.match(text.strip().lower()):
        return f"{{{found[1]}}}"
    example = "{11111111-2222-3333-4444-000000000000}"
    raise BadInput(f"{place}: {text!r} is no GUID: write it like {example}")


def _vsid(place: str, vsid: int) -> int:
    if FIRST_VSID <= vsid <= LAST_VSID:
        return vsid
    raise BadInput(f"{place}: {vsid} is reserved or no VSID: choose one from {FIRST_VSID} to {LAST_VSID}")


def _metric(place: str, metric: int) -> int:
    if 0 <= metric <= LAST_METRIC:
        return metric
    raise BadInput(f"{place}: {metric} is out of range: choose a metric from 0 to {LAST_METRIC}")


_CANONICAL: dict[str, Callable[[str, Any], Any]] = {
    "customer_address": _address,
    "provider_address": _address,
    "next_hop": _address,
    "destination_prefix": _prefix,
    "mac_address": _mac,
    "routing_domain_id": _rdid,
    "virtual_subnet_id": _vsid,
    "metric": _metric,
}


def _check_names(kind: str, fields: Fields) -> None:
    names = KINDS[kind].type.__struct_fields__
    for name in fields:
        if name not in names:
            raise BadInput(f"{kind}: there is no field {name!r}: use {', '.join(names)}")


def _explained(error: msgspec.ValidationError) -> str:
    text = str(error)
    if "enum value" in text and "rule" in text:
        return f"{text}: a rule is {ENCAP}, {NAT} or TranslationMethodNone"
    if "enum value" in text:
        return f"{text}: a type is Static, Dynamic, L2Only or GatewayWildcard"
    if "missing required" in text:
        return f"{text}: give it"
    return f"{text}: give a value of that type"


# ---- validity of one object ---------------------------------------------------------------


def _check_record(place: str, record: LookupRecord) -> None:
    ca, pa = ipaddress.ip_address(record.customer_address), ipaddress.ip_address(record.provider_address)
    nowhere = record.type in ("L2Only", "GatewayWildcard")
    if nowhere is not ca.is_unspecified:
        if nowhere:
            raise BadInput(f"{place}: a record of type {record.type} has the CA 0.0.0.0 or ::")
        raise BadInput(f"{place}: the CA of a {record.type} record is an address: give it, or another type")
    if ca.is_loopback:
        raise BadInput(f"{place}: the CA is a loopback address: give the VM's own")
    _check_macs(place, record, ca)
    if is_group(ca) is not pa.is_multicast:
        wanted = "a multicast address, as the CA is a group" if is_group(ca) else "a unicast address"
        raise BadInput(f"{place}: provider_address {pa} is to be {wanted}")
    _check_unicast(place, "provider_address", pa)
    if record.use_vm_mac_address and record.rule != NAT:
        raise BadInput(f"{place}: use_vm_mac_address goes with the rule {NAT} only: leave it out")
    if record.rule != ENCAP:
        if ca.is_unspecified or is_group(ca):
            raise BadInput(f"{place}: {record.rule} needs a single CA: use the rule {ENCAP}")
        if ca.version != pa.version:
            raise BadInput(
                f"{place}: {record.rule} needs a CA and a PA of one address family: use the rule {ENCAP}"
            )


def _check_macs(place: str, record: LookupRecord, ca: Address) -> None:
    mac = parse_mac(record.mac_address)
    if bool(mac[0] & 1) is not is_group(ca):
        wanted = "the group's" if is_group(ca) else "that of one VM"
        raise BadInput(f"{place}: the MAC {record.mac_address} is to be {wanted}")
    if not any(mac):
        raise BadInput(f"{place}: the MAC is zero: give the VM's")


def _check_provider_address(place: str, address: ProviderAddress) -> None:
    pa = ipaddress.ip_address(address.provider_address)
    if pa.is_multicast:
        raise BadInput(f"{place}: a host's PA is a unicast address: give one of the PA network")
    _check_unicast(place, "provider_address", pa)
    if pa.is_link_local:
        raise BadInput(f"{place}: a link-local PA stands for a gateway: give an address of the PA network")
    if not 1 <= address.prefix_length <= pa.max_prefixlen:
        raise BadInput(
            f"{place}: prefix_length {address.prefix_length}: choose one from 1 to {pa.max_prefixlen}"
        )


def _check_unicast(place: str, field: str, address: Address) -> None:
    if address.is_unspecified or address.is_loopback or address == LIMITED_BROADCAST:
        raise BadInput(f"{place}: {field} {address} is no machine's: give one of the PA network")


def _check_route(place: str, route: CustomerRoute | ProviderRoute) -> None:
    prefix, hop = ipaddress.ip_network(route.destination_prefix), ipaddress.ip_address(route.next_hop)
    if prefix.version != hop.version:
        onlink = "0.0.0.0" if prefix.version == 4 else "::"
        raise BadInput(
            f"{place}: next_hop {hop} is not of {prefix}'s address family: "
            f"give an IPv{prefix.version} address, or {onlink} for an on-link route"
        )
    if is_group(hop) or hop.is_loopback:
        raise BadInput(f"{place}: next_hop {hop} is no machine's: give one machine's address")
