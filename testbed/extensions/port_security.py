"""port-security: what a VM may claim to be, checked where its packets enter the switch."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from time import monotonic
from typing import Annotated

from msgspec import Meta, Struct

from testbed.extensions import headers as ip
from testbed.packets import ethernet, ndp
from testbed.packets.checksum import Buffer
from testbed.switch.extensions.api import Decision, Deny, Extension, Frame, Scope, SwitchPort
from testbed.telemetry import EventLog

Limit = Annotated[int, Meta(ge=0, le=65536)]

_BOOTREPLY = 2  # RFC 2131 section 2: what OFFER, ACK and NAK are, and clients refuse the rest
_DHCPV4_SERVER, _DHCPV4_CLIENT = 67, 68
_DHCPV6_CLIENT, _DHCPV6_SERVER = 546, 547
_DHCP_PORTS = {_DHCPV4_SERVER, _DHCPV4_CLIENT, _DHCPV6_CLIENT, _DHCPV6_SERVER}
_DHCPV6_ANSWERS = (2, 7, 10, 13)  # RFC 8415 section 7.3: ADVERTISE, REPLY, RECONFIGURE, RELAY-REPL
_ICMP_ROUTER = (5, 9)  # redirect (RFC 792), router advertisement (RFC 1256)
_ICMPV6_ROUTER = (ndp.ROUTER_ADVERTISEMENT, ndp.REDIRECT)


class PortSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What differs for one port. addresses: static ones, which count towards no limit."""

    name: str
    mac_spoofing: bool | None = None
    dhcp_guard: bool | None = None
    router_guard: bool | None = None
    dynamic_address_limit: Limit | None = None
    addresses: list[str] = []

    def __post_init__(self) -> None:
        """Raises ValueError."""
        for text in self.addresses:
            try:
                ipaddress.ip_address(text)
            except ValueError:
                raise ValueError(f'"{text}" is no IP address; write it without a prefix length') from None


class _Port:
    """The rules of one port, and the dynamic addresses it uses: when each was last seen."""

    def __init__(self, port: SwitchPort, defaults: PortSecurity.Settings) -> None:
        own = next((each for each in defaults.ports if each.name == port.name), PortSettings(port.name))
        self.mac = port.mac
        self.mac_spoofing = _first(own.mac_spoofing, defaults.mac_spoofing)
        self.dhcp_guard = _first(own.dhcp_guard, defaults.dhcp_guard)
        self.router_guard = _first(own.router_guard, defaults.router_guard)
        limit = own.dynamic_address_limit
        self.limit = defaults.dynamic_address_limit if limit is None else limit
        self.static = {ipaddress.ip_address(each).packed for each in own.addresses}
        self.dynamic: dict[bytes, float] = {}


