"""Filters of captures: the kernel's verdict on random frames is that of a plain model in Python."""

from __future__ import annotations

import random
import shutil
import socket
import struct

import pytest

from support.frames import GRE, ICMPV6, TCP, UDP, ethernet, ip, ipv4, ipv6, ports
from testbed.capture import bpf
from testbed.capture.filters import REFUSE, Criteria, at_adapter, at_wire, criteria
from testbed.errors import BadInput, MachineLacks
from testbed.socketfilter import LD_BYTE

MAC_A, MAC_B = bytes.fromhex("00155d000001"), bytes.fromhex("00155d000002")
CAS = ("10.0.0.5", "10.0.0.6", "fd00::5", "fd00::6")
PAS = ("192.168.7.1", "192.168.7.2", "fd00:7::1", "fd00:7::2")
VSIDS = (0, 5001, 5002, 0xFFFFFE)
needs_tcpdump = pytest.mark.skipif(shutil.which("tcpdump") is None, reason="no tcpdump")


class Kernel:
    """A pair of sockets of which the receiver has a program; the kernel itself runs it."""

    def __init__(self, program: bpf.Program) -> None:
        self._sender, self._receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._receiver.setblocking(False)
        bpf.attach(self._receiver, program)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self._sender.close()
        self._receiver.close()

    def kept(self, frame: bytes) -> int | None:
        """Bytes of the frame that come through, None: it does not."""
        self._sender.send(frame)
        try:
            return len(self._receiver.recv(1 << 17))
        except BlockingIOError:
            return None


# ---- the model --------------------------------------------------------------------------------


class Truncated(Exception):
    """A header that has to be looked at is not there."""


def field(frame: bytes, at: int, size: int) -> bytes:
    if len(frame) < at + size:
        raise Truncated
    return frame[at : at + size]


def inner_at(frame: bytes) -> int:
    """Where the inner frame starts, 0 if there is none."""
    kind = field(frame, 12, 2)
    if kind == b"\x08\x00":
        if field(frame, 14, 1) != b"\x45" or int.from_bytes(field(frame, 20, 2)) & 0x3FFF:
            return 0
        return 42 if field(frame, 23, 1)[0] == GRE and field(frame, 34, 4) == b"\x20\x00\x65\x58" else 0
    if kind == b"\x86\xdd":
        return 62 if field(frame, 20, 1)[0] == GRE and field(frame, 54, 4) == b"\x20\x00\x65\x58" else 0
    return 0


def is_about(frame: bytes, base: int, address: bytes) -> bool:
    kind = field(frame, base + 12, 2)
    if kind == b"\x86\xdd" and len(address) == 16:
        if any(field(frame, base + at, 16) == address for at in (22, 38)):
            return True
        if field(frame, base + 20, 1)[0] != ICMPV6 or field(frame, base + 54, 1)[0] not in (135, 136):
            return False
        return field(frame, base + 62, 16) == address
    places = {b"\x08\x00": (26, 30), b"\x08\x06": (28, 38)}.get(kind, ())
    return len(address) == 4 and any(field(frame, base + at, 4) == address for at in places)


def wanted(frame: bytes, criteria: Criteria) -> bool:
    if criteria == Criteria():
        return True
    try:
        base = inner_at(frame)
        vsid = int.from_bytes(field(frame, base - 4, 4)) >> 8 if base and criteria.vsid is not None else 0
        return (
            criteria.vsid in (None, vsid)
            and (not criteria.pa or is_about(frame, 0, criteria.pa))
            and (not criteria.ca or is_about(frame, base, criteria.ca))
        )
    except Truncated:
        return False


# ---- frames -----------------------------------------------------------------------------------


def arp(sender: str, target: str) -> bytes:
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    return ethernet(b"\xff" * 6, MAC_A, 0x0806, head + MAC_A + ip(sender) + bytes(6) + ip(target))


def plain(chance: random.Random, addresses: tuple[str, ...]) -> bytes:
    """A frame between two of the first two or the last two addresses."""
    family = chance.choice((4, 6))
    own = addresses[:2] if family == 4 else addresses[2:]
    source, destination = (chance.choice((*own, "10.9.9.9" if family == 4 else "fd99::9")) for _ in "ab")
    payload = ports(1000, chance.choice((53, 80))) + bytes(16)
    if family == 4:
        if chance.random() < 0.3:
            return arp(source, destination)
        protocol = chance.choice((TCP, UDP, GRE))
        fragment = chance.choice((0, 0, 0, 0x4000, 0x2000, 0x00FF))
        return ethernet(MAC_B, MAC_A, 0x0800, ipv4(source, destination, protocol, payload, fragment))
    if chance.random() < 0.4:
        kind = chance.choice((128, 134, 135, 136))
        payload = bytes([kind, 0, 0, 0, 0, 0, 0, 0]) + ip(chance.choice(own)) + bytes(8)
        return ethernet(MAC_B, MAC_A, 0x86DD, ipv6(source, destination, ICMPV6, payload))
    return ethernet(MAC_B, MAC_A, 0x86DD, ipv6(source, destination, chance.choice((TCP, GRE)), payload))


def frame(chance: random.Random) -> bytes:
    made = plain(chance, PAS)
    if chance.random() < 0.7:
        inner = plain(chance, CAS)
        pas = PAS[:2] if chance.random() < 0.5 else PAS[2:]
        fragment = chance.choice((0x4000, 0x4000, 0x4000, 0, 0x2000, 0x0010))
        made = tunnel(inner, *chance.sample(pas, 2), chance.choice(VSIDS), fragment)
        if chance.random() < 0.1:  # one byte of the outer header is another
            at = chance.randrange(12, 60)
            made = made[:at] + bytes([chance.randrange(256)]) + made[at + 1 :]
    return made[: chance.randrange(14, len(made) + 1)] if chance.random() < 0.1 else made


