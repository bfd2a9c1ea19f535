"""The network policy as look-up tables, changed object by object.

A change costs the same whatever the size of the policy. Addresses are bytes in network order
everywhere: CAs and PAs 4 or 16, MACs 6.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from testbed.packets.ethernet import parse_mac
from testbed.topology.plan import CustomerRoute, HostPolicy, LookupRecord, ProviderAddress, ProviderRoute
from testbed.wnv.objects import ENCAP, KINDS, NAT, PolicyObject, key_of, objects_of
from testbed.wnv.policy import Change
from testbed.wnv.routes import Route, RouteTable, make_route, parse_prefix

K = TypeVar("K")
V = TypeVar("V")
G = TypeVar("G")

# The groups whose records stand for every broadcast and multicast address of their family, by its size
EVERYONE = {4: ipaddress.ip_address("255.255.255.255").packed, 16: ipaddress.ip_address("ff02::1").packed}


class Record(NamedTuple):
    """A lookup record: where a CA lives. gateway: it is a subnet's default gateway, which is no machine.

    address: the CA; unspecified (zero) in a record that is found by its MAC or not at all.
    """

    vsid: int
    address: bytes
    mac: bytes
    pa: bytes
    rule: str
    gateway: bool

    @property
    def encapsulated(self) -> bool:
        """Whether packets for it go through NVGRE."""
        return self.rule == ENCAP

    @property
    def outside(self) -> bytes:
        """The address by which the PA network knows it, when it is not encapsulated."""
        return self.pa if self.rule == NAT else self.address


class Tables:
    """What the filter looks up. ``preferred``: the PAs of this host, as text, that passed DAD."""

    def __init__(self, policy: HostPolicy, preferred: frozenset[str]) -> None:
        self.records: dict[tuple[int, bytes], Record] = {}  # by VSID and CA
        self.learners: dict[tuple[int, bytes, int], Record] = {}  # L2Only: VSID, MAC, size of a CA
        self.outside: dict[bytes, Record] = {}  # not encapsulated: by the address in the PA network
        self.rdid_of: dict[int, str] = {}
        self.local_pa: dict[tuple[int, int], bytes] = {}  # preferred ones: VSID, size of a PA
        self.local_pas: frozenset[bytes] = frozenset()
        self.own_pas: frozenset[bytes] = frozenset()  # usable or not: what is behind them is on this host
        self._groups: dict[int, dict[bytes, bytes]] = {}  # VSID -> CA group -> PA group
        self._gateways: dict[int, dict[bytes, bytes]] = {}  # VSID -> CA -> MAC
        self._learning: dict[int, int] = {}  # VSID -> number of L2Only records
        self._macs: dict[tuple[int, bytes], dict[Record, int]] = {}  # VSID, MAC -> record -> number of it
        self._senders: dict[int, dict[bytes, int]] = {}  # VSID -> PA -> number of records
        self._hosts: dict[int, dict[bytes, int]] = {}  # the same of encapsulated ones
        self._domains: dict[str, dict[int, int]] = {}  # RDID -> VSID -> number of routes
        self._routes: dict[str, RouteTable] = {}
        self._provider_routes = RouteTable()
        self._addresses: dict[tuple[str, int], ProviderAddress] = {}
        self._preferred = preferred
        self._shared: dict[bytes, bytes] = {}  # one copy of each PA: ten thousand records name few
        for kind in KINDS:
            for item in objects_of(policy, kind):
                self._change(kind, item, 1)
        self._choose_addresses()

    # ---- changes --------------------------------------------------------------------------

    def apply(self, changes: Iterable[Change]) -> None:
        """Do what a policy store has approved. Raises KeyError when the old object is not there."""
        for change in changes:
            if change.old is not None:
                self._change(change.kind, change.old, -1)
            if change.new is not None:
                self._change(change.kind, change.new, 1)
        self._choose_addresses()

    def set_preferred(self, preferred: frozenset[str]) -> None:
        """Duplicate address detection has another result."""
        self._preferred = preferred
        self._choose_addresses()

    # ---- questions ------------------------------------------------------------------------

    def customer_routes(self, vsid: int, address: bytes) -> list[Route]:
        """The routes of the VSID's routing domain with the longest prefix that fits, lowest metric first."""
        table = self._routes.get(self.rdid_of.get(vsid, ""))
        return [] if table is None else table.matches(address)

    def customer_prefix(self, vsid: int, address: bytes) -> str:
        """The prefix of :meth:`customer_routes`, as text."""
        table = self._routes.get(self.rdid_of.get(vsid, ""))
        return "" if table is None else table.prefix(address)

    def provider_prefix(self, pa: bytes) -> str:
        """The prefix of the PA network's route for ``pa``, as text."""
        return self._provider_routes.prefix(pa)

    def own_pa(self, vsid: int) -> bytes | None:
        """The PA to which other hosts send what is for a virtual subnet here."""
        return self.local_pa.get((vsid, 4)) or self.local_pa.get((vsid, 16))

    def provider_next_hop(self, pa: bytes) -> bytes | None:
        """The PA to which a packet for ``pa`` goes on the PA network, or None without a route."""
        routes = self._provider_routes.matches(pa)
        return routes[0].next_hop or pa if routes else None

    def knows_sender(self, vsid: int, pa: bytes) -> bool:
        """Whether some record of the VSID's routing domain has this PA."""
        if pa in self._senders.get(vsid, ()):
            return vsid in self.rdid_of
        siblings = self._domains.get(self.rdid_of.get(vsid, ""), ())
        return any(pa in self._senders.get(sibling, ()) for sibling in siblings)

    def knows_mac(self, vsid: int, mac: bytes) -> bool:
        """Whether some record of the VSID has this MAC, such as the default gateway's."""
        return (vsid, mac) in self._macs

    def machine(self, vsid: int, mac: bytes) -> Record | None:
        """A record of the VM that has this MAC in the VSID: of several the lowest."""
        records = self._macs.get((vsid, mac), ())
        machines = (record for record in records if record.encapsulated and not record.gateway)
        return min(machines, default=None)

    def has_learners(self, vsid: int) -> bool:
        """Whether the VSID has L2Only records: VMs whose CA nobody knows yet."""
        return vsid in self._learning

    def remote_pas(self, vsid: int) -> tuple[bytes, ...]:
        """One PA for each other host with VMs of the VSID."""
        return tuple(sorted(pa for pa in self._hosts.get(vsid, ()) if pa not in self.own_pas))

    def group(self, vsid: int, address: bytes) -> bytes | None:
        """The PA group for a CA group: its record's, or that of the record for all of its family."""
        groups = self._groups.get(vsid, {})
        return groups.get(address) or groups.get(EVERYONE[len(address)])

    def is_group(self, vsid: int, pa: bytes) -> bool:
        """Whether a PA is a group of the VSID; several VSIDs may share it."""
        return pa in self._groups.get(vsid, {}).values()

    def groups(self, vsids: Iterable[int]) -> set[bytes]:
        """The PA groups that a host with ports of these VSIDs has to join."""
        return {group for vsid in vsids for group in self._groups.get(vsid, {}).values()}

    def gateway(self, vsid: int, size: int) -> bytes | None:
        """CA of the VSID's default gateway in the family with addresses of ``size`` bytes."""
        return min((ca for ca in self._gateways.get(vsid, ()) if len(ca) == size), default=None)

    def gateway_mac(self, vsid: int, size: int) -> bytes | None:
        """MAC of the VSID's default gateway: the family's, or else any."""
        gateways = self._gateways.get(vsid)
        if not gateways:
            return None
        return gateways[self.gateway(vsid, size) or min(gateways)]

    # ---- one object in or out -------------------------------------------------------------

    def _change(self, kind: str, item: PolicyObject, step: int) -> None:
        if isinstance(item, LookupRecord):
            self._change_record(item, step)
        elif isinstance(item, CustomerRoute):
            self._change_customer_route(item, step)
        elif isinstance(item, ProviderRoute):
            self._change_provider_route(item.destination_prefix, make_route(item.metric, item.next_hop), step)
        else:
            self._change_address(kind, item, step)

    def _change_record(self, item: LookupRecord, step: int) -> None:
        record = self._record(item)
        vsid, address, mac, pa = record[:4]
        if item.type in ("Static", "Dynamic"):
            if is_multicast(pa):
                _put(self._groups.setdefault(vsid, {}), address, pa, step)
                _drop_if_empty(self._groups, vsid)
                return
            _put(self.records, (vsid, address), record, step)
        elif item.type == "L2Only":
            _put(self.learners, (vsid, mac, len(address)), record, step)
            _count(self._learning, vsid, step)
        _count_in(self._macs, (vsid, mac), record, step)
        if record.gateway:
            _put(self._gateways.setdefault(vsid, {}), address, mac, step)
            _drop_if_empty(self._gateways, vsid)
            return
        _count_in(self._senders, vsid, pa, step)
        if record.encapsulated:
            _count_in(self._hosts, vsid, pa, step)
        else:
            _put(self.outside, record.outside, record, step)

    def _record(self, item: LookupRecord) -> Record:
        address = ipaddress.ip_address(item.customer_address).packed
        pa = ipaddress.ip_address(item.provider_address).packed
        pa = self._shared.setdefault(pa, pa)
        mac = parse_mac(item.mac_address)
        return Record(item.virtual_subnet_id, address, mac, pa, item.rule, is_link_local(pa))

    def _change_customer_route(self, item: CustomerRoute, step: int) -> None:
        vsid, rdid = item.virtual_subnet_id, item.routing_domain_id
        table = self._routes.setdefault(rdid, RouteTable())
        route = make_route(item.metric, item.next_hop, vsid)
        prefix = parse_prefix(item.destination_prefix)
        table.add(prefix, route) if step > 0 else table.remove(prefix, route)
        if not table:
            del self._routes[rdid]
        _count_in(self._domains, rdid, vsid, step)
        if vsid in self._domains.get(rdid, ()):
            self.rdid_of[vsid] = rdid
        else:
            self.rdid_of.pop(vsid, None)

    def _change_provider_route(self, prefix: str, route: Route, step: int) -> None:
        change = self._provider_routes.add if step > 0 else self._provider_routes.remove
        change(parse_prefix(prefix), route)

    def _change_address(self, kind: str, item: ProviderAddress, step: int) -> None:
        interface = ipaddress.ip_interface(f"{item.provider_address}/{item.prefix_length}")
        on_link = Route(0, 0, b"")
        self._change_provider_route(str(interface.network), on_link, step)
        key = key_of(kind, item)
        _put(self._addresses, (key[0], key[1]), item, step)

    def _choose_addresses(self) -> None:
        """Which PA each VSID uses: the lowest of each family that is preferred."""
        usable = []
        own = set()
        for item in self._addresses.values():
            packed = ipaddress.ip_address(item.provider_address).packed
            own.add(packed)
            if item.provider_address in self._preferred:
                usable.append((item.virtual_subnet_id, packed))
        self.own_pas = frozenset(own)
        self.local_pas = frozenset(packed for _, packed in usable)
        self.local_pa = {(vsid, len(packed)): packed for vsid, packed in sorted(usable, reverse=True)}


def is_link_local(address: bytes) -> bool:
    """Whether an address is link-local. As a PA it marks a default gateway, which is no machine."""
    return address[:2] == b"\xa9\xfe" or (address[0] == 0xFE and address[1] & 0xC0 == 0x80)


def is_multicast(address: bytes) -> bool:
    """Whether an address is a multicast one, IPv4 or IPv6."""
    return address[0] == 0xFF if len(address) == 16 else address[0] >> 4 == 14


def _put(table: dict[K, V], key: K, value: V, step: int) -> None:
    if step > 0:
        table[key] = value
    else:
        del table[key]


def _count(table: dict[K, int], key: K, step: int) -> None:
    number = table.get(key, 0) + step
    if number:
        table[key] = number
    else:
        del table[key]


def _count_in(groups: dict[G, dict[K, int]], group: G, key: K, step: int) -> None:
    _count(groups.setdefault(group, {}), key, step)
    _drop_if_empty(groups, group)


def _drop_if_empty(groups: dict[G, dict[K, V]], group: G) -> None:
    if not groups[group]:
        del groups[group]