class PortSecurity(Extension):
    """MAC spoofing, DHCP guard, router guard and the limit of dynamic addresses, per port."""

    kind = "filter"
    scope: Scope = "flow"

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        """Of all ports but those in ``ports``. dynamic_address_limit: addresses, nothing: no limit.

        address_idle: seconds without a packet after which a dynamic address no longer counts.
        """

        mac_spoofing: bool = False
        dhcp_guard: bool = True
        router_guard: bool = True
        dynamic_address_limit: Limit | None = None
        address_idle: Annotated[int, Meta(ge=1)] = 600
        ports: list[PortSettings] = []

    def __init__(self, name: str, settings: Settings, events: EventLog) -> None:
        super().__init__(name, settings, events)
        self._idle = settings.address_idle
        self._ports: dict[str, _Port] = {}
        limits = [settings.dynamic_address_limit, *(each.dynamic_address_limit for each in settings.ports)]
        if any(limit is not None for limit in limits):
            self.scope = "packet"  # an address that is in use must not age

    @classmethod
    def named_ports(cls, settings: Settings) -> Iterable[tuple[tuple[str | int, ...], str]]:
        """Those with settings of their own."""
        return [(("ports", i, "name"), each.name) for i, each in enumerate(settings.ports)]

    def attach_port(self, port: SwitchPort) -> None:
        """Take up its rules; it starts without dynamic addresses."""
        super().attach_port(port)
        self._ports[port.name] = _Port(port, self.settings)

    def detach_port(self, name: str) -> None:
        """Forget it."""
        super().detach_port(name)
        self._ports.pop(name, None)

    def scope_of(self, frame: Frame) -> Scope:
        """DHCP and ICMP are told by more than addresses and ports."""
        headers = ip.parse(frame.inner)
        found = ip.ports(frame.inner, headers) if headers else None
        if found is None or not _DHCP_PORTS.isdisjoint(found):
            return "packet"
        return self.scope

    def ingress(self, frame: Frame) -> Decision:
        """Judge a packet of a VM."""
        port = self._ports.get(frame.source)
        if port is None:
            return None
        inner = frame.inner
        if not port.mac_spoofing and not _own_mac(inner, port.mac):
            return Deny("mac-spoofing")
        headers = ip.parse(inner)
        if headers is not None:
            if port.dhcp_guard and _is_dhcp_server(inner, headers):
                return Deny("dhcp-guard")
            if port.router_guard and _is_router(inner, headers):
                return Deny("router-guard")
        if port.limit is not None and not all(
            self._may_use(port, address) for address in _claimed(inner, headers)
        ):
            return Deny("address-limit")
        return None

    def counters(self) -> dict[str, int]:
        """Dynamic addresses in use by all ports."""
        return {"dynamic_addresses": sum(len(port.dynamic) for port in self._ports.values())}

    def _may_use(self, port: _Port, address: bytes) -> bool:
        if address in port.static or not any(address) or _is_link_local(address):
            return True
        now = monotonic()
        assert port.limit is not None
        if address not in port.dynamic:
            port.dynamic = {known: seen for known, seen in port.dynamic.items() if now - seen < self._idle}
            if len(port.dynamic) >= port.limit:
                return False
        port.dynamic[address] = now
        return True


def _first(own: bool | None, default: bool) -> bool:
    return default if own is None else own


def _own_mac(frame: Buffer, mac: bytes) -> bool:
    """Whether Ethernet's source and ARP's sender are this MAC."""
    if bytes(frame[6:12]) != mac:
        return False
    kind, offset = ip.network(frame)
    return kind != ethernet.TYPE_ARP or bytes(frame[offset + 8 : offset + 14]) == mac


def _is_dhcp_server(frame: Buffer, headers: ip.Headers) -> bool:
    """Whether it is (or, where its type is cut off, may be) a DHCP server's message."""
    found = ip.ports(frame, headers)
    if headers.protocol != ip.UDP or found is None:
        return False
    source, destination = found
    start, end = ip.payload(frame, headers)
    if source == _DHCPV4_SERVER or destination == _DHCPV4_CLIENT:
        answers: tuple[int, ...] = (_BOOTREPLY,)
    elif source == _DHCPV6_SERVER or destination == _DHCPV6_CLIENT:
        answers = _DHCPV6_ANSWERS
    else:
        return False
    return start >= end or frame[start] in answers


def _is_router(frame: Buffer, headers: ip.Headers) -> bool:
    """Router advertisements and redirects; an IPv6 fragment that hides its type too (RFC 7113 section 2)."""
    kind = ip.icmp_type(frame, headers)
    if headers.protocol == ip.ICMP:
        return kind in _ICMP_ROUTER
    if headers.protocol == ip.ICMPV6:
        return kind in _ICMPV6_ROUTER or (headers.fragment and not headers.later and kind is None)
    return headers.protocol == ip.UNKNOWN and headers.fragment


def _claimed(frame: Buffer, headers: ip.Headers | None) -> list[bytes]:
    """The IP addresses that the sender says are its own."""
    if headers is None:
        kind, offset = ip.network(frame)
        if kind == ethernet.TYPE_ARP and len(frame) >= offset + 28:
            return [bytes(frame[offset + 14 : offset + 18])]
        return []
    claimed = [headers.source]
    at = headers.offset
    if ip.icmp_type(frame, headers) == ndp.NEIGHBOR_ADVERTISEMENT and headers.end >= at + 24:
        claimed.append(bytes(frame[at + 8 : at + 24]))
    return claimed


def _is_link_local(address: bytes) -> bool:
    return len(address) == 16 and address[0] == 0xFE and address[1] & 0xC0 == 0x80
