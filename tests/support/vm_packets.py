"""IP packets as the VMs of the small network send them."""

from __future__ import annotations

from support.frames import UDP, ethernet, ipv4, ipv6, ports
from support.switch import mac_of, v4, v6

PAYLOAD = ports(1000, 2000) + bytes(30)


def from_ipv4(
    source: str, destination: str, to: bytes, protocol: int = UDP, payload: bytes = PAYLOAD
) -> bytes:
    """From a VM's IPv4 CA, in a frame to the MAC ``to``."""
    return ethernet(to, mac_of(source), 0x0800, ipv4(v4(source), destination, protocol, payload))


def from_ipv6(
    source: str, destination: str, to: bytes, protocol: int = UDP, payload: bytes = PAYLOAD
) -> bytes:
    """From a VM's IPv6 CA."""
    return ethernet(to, mac_of(source), 0x86DD, ipv6(v6(source), destination, protocol, payload))
