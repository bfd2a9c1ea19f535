"""What became of one packet, counted: every copy of it left, was answered, waits or has a named drop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from support.frames import ip
from support.switch import PLAIN, MemorySwitch, Seen, pa
from testbed.switch.drops import Drop
from testbed.switch.extensions.load import load
from testbed.telemetry import EventLog
from testbed.topology.plan import ExtensionPlan
from testbed.topology.schema import WnvMode

PLAIN_PORTS = ("plain1", "plain2")
_TAGS = (0x8100, 0x88A8)
_RULES = [{"action": "deny", "protocol": "udp", side: [3]} for side in ("local_ports", "remote_ports")]
_FLOW = [
    ExtensionPlan("port-security", {"mac_spoofing": True, "dhcp_guard": False}),
    ExtensionPlan("acl", {"rules": _RULES}),
]
_PACKET = [
    ExtensionPlan("capture", {"frames": 8}),
    ExtensionPlan("payload-filter", {"patterns": [{"reason": "found", "text": "a pattern"}]}),
    ExtensionPlan("port-security", {"dynamic_address_limit": 3}),
    ExtensionPlan("acl", {"rules": [{"action": "allow", "protocol": "tcp", "stateful": True}]}),
]
EXTENSIONS = {"none": [], "flow": _FLOW, "packet": _PACKET}


class Config(NamedTuple):
    """A switch: where its filter is, the family of its PAs, the scope of its extensions."""

    mode: WnvMode
    version: int
    extensions: str

    def __str__(self) -> str:
        return f"{self.mode}-ipv{self.version}-{self.extensions}"

    def made(self, *, cached: bool = True) -> MemorySwitch:
        """Host 1 with two ports of VSID 0. Nobody answers for host 3's PAs."""
        extensions = load(EXTENSIONS[self.extensions], EventLog())
        made = MemorySwitch(
            plain_ports=PLAIN_PORTS,
            mode=self.mode,
            version=self.version,
            cached=cached,
            extensions=extensions,
        )
        for vsid in (5001, 5002, 6001):
            del made.state.neighbors[ip(pa(3, vsid, self.version))]
        return made


MODES: tuple[WnvMode, ...] = ("in-switch", "below-switch")
CONFIGS = [Config(mode, version, scope) for mode in MODES for version in (4, 6) for scope in EXTENSIONS]


def _held(switch: MemorySwitch) -> int:
    return sum(copies for waiting in switch.datapath.held.values() for _, copies, _, _ in waiting)


class Account(NamedTuple):
    """What one packet caused. copies: how many of it left, were answered, were dropped or wait now."""

    seen: Seen
    copies: int


def sent(switch: MemorySwitch, sender: str, frame: bytes, vnet: bytes = PLAIN) -> Account:
    """A VM sends a packet."""
    before = _held(switch)
    return _account(switch.from_vm(sender, frame, vnet), sender, _held(switch) - before)


def arrived(switch: MemorySwitch, frame: bytes, vnet: bytes = PLAIN) -> Account:
    """A packet comes from the cable."""
    before = _held(switch)
    return _account(switch.from_wire(frame, vnet), "", _held(switch) - before)


def _account(seen: Seen, sender: str, waiting: int) -> Account:
    """A copy that is too big is dropped and answered: that is one."""
    delivered = {name: len(packets) for name, packets in seen.ports.items()}
    too_big = sum(count for (_, reason), count in seen.drops.items() if reason == Drop.OVERSIZE)
    answered = delivered.get(sender, 0) if too_big else 0
    assert answered <= too_big
    left = len(seen.wire) + sum(delivered.values()) - answered
    return Account(seen, left + sum(seen.drops.values()) + waiting)


def is_for_many(frame: bytes) -> bool:
    """Whether a frame's MAC or IP address is a group or broadcast address; VLAN tags are looked behind."""
    at = 12
    while at + 2 <= len(frame) and int.from_bytes(frame[at : at + 2], "big") in _TAGS:
        at += 4
    kind, body = frame[at : at + 2], frame[at + 2 :]
    group = (kind == b"\x08\0" and body[16:17] >= b"\xe0") or (kind == b"\x86\xdd" and body[24:25] == b"\xff")
    return bool(frame[:1] and frame[0] & 1) or group


@contextmanager
def told(switch: MemorySwitch) -> Iterator[list[dict[str, Any]]]:
    """The policy-mismatch events of a block."""
    switch.state.events.take()
    found: list[dict[str, Any]] = []
    yield found
    found += [each.fields for each in switch.state.events.take() if each.kind == "policy-mismatch"]
