"""The rules of the acl extension: what a user writes, and what is compared with a packet."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

from testbed.extensions import headers as ip

PROTOCOLS = {"icmp": ip.ICMP, "tcp": ip.TCP, "udp": ip.UDP, "icmpv6": ip.ICMPV6}
Action = Literal["allow", "deny"]
Direction = Literal["both", "from-vm", "to-vm", "to-wire", "from-wire"]
Number = Annotated[int, Meta(ge=0, le=255)]
Vsid = Annotated[int, Meta(ge=0, le=0xFFFFFF)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Ranges = list[Port | str]  # 443, "1024-65535"

_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?\Z")
_NAME = r"\A[a-z0-9]+(-[a-z0-9]+)*\Z"


class Subject(NamedTuple):
    """What rules compare. local: the VM's side, in PA space this host's; ports are None where there are none.

    port: the switch port, "" in PA space. outgoing: from the VM, or to the wire.
    """

    port: str
    outgoing: bool
    vsid: int
    protocol: int
    local: bytes
    remote: bytes
    local_port: int | None = None
    remote_port: int | None = None


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """One rule; what it does not name it does not ask for. See docs/extensions.md for each key."""

    action: Action
    name: Annotated[str, Meta(pattern=_NAME, max_length=32)] | None = None
    space: Literal["CA", "PA"] = "CA"
    direction: Direction = "both"
    ports: list[str] = []
    vsids: list[Vsid] = []
    protocol: Number | Literal["tcp", "udp", "icmp", "icmpv6"] | None = None
    local: list[str] = []
    remote: list[str] = []
    local_ports: Ranges = []
    remote_ports: Ranges = []
    stateful: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError: combinations that mean nothing, addresses and ranges that are none."""
        spoken = {"CA": ("both", "from-vm", "to-vm"), "PA": ("both", "to-wire", "from-wire")}[self.space]
        if self.direction not in spoken:
            raise ValueError(
                f'a {self.space} rule has no direction "{self.direction}"; use {", ".join(spoken)}'
            )
        if self.space == "PA" and (self.ports or self.protocol is not None):
            raise ValueError("a PA rule sees NVGRE alone; leave ports and protocol out, or write space: CA")
        if (self.local_ports or self.remote_ports) and self.protocol not in ("tcp", "udp", ip.TCP, ip.UDP):
            raise ValueError(
                "local_ports and remote_ports are those of TCP and UDP; add protocol: tcp or udp"
            )
        if self.stateful and self.action == "deny":
            raise ValueError("what is denied has no answers; leave stateful out of a deny rule")
        for text in (*self.local, *self.remote):
            prefix(text)
        for each in (*self.local_ports, *self.remote_ports):
            port_range(each)


class Matcher:
    """A rule made ready for comparison. ``number``: its place in the list, from 0."""

    def __init__(self, rule: Rule, number: int) -> None:
        self.name = rule.name or f"rule-{number}"
        self.allows = rule.action == "allow"
        self.stateful = rule.stateful
        self.hits = 0
        self._outgoing = {"both": None}.get(rule.direction, rule.direction in ("from-vm", "to-wire"))
        self._ports = frozenset(rule.ports)
        self._vsids = frozenset(rule.vsids)
        self._protocol = PROTOCOLS[rule.protocol] if isinstance(rule.protocol, str) else rule.protocol
        self._local, self._remote = (
            [prefix(each) for each in rule.local],
            [prefix(each) for each in rule.remote],
        )
        self._local_ports = [port_range(each) for each in rule.local_ports]
        self._remote_ports = [port_range(each) for each in rule.remote_ports]

    def matches(self, subject: Subject) -> bool:
        """Whether the rule speaks of this packet."""
        return (
            (self._outgoing is None or self._outgoing == subject.outgoing)
            and (not self._ports or subject.port in self._ports)
            and (not self._vsids or subject.vsid in self._vsids)
            and (self._protocol is None or self._protocol == subject.protocol)
            and _within(subject.local, self._local)
            and _within(subject.remote, self._remote)
            and _in_range(subject.local_port, self._local_ports)
            and _in_range(subject.remote_port, self._remote_ports)
        )


def prefix(text: str) -> tuple[int, int, int]:
    """Bytes of an address, bits behind the prefix, and the prefix's own bits. Raises ValueError."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{error}; write a prefix such as 10.0.0.0/24 or an address") from None
    shift = network.max_prefixlen - network.prefixlen
    return network.max_prefixlen // 8, shift, int(network.network_address) >> shift


def port_range(text: int | str) -> tuple[int, int]:
    """First and last port of "80" or "1000-2000". Raises ValueError."""
    found = _RANGE.match(str(text))
    if found:
        first, last = int(found[1]), int(found[2] or found[1])
        if first <= last <= 0xFFFF:
            return first, last
    raise ValueError(f'"{text}" is no range of ports; write it like 80 or "1000-2000"')


def _within(address: bytes, prefixes: list[tuple[int, int, int]]) -> bool:
    value = int.from_bytes(address, "big")
    return not prefixes or any(
        len(address) == size and value >> shift == bits for size, shift, bits in prefixes
    )


def _in_range(port: int | None, ranges: list[tuple[int, int]]) -> bool:
    return not ranges or (port is not None and any(first <= port <= last for first, last in ranges))
