"""testbed.packets.lacp, with scapy as the other codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.lacp import LACP, SlowProtocol
from scapy.layers.l2 import Ether

from support.random_input import repeatable
from testbed.packets import lacp
from testbed.packets.lacp import Lacpdu, Party
from testbed.packets.malformed import MalformedFrame

MAC = bytes.fromhex("00155d000001")
ACTOR = Party(0x8000, bytes.fromhex("00155d0000a1"), 1, 0xFF, 3, 0x3D)
PARTNER = Party(0x7FFF, bytes.fromhex("00155d0000b2"), 0x1234, 0x80, 0x0107, 0xC7)
PDU = Lacpdu(ACTOR, PARTNER, 0x0A0B)
KNOWN = bytes.fromhex(
    "0180c2000002 00155d000001 8809 01 01"
    "01 14 8000 00155d0000a1 0001 00ff 0003 3d 000000"
    "02 14 7fff 00155d0000b2 1234 0080 0107 c7 000000"
    "03 10 0a0b 000000000000000000000000"
    "00 00" + "00" * 50
)
numbers = st.integers(0, 0xFFFF)
parties = st.builds(
    Party, numbers, st.binary(min_size=6, max_size=6), numbers, numbers, numbers, st.integers(0, 255)
)


def test_the_bytes_of_a_known_pdu() -> None:
    assert len(KNOWN) == 14 + lacp.SIZE
    assert lacp.build(PDU, MAC) == KNOWN
    assert lacp.parse(memoryview(KNOWN)) == PDU


def test_bytes_are_scapys() -> None:
    fields = {
        f"{name}_{theirs}": value
        for name, party in (("actor", ACTOR), ("partner", PARTNER))
        for theirs, value in (
            ("system_priority", party.system_priority),
            ("system", party.system.hex(":")),
            ("key", party.key),
            ("port_priority", party.port_priority),
            ("port_number", party.port),
            ("state", party.state),
        )
    }
    theirs = Ether(src=MAC.hex(":"), dst="01:80:c2:00:00:02", type=0x8809) / SlowProtocol(subtype=1)
    theirs /= LACP(version=1, collector_max_delay=PDU.collector_max_delay, **fields)
    assert bytes(theirs) == KNOWN


@repeatable
@given(parties, parties, numbers)
def test_round_trip_also_with_padding(actor: Party, partner: Party, delay: int) -> None:
    pdu = Lacpdu(actor, partner, delay)
    assert lacp.parse(lacp.build(pdu, MAC) + bytes(4)) == pdu


def test_every_truncation_is_refused() -> None:
    for length in range(len(KNOWN)):
        with pytest.raises(MalformedFrame, match="LACPDU truncated"):
            lacp.parse(KNOWN[:length])


@pytest.mark.parametrize(
    ("position", "said"),
    [
        *((at, "no frame of a slow protocol") for at in (0, 5, 12, 13)),
        (14, "is not LACP"),
        *((at, "information length lies") for at in (17, 37, 57)),
        (73, "terminator length lies"),
    ],
)
def test_what_is_wrong(position: int, said: str) -> None:
    frame = bytearray(KNOWN)
    frame[position] ^= 1
    with pytest.raises(MalformedFrame, match=said):
        lacp.parse(frame)


@pytest.mark.parametrize("position", [15, 16, 36, 56, 72, 33, 53, 71, 74, 123])
def test_version_types_and_reserved_bytes_are_not_validated(position: int) -> None:
    frame = bytearray(KNOWN)
    frame[position] ^= 0x55
    assert lacp.parse(frame) == PDU


@repeatable
@given(st.binary(max_size=140))
def test_nothing_but_malformed_frame_is_raised(tail: bytes) -> None:
    for frame in (tail, KNOWN[:15] + tail):
        try:
            lacp.parse(frame)
        except MalformedFrame:
            continue


def test_names_of_state_bits() -> None:
    assert lacp.state_names(0x3D) == [
        "activity",
        "aggregation",
        "synchronization",
        "collecting",
        "distributing",
    ]
    assert sum(lacp.STATE_NAMES.values()) == 0xFF
