"""The event of a packet that contradicts the policy (wnvapi's policy mismatch notification)."""

from __future__ import annotations

import ipaddress

from testbed.packets import ethernet
from testbed.packets.checksum import Buffer
from testbed.switch.state import SwitchState

_VERSION = {0: 0, 4: 4, 16: 6}


def report(state: SwitchState, nic: str, vsid: int, ca: bytes, pa: bytes) -> None:
    """Note a packet from the PA ``pa`` whose inner source is ``ca`` (empty if it has none).

    Families are 4 and 6, 0 where there is no address. What the flow cache drops is noted once per flow.
    """
    state.events.add(
        "policy-mismatch",
        nic,
        ca_family=_VERSION[len(ca)],
        pa_family=_VERSION[len(pa)],
        vsid=vsid,
        ca=str(ipaddress.ip_address(ca)) if ca else "",
        pa=str(ipaddress.ip_address(pa)),
    )


def inner_source(frame: Buffer) -> bytes:
    """The CA from which a frame claims to be, empty if it claims none."""
    kind = ethernet.ethertype(frame)
    if kind == ethernet.TYPE_IPV4 and len(frame) >= 34:
        return bytes(frame[26:30])
    if kind == ethernet.TYPE_ARP and len(frame) >= 42:
        return bytes(frame[28:32])
    if kind == ethernet.TYPE_IPV6 and len(frame) >= 54:
        return bytes(frame[22:38])
    return b""
