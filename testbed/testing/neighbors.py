"""ARP and Neighbor Discovery as a test reads it in a frame, at a VM or inside NVGRE on a cable."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from testbed.testing.watch import Frame

_ARP, _IPV6, _ICMPV6 = b"\x08\x06", b"\x86\xdd", 58
_SOLICITATION, _ADVERTISEMENT = 135, 136


class Message(NamedTuple):
    """asks: a request or solicitation, else a reply or advertisement. mac: whose address it says that it is.

    target: the address that is asked for or told. sender: ARP's sender, the IPv6 source. to: the frame's MAC.
    """

    asks: bool
    target: str
    sender: str
    mac: str
    to: str

    @property
    def is_probe(self) -> bool:
        """Whether its sender has no address yet: duplicate detection."""
        return self.asks and self.sender in ("0.0.0.0", "::")


def parse(frame: bytes) -> Message | None:
    """What is in a frame of the customer's; None when it is neither ARP nor Neighbor Discovery."""
    to, kind = frame[:6].hex(":"), frame[12:14]
    if kind == _ARP and len(frame) >= 42:
        asks, sender, target = frame[20:22] == b"\0\1", frame[28:32], frame[38:42]
        return Message(asks, _text(target if asks else sender), _text(sender), frame[22:28].hex(":"), to)
    is_neighbor = kind == _IPV6 and len(frame) >= 78 and frame[20] == _ICMPV6
    if is_neighbor and frame[54] in (_SOLICITATION, _ADVERTISEMENT):
        link = frame[80:86] if len(frame) >= 86 else frame[6:12]  # option: link-layer address
        asks = frame[54] == _SOLICITATION
        return Message(asks, _text(frame[62:78]), _text(frame[22:38]), link.hex(":"), to)
    return None


def asks(target: str, sender_mac: str, to: str = "") -> Callable[[Frame], bool]:
    """Whether a frame is a request of this MAC for an address; ``to``: to this MAC."""

    def fits(frame: Frame) -> bool:
        found = parse(frame.inner)
        return bool(
            found
            and found.asks
            and found.target == target
            and frame.inner[6:12].hex(":") == sender_mac
            and to in ("", found.to)
        )

    return fits


def probes(target: str, sender_mac: str) -> Callable[[Frame], bool]:
    """Whether a frame is a duplicate probe of this MAC for an address; NUD's questions are none."""
    asked = asks(target, sender_mac)

    def fits(frame: Frame) -> bool:
        found = parse(frame.inner)
        return found is not None and found.is_probe and asked(frame)

    return fits


def tells(target: str, mac: str = "", to: str = "") -> Callable[[Frame], bool]:
    """Whether a frame says that an address is this MAC's (any: ""); ``to``: to this MAC."""

    def fits(frame: Frame) -> bool:
        found = parse(frame.inner)
        return bool(
            found
            and not found.asks
            and found.target == target
            and mac in ("", found.mac)
            and to in ("", found.to)
        )

    return fits


def announces(target: str, mac: str) -> Callable[[Frame], bool]:
    """Whether a frame tells of the address of the VM with this MAC: gratuitous ARP, or an advertisement."""
    told = tells(target, mac)

    def fits(frame: Frame) -> bool:
        found = parse(frame.inner)
        gratuitous = found is not None and found.asks and found.sender == found.target == target
        return (gratuitous and frame.inner[6:12].hex(":") == mac) or told(frame)

    return fits


def _text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))
