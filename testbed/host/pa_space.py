"""The provider address space of a host: DAD, ARP for its PAs, and the PA neighbors.

PAs live here and not in the kernel: ``ip addr`` on the host does not show them. Duplicate
address detection follows RFC 5227, and probes for a PA in use are answered; states are those of
Get-NetVirtualizationProviderAddress.
"""

from __future__ import annotations

import asyncio
import ctypes
import ipaddress
import socket
import struct
from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct

from testbed.packets import arp, ethernet
from testbed.packets.malformed import MalformedFrame

_SOL_PACKET = 263
_PACKET_IGNORE_OUTGOING = 23
_SO_ATTACH_FILTER = 26
_ETH_P_ALL = 3  # the NIC's ingress program stops frames before sockets of a single protocol see them
# Classic BPF: load the Ethernet type, accept ARP, refuse the rest.
_ONLY_ARP = (
    struct.pack("=HBBI", 0x28, 0, 0, 12)
    + struct.pack("=HBBI", 0x15, 0, 1, ethernet.TYPE_ARP)
    + struct.pack("=HBBI", 0x06, 0, 0, 0xFFFF)
    + struct.pack("=HBBI", 0x06, 0, 0, 0)
)
_ZERO_MAC = b"\0" * 6
_ANY = b"\0" * 4


class AddressState(StrEnum):
    """State of a PA."""

    TENTATIVE = "Tentative"
    PREFERRED = "Preferred"
    DUPLICATE = "Duplicate"


class PaTimers(Struct, frozen=True):
    """Seconds and counts of the PA network's protocols."""

    probes: int
    probe_interval: float  # between probes, and from the last one to Preferred
    resolve_interval: float
    resolve_attempts: int
    reachable: float  # a neighbor is asked again after this time


# rfc: PROBE_NUM 3, PROBE_MAX 2 s, ANNOUNCE_WAIT 2 s (RFC 5227 section 1.1).
TIMERS = {
    "fast": PaTimers(1, 0.05, 0.05, 5, 30.0),
    "rfc": PaTimers(3, 2.0, 1.0, 3, 30.0),
}


class PaSpace:
    """ARP on one NIC. ``on_neighbor(pa, mac or None)`` and ``on_state()`` report changes."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        nic: str,
        mac: bytes,
        timers: PaTimers,
        on_neighbor: Callable[[bytes, bytes | None], None],
        on_state: Callable[[], None],
    ) -> None:
        self._loop, self._mac, self._timers = loop, mac, timers
        self._on_neighbor, self._on_state = on_neighbor, on_state
        self._states: dict[bytes, AddressState] = {}
        self._neighbors: dict[bytes, bytes] = {}
        self._asking: dict[bytes, asyncio.TimerHandle] = {}
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._socket.setblocking(False)
        code = ctypes.create_string_buffer(_ONLY_ARP, len(_ONLY_ARP))
        program = struct.pack("HP", len(_ONLY_ARP) // 8, ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        self._socket.bind((nic, _ETH_P_ALL))
        loop.add_reader(self._socket, self._receive)

    def close(self) -> None:
        """Leave the PA network; its neighbors are reported as gone, so that nothing waits for them."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for address, timer in self._asking.items():
            timer.cancel()
            self._on_neighbor(address, None)
        self._asking.clear()
        self._states.clear()

    # ---- this host's addresses ------------------------------------------------------------

    def set_addresses(self, addresses: set[str]) -> None:
        """Make these the host's PAs: new ones start Tentative, missing ones are given up."""
        wanted = {ipaddress.IPv4Address(text).packed for text in addresses}
        for address in set(self._states) - wanted:
            del self._states[address]
        for address in wanted - set(self._states):
            self._states[address] = AddressState.TENTATIVE
            self._probe(address, self._timers.probes)

    def states(self) -> dict[str, AddressState]:
        """State of each PA, by its text."""
        return {str(ipaddress.IPv4Address(address)): state for address, state in self._states.items()}

    def preferred(self) -> list[str]:
        """The PAs in use."""
        return [text for text, state in self.states().items() if state is AddressState.PREFERRED]

    def _probe(self, address: bytes, left: int) -> None:
        if self._states.get(address) is not AddressState.TENTATIVE:
            return
        if left == 0:
            self._states[address] = AddressState.PREFERRED
            self._request(address, address)  # announcement (RFC 5227 section 2.3)
            self._on_state()
            return
        if not self._request(_ANY, address):
            left += 1  # the NIC is not up yet: a probe that did not leave proves nothing
        self._loop.call_later(self._timers.probe_interval, self._probe, address, left - 1)

    # ---- neighbors ------------------------------------------------------------------------

    def resolve(self, address: bytes) -> None:
        """Ask for the MAC of a PA; the answer comes through ``on_neighbor``."""
        if mac := self._neighbors.get(address):
            self._on_neighbor(address, mac)
        elif address not in self._asking:
            self._ask(address, self._timers.resolve_attempts)

    def _ask(self, address: bytes, left: int) -> None:
        if left == 0:
            del self._asking[address]
            self._neighbors.pop(address, None)
            self._on_neighbor(address, None)
            return
        known = self._neighbors.get(address)
        source = next((pa for pa, state in self._states.items() if state is AddressState.PREFERRED), None)
        if source is not None:
            self._request(source, address, known or ethernet.BROADCAST)
        self._asking[address] = self._loop.call_later(
            self._timers.resolve_interval, self._ask, address, left - 1
        )

    def _confirmed(self, address: bytes, mac: bytes) -> None:
        if timer := self._asking.pop(address, None):
            timer.cancel()
            self._asking[address] = self._loop.call_later(
                self._timers.reachable, self._ask, address, self._timers.resolve_attempts
            )
        elif address not in self._neighbors:
            return  # nobody here needs it
        if self._neighbors.get(address) != mac:
            self._neighbors[address] = mac
            self._on_neighbor(address, mac)

    # ---- the wire -------------------------------------------------------------------------

    def _request(self, sender: bytes, target: bytes, destination: bytes = ethernet.BROADCAST) -> bool:
        message = arp.Arp(arp.REQUEST, self._mac, sender, _ZERO_MAC, target)
        return self._send(arp.build(message, destination))

    def _send(self, frame: bytes) -> bool:
        try:
            self._socket.send(frame)
        except OSError:
            return False
        return True

    def _receive(self) -> None:
        try:
            message = arp.parse(self._socket.recv(2048))
        except (OSError, MalformedFrame):
            return
        if message.sender_mac == self._mac:
            return
        self._detect_conflict(message)
        if message.sender_ip != _ANY:
            self._confirmed(message.sender_ip, message.sender_mac)
        if message.operation == arp.REQUEST and self._states.get(message.target_ip) is AddressState.PREFERRED:
            reply = arp.Arp(arp.REPLY, self._mac, message.target_ip, message.sender_mac, message.sender_ip)
            self._send(arp.build(reply, message.sender_mac))

    def _detect_conflict(self, message: arp.Arp) -> None:
        claimed = message.target_ip if message.is_probe else message.sender_ip
        if self._states.get(claimed) is AddressState.TENTATIVE:
            self._states[claimed] = AddressState.DUPLICATE
            self._on_state()