def tunnel(inner: bytes, source: str, destination: str, vsid: int, fragment: int = 0) -> bytes:
    payload = b"\x20\x00\x65\x58" + (vsid << 8 | 7).to_bytes(4) + inner
    if ":" in source:
        return ethernet(MAC_B, MAC_A, 0x86DD, ipv6(source, destination, GRE, payload))
    return ethernet(MAC_B, MAC_A, 0x0800, ipv4(source, destination, GRE, payload, fragment))


def some_criteria(chance: random.Random) -> Criteria:
    return Criteria(
        chance.choice((None, *VSIDS)),
        chance.choice((b"", *map(ip, CAS))),
        chance.choice((b"", b"", *map(ip, PAS))),
    )


@pytest.mark.parametrize("seed", range(60))
def test_at_the_wire_the_kernel_and_the_model_agree(seed: int) -> None:
    chance = random.Random(seed)
    asked = some_criteria(chance)
    seen = {True: 0, False: 0}
    with Kernel(at_wire(asked)) as kernel:
        for _ in range(300):
            each = frame(chance)
            expected = wanted(each, asked)
            assert kernel.kept(each) == (len(each) if expected else None), (asked, each.hex())
            seen[expected] += 1
    assert seen[False] or asked == Criteria()


def test_the_random_frames_are_of_all_kinds() -> None:
    chance, matches = random.Random(1), 0
    asked = Criteria(5001, ip("10.0.0.5"), ip("192.168.7.1"))
    for _ in range(5000):
        matches += wanted(frame(chance), asked)
    assert matches > 50


@pytest.mark.parametrize("address", CAS)
def test_at_an_adapter_the_frame_itself_is_asked(address: str) -> None:
    chance = random.Random(address)
    with Kernel(at_adapter(Criteria(5001, ip(address)), 5001)) as kernel:
        for _ in range(500):
            each = plain(chance, CAS)
            assert (kernel.kept(each) is not None) == is_about(each, 0, ip(address)), each.hex()


def test_an_adapter_has_a_vsid_and_no_provider_addresses() -> None:
    assert at_adapter(Criteria(5001), 5002) == REFUSE
    assert at_adapter(Criteria(pa=ip("192.168.7.1")), 5001) == REFUSE
    assert at_adapter(Criteria(5001), 5001) != REFUSE


def test_only_so_many_bytes_are_kept() -> None:
    made = tunnel(plain(random.Random(3), CAS), *PAS[:2], 5001)
    with Kernel(at_wire(Criteria(5001), 40)) as kernel:
        assert kernel.kept(made) == 40
    with Kernel(at_wire(Criteria(), 40)) as kernel:
        assert kernel.kept(made) == 40


# ---- expressions ------------------------------------------------------------------------------


@needs_tcpdump
@pytest.mark.parametrize("over", [PAS[:2], PAS[2:]], ids=["ipv4", "ipv6"])
def test_an_expression_looks_inside(over: tuple[str, str]) -> None:
    def udp(port: int) -> bytes:
        return ethernet(MAC_B, MAC_A, 0x0800, ipv4(*CAS[:2], UDP, ports(1000, port) + bytes(8)))

    asked = criteria(5001, None, None, "udp dst port 53 and host 10.0.0.6")
    with Kernel(at_wire(asked)) as kernel:
        assert kernel.kept(tunnel(udp(53), *over, 5001))
        assert kernel.kept(tunnel(udp(54), *over, 5001)) is None
        assert kernel.kept(tunnel(udp(53), *over, 5002)) is None
        assert kernel.kept(udp(53)) is None
    with Kernel(at_wire(criteria(None, None, None, "udp dst port 53"))) as kernel:
        assert kernel.kept(udp(53))
        assert kernel.kept(udp(54)) is None
        assert kernel.kept(tunnel(udp(53), *over, 1))
        assert kernel.kept(tunnel(udp(54), *over, 1)) is None
    with Kernel(at_wire(criteria(None, None, None, f"host {over[0]}"))) as kernel:
        assert kernel.kept(tunnel(udp(53), *over, 1))
        assert kernel.kept(udp(53)) is None
    with Kernel(at_adapter(criteria(None, "10.0.0.5", None, "udp dst port 53"), 1)) as kernel:
        assert kernel.kept(udp(53))
        assert kernel.kept(udp(54)) is None


@needs_tcpdump
def test_an_expression_that_is_none_is_refused_with_tcpdumps_words() -> None:
    with pytest.raises(BadInput, match=r"--bpf 'udp port prt': .*prt"):
        criteria(None, None, None, "udp port prt")


def test_without_tcpdump_there_are_no_expressions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MachineLacks, match="package tcpdump"):
        criteria(None, None, None, "udp")


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(BadInput, match=r"--ca '10\.0\.0' is no IP address"):
        criteria(None, "10.0.0", None, None)
    with pytest.raises(BadInput, match="--pa 'x' is no IP address"):
        criteria(None, None, "x", None)
    with pytest.raises(BadInput, match="--vsid 16777216: use 0"):
        criteria(1 << 24, None, None, None)


def test_a_jump_too_far_is_noticed() -> None:
    made = bpf.Assembler()
    made.jump(bpf.JEQ, 0, "end")
    for _ in range(256):
        made.put(LD_BYTE, 0)
    made.label("end")
    made.put(bpf.RET, 1)
    with pytest.raises(OverflowError):
        made.program()
