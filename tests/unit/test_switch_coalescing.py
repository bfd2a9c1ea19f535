"""What the kernel's GRO has joined though NDIS would not have, and what it has joined rightly."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest

from support import offload_truth as truth
from support.frames import encapsulated
from support.offload_truth import ACK, CWR, ECE, FIN, PSH, RST, SYN, TIMESTAMP, URG, Packet, Path
from support.switch import MemorySwitch, mac_of, nic_mac, pa, v4, v6
from testbed.nic.guest import GuestOffloads
from testbed.packets import nvgre
from testbed.switch.buffer import WIRE, FrameBuffer
from testbed.switch.coalescing import joinable

MSS = 1000
COUNT = 5
PATH = Path(
    "test",
    "blue2",
    "blue1",
    (mac_of("blue2"), mac_of("blue1")),
    {4: (v4("blue2"), v4("blue1")), 6: (v6("blue2"), v6("blue1"))},
    1458,
    0,
)
SACK = b"\1\1\5\x0a" + bytes(8)
DESTINATION_OPTIONS = b"\6\0\1\4" + bytes(4)
VERSIONS = pytest.mark.parametrize("version", [4, 6])


def packet(version: int = 4, size: int = COUNT * MSS, **more: object) -> Packet:
    """A joined one."""
    data = random.Random(size).randbytes(size)
    fields = {"flags": ACK | PSH, "sequence": 0xFFFFFF00, "identification": 0x7FFE, **more}
    return truth.tcp(PATH, version, 80, data, mss=MSS, **fields)  # type: ignore[arg-type]


def on_the_wire(inner: Packet, outer: int) -> Packet:
    frame = encapsulated(inner.frame, 5001, pa(2, 5001, outer), pa(1, 5001, outer), nic_mac(1))
    moved = nvgre.OUTER_IPV4 if outer == 4 else nvgre.OUTER_IPV6
    flags, kind, header, size, start, offset = struct.unpack("=BBHHHH", inner.vnet)
    return Packet(struct.pack("=BBHHHH", flags, kind, header + moved, size, start + moved, offset), frame)


def in_one_piece(inner: Packet) -> Packet:
    """As the kernel tells of a short packet: all of it lies together, not only its headers."""
    flags, kind, _, size, start, offset = struct.unpack("=BBHHHH", inner.vnet)
    length = min(len(inner.frame), 0xFFFF - nvgre.OUTER_IPV6)
    return Packet(struct.pack("=BBHHHH", flags, kind, length, size, start, offset), inner.frame)


def received(switch: MemorySwitch, inner: Packet, outer: int) -> list[Packet]:
    """What the VM gets; the frames are those that were joined, whatever became of them."""
    seen = switch.from_wire(*reversed(on_the_wire(inner, outer)))
    assert not seen.drops
    found = [Packet(*each) for each in seen.ports["blue1"]]
    frames = [frame for each in found for frame in truth.canonical(each)]
    assert frames == truth.canonical(inner)  # identifications count in 16 bits
    return found


@pytest.fixture(params=[4, 6])
def outer(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def switch(outer: int) -> Iterator[MemorySwitch]:
    with MemorySwitch(version=outer) as made:
        yield made


JOINED = {
    "ACK": {"flags": ACK},
    "PSH": {"flags": ACK | PSH},
    "no option": {"options": b""},
    "a timestamp in another place": {"options": TIMESTAMP[2:] + b"\1\1"},
    "a timestamp, then the end": {"options": TIMESTAMP[2:] + b"\0\0"},
    "NOPs alone": {"options": b"\1\1\1\1"},
}
CUT = {
    **{
        str(flag): {"flags": ACK | flag}
        for flag in (SYN, RST, URG, ECE, CWR, FIN | ECE, SYN | FIN, PSH | RST)
    },
    "SACK": {"options": TIMESTAMP + SACK},
    "SACK and FIN": {"options": SACK, "flags": ACK | FIN},
    "two timestamps": {"options": TIMESTAMP * 2},
    "an unknown option": {"options": b"\xfd\x04\0\0"},
}


@VERSIONS
@pytest.mark.parametrize("name", JOINED)
def test_what_ndis_joins_stays_joined(switch: MemorySwitch, outer: int, version: int, name: str) -> None:
    inner = packet(version, **JOINED[name])
    for _ in range(2):
        assert received(switch, inner, outer) == [inner]
    assert (switch.nic.rx_rsc_packets, switch.nic.rx_rsc_segments) == (2, 2 * COUNT)


@VERSIONS
@pytest.mark.parametrize("name", CUT)
def test_what_ndis_does_not_join_is_cut(switch: MemorySwitch, outer: int, version: int, name: str) -> None:
    for size in (COUNT * MSS, COUNT * MSS - 1):
        found = received(switch, packet(version, size, **CUT[name]), outer)
        assert [each.is_super for each in found] == [False] * COUNT
    assert (switch.nic.rx_rsc_packets, switch.nic.rx_rsc_segments) == (0, 0)


def test_extension_headers_of_ipv6_are_not_joined(switch: MemorySwitch, outer: int) -> None:
    found = received(switch, packet(6, extension=DESTINATION_OPTIONS), outer)
    assert [each.is_super for each in found] == [False] * COUNT


@VERSIONS
@pytest.mark.parametrize("size", [3 * MSS, 3 * MSS - 1, 60 * MSS + 1])
def test_fin_alone_is_taken_off(switch: MemorySwitch, outer: int, version: int, size: int) -> None:
    count = -(-size // MSS)
    for _ in range(2):
        inner = in_one_piece(packet(version, size, flags=ACK | PSH | FIN))
        rest, last = received(switch, inner, outer)
        assert rest.is_super
        assert not last.is_super
        assert int.from_bytes(rest.vnet[2:4], "little") <= len(rest.frame)  # or the VM's adapter refuses it
        assert len(truth.canonical(rest)) == count - 1
    assert (switch.nic.rx_rsc_packets, switch.nic.rx_rsc_segments) == (2, 2 * (count - 1))


def test_of_two_frames_none_is_left_joined(switch: MemorySwitch, outer: int) -> None:
    found = received(switch, packet(size=MSS + 1, flags=ACK | FIN), outer)
    assert [each.is_super for each in found] == [False, False]
    assert switch.nic.rx_rsc_packets == 0


def test_an_adapter_without_rsc_gets_frames_of_both(switch: MemorySwitch, outer: int) -> None:
    switch.state.ports["blue1"].use(GuestOffloads().changed({"rsc": False}))
    found = received(switch, packet(flags=ACK | FIN), outer)
    assert [each.is_super for each in found] == [False] * COUNT


def test_the_flow_cache_serves_the_pieces(switch: MemorySwitch, outer: int) -> None:
    received(switch, packet(flags=ACK | ECE), outer)
    assert switch.cached() == 1
    decided = switch.datapath._first_from_wire
    switch.datapath._first_from_wire = lambda *_: pytest.fail("decided again")  # type: ignore[method-assign]
    received(switch, packet(flags=ACK | ECE), outer)
    switch.datapath._first_from_wire = decided  # type: ignore[method-assign]


def test_the_rule_against_its_definition() -> None:
    """On random flags and options: parsed here in another way."""
    dice, data = random.Random(3), FrameBuffer().data
    pieces = [b"\1", b"\1", TIMESTAMP[2:], SACK[2:], b"\x03\x03\x07", b"\x02\x04\x05\xb4", b"\0"]
    agreed = {True: 0, False: 0}
    for _ in range(4000):
        options = b"".join(dice.choice(pieces) for _ in range(dice.randrange(5)))[:40]
        options += b"\1" * (-len(options) % 4)
        flags = ACK | dice.choice((0, PSH, PSH, 0, 1 << dice.randrange(8)))
        start = dice.choice((34, 54, 76, 96, 116, 96, 62, 104, 124))
        tcp = WIRE + start
        data[tcp : tcp + 80] = bytes(12) + bytes((5 + len(options) // 4 << 4, flags)) + bytes(66)
        data[tcp + 20 : tcp + 20 + len(options)] = options
        kinds = _kinds(options)
        wanted = flags in (ACK, ACK | PSH) and start not in (62, 104, 124) and kinds in ([], [8])
        assert joinable(data, tcp, start) is wanted, (options.hex(), flags, start)
        agreed[wanted] += 1
    assert min(agreed.values()) > 500


def _kinds(options: bytes) -> list[int]:
    """Kinds of the options, without padding; one that is cut off counts."""
    found = []
    while options and options[0]:
        size = 1 if options[0] == 1 else options[1] if len(options) > 1 else 2
        found += [options[0]] if options[0] != 1 else []
        options = options[max(size, 1) :]
    return found
