"""LACPDUs: the messages of the Link Aggregation Control Protocol (IEEE 802.1AX-2008 clause 5.4.2).

::

    0          14        15        16          36            56              72           74
    | Ethernet | subtype | version | actor TLV | partner TLV | collector TLV | terminator | 50 reserved
    0                 2        4                 6        12    14              16     18      19
    | type and length | system priority          | system | key | port priority | port | state | 3 reserved

The second line is an actor's or partner's TLV of 20 bytes. A frame is 124 bytes without FCS.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from testbed.packets import ethernet
from testbed.packets.checksum import Buffer
from testbed.packets.malformed import MalformedFrame

SLOW_PROTOCOLS = bytes.fromhex("0180c2000002")
"""The group address (annex 43B of IEEE 802.3); no bridge passes it on."""
TYPE_SLOW = 0x8809
SUBTYPE, VERSION = 1, 1
SIZE = 110  # bytes of an LACPDU

# bits of a state (clause 5.4.2.2 m)
ACTIVITY = 0x01
TIMEOUT = 0x02  # short
AGGREGATION = 0x04
SYNCHRONIZATION = 0x08
COLLECTING = 0x10
DISTRIBUTING = 0x20
DEFAULTED = 0x40
EXPIRED = 0x80
STATE_NAMES = {
    "activity": ACTIVITY,
    "timeout": TIMEOUT,
    "aggregation": AGGREGATION,
    "synchronization": SYNCHRONIZATION,
    "collecting": COLLECTING,
    "distributing": DISTRIBUTING,
    "defaulted": DEFAULTED,
    "expired": EXPIRED,
}

_PARTY = struct.Struct("!BBH6sHHHB3x")
_COLLECTOR = struct.Struct("!BBH12x")
_TERMINATOR = bytes(52)
_ACTOR_AT = ethernet.HEADER + 2
_PARTNER_AT = _ACTOR_AT + _PARTY.size
_COLLECTOR_AT = _PARTNER_AT + _PARTY.size
_TERMINATOR_AT = _COLLECTOR_AT + _COLLECTOR.size


class Party(NamedTuple):
    """One end of a link: system and port, each with a priority (the lower counts more), key and state.

    system: 6 bytes, a MAC; state: of the bits above; the rest are 16-bit numbers.
    """

    system_priority: int
    system: bytes
    key: int
    port_priority: int
    port: int
    state: int


class Lacpdu(NamedTuple):
    """What the sender says of itself and believes of the other; the delay is in units of 10 us."""

    actor: Party
    partner: Party
    collector_max_delay: int = 0


def state_names(state: int) -> list[str]:
    """The names of the bits that are set, lowest first."""
    return [name for name, bit in STATE_NAMES.items() if state & bit]


def build(pdu: Lacpdu, source: bytes) -> bytes:
    """A whole frame from the MAC ``source``."""
    body = bytes((SUBTYPE, VERSION))
    body += _PARTY.pack(1, _PARTY.size, *pdu.actor)
    body += _PARTY.pack(2, _PARTY.size, *pdu.partner)
    body += _COLLECTOR.pack(3, _COLLECTOR.size, pdu.collector_max_delay) + _TERMINATOR
    return ethernet.build(SLOW_PROTOCOLS, source, TYPE_SLOW, body)


def parse(frame: Buffer) -> Lacpdu:
    """The LACPDU of a whole frame. Raises MalformedFrame.

    Version, TLV types and reserved bytes are not looked at, so that later versions are understood; the
    lengths are (clause 5.4.12).
    """
    if len(frame) < ethernet.HEADER + SIZE:
        raise MalformedFrame("LACPDU truncated")
    if frame[12] << 8 | frame[13] != TYPE_SLOW or bytes(frame[:6]) != SLOW_PROTOCOLS:
        raise MalformedFrame("no frame of a slow protocol")
    if frame[14] != SUBTYPE:
        raise MalformedFrame("slow protocol is not LACP")
    _, actor_length, *actor = _PARTY.unpack_from(frame, _ACTOR_AT)
    _, partner_length, *partner = _PARTY.unpack_from(frame, _PARTNER_AT)
    _, collector_length, delay = _COLLECTOR.unpack_from(frame, _COLLECTOR_AT)
    if (actor_length, partner_length, collector_length) != (_PARTY.size, _PARTY.size, _COLLECTOR.size):
        raise MalformedFrame("LACPDU's information length lies")
    if frame[_TERMINATOR_AT + 1]:
        raise MalformedFrame("LACPDU's terminator length lies")
    return Lacpdu(Party(*actor), Party(*partner), delay)
