"""Every parser takes any bytes: it says what it read, or MalformedFrame, and never anything else."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.corpus import pa_frames, vm_frames, wire_frames
from support.mutations import lying, resealed, spoiled, truncated
from support.random_frames import broken
from support.random_input import repeatable
from support.switch import mac_of
from testbed.extensions import headers
from testbed.extensions.acl import Acl
from testbed.extensions.connections import segment_of
from testbed.extensions.payload_filter import PayloadFilter
from testbed.extensions.port_security import PortSecurity
from testbed.extensions.rules import Subject
from testbed.host.pa import wire
from testbed.packets import (
    arp,
    datagram,
    dhcp,
    dhcpv6,
    ethernet,
    icmp_echo,
    icmp_error,
    igmp,
    mld,
    ndp,
    nvgre,
    redirect,
    translate,
    udp,
)
from testbed.packets.malformed import MalformedFrame
from testbed.switch.extensions.api import Deny, Extension, Frame, SwitchPort
from testbed.switch.extensions.load import settings_for
from testbed.telemetry import EventLog

Parser = Callable[[bytes], object]

# What NVGRE may carry is shown as a VM sends it; of tunnelled frames a few are enough
_TUNNELLED = ("udp", "tcp6", "arp request", "later fragment", "options", "nested", "tagged")
CORPUS = vm_frames() | {
    f"{name}{family}": frame
    for version, family in ((4, ""), (6, " over ipv6"))
    for name, frame in wire_frames(version).items()
    if name.removeprefix("tunnelled ") in _TUNNELLED or not name.startswith("tunnelled")
}
CHECKSUMMED = [frame for name, frame in pa_frames().items() if not name.startswith("arp")]
CHECKSUMMED += [CORPUS["tunnelled udp"], CORPUS["tunnelled udp over ipv6"]]
SETTINGS: dict[type[Extension], dict[str, Any]] = {
    Acl: {
        "rules": [
            {"action": "allow", "protocol": "tcp", "remote_ports": ["1-100"], "stateful": True},
            {"action": "allow", "protocol": "icmp", "stateful": True},
            {"action": "allow", "space": "PA", "stateful": True},
            {"action": "deny", "local": ["10.0.0.0/24"], "protocol": "udp", "local_ports": [53]},
        ],
    },
    PortSecurity: {"dynamic_address_limit": 2, "ports": [{"name": "nic1", "mac_spoofing": True}]},
    PayloadFilter: {
        "patterns": [{"reason": "zeros", "hex": "00" * 40}],
        "directions": ["ingress", "egress"],
    },
}


def _made(kind: type[Extension]) -> Extension:
    made = kind("extension", settings_for(kind, SETTINGS[kind]), EventLog())
    for name in ("blue1", "nic1"):  # nic1: so that what comes from the wire is judged, too
        made.attach_port(SwitchPort(name, mac_of("blue1"), 5001))
    return made


def _asked(extension: Extension, shown: Frame) -> None:
    assert extension.scope_of(shown) in ("flow", "packet")
    for decision in (extension.ingress(shown), extension.egress(shown)):
        assert decision is None or isinstance(decision, Deny)


def _extension(kind: type[Extension], space: str) -> Parser:
    """The extension at each of its places. In PA space a frame is taken apart wherever it is asked to be."""
    extension = _made(kind)

    def ask(frame: bytes) -> None:
        view = memoryview(frame).toreadonly()
        if space == "CA":
            for name, other in itertools.permutations(("blue1", "nic1")):
                _asked(extension, Frame("CA", b"", view, 5001, name, other))
            return
        for header in (nvgre.OUTER_IPV4, nvgre.OUTER_IPV6):
            _asked(extension, Frame("PA", view[:header], view[header:], 5001, "nic1", "blue1"))

    return ask


def _of_datagram(parse: Callable[[datagram.Datagram], object]) -> Parser:
    return lambda frame: parse(datagram.parse(frame))


def _read_headers(frame: bytes) -> None:
    found = headers.parse(frame)
    if found is None:
        return
    assert found.offset <= found.end <= len(frame)
    start, end = headers.payload(frame, found)
    assert found.offset <= start <= end <= len(frame)
    read = headers.ports(frame, found) or (None, None)
    headers.icmp_type(frame, found)
    for outgoing in (True, False):
        subject = Subject("p", outgoing, 1, found.protocol, found.source, found.destination, *read)
        segment_of(frame, found, subject)


def _read_udp(frame: bytes) -> None:
    found = udp.find(frame)
    assert found is None or 42 <= found.start <= found.end <= len(frame)


def _in_udp(parse: Callable[[bytes], object]) -> Parser:
    """In UDP where there is some, else on the frame itself: any bytes will do."""

    def read(frame: bytes) -> None:
        found = udp.find(frame)
        parse(frame[found.start : found.end] if found else frame)

    return read


def _read_lease(payload: bytes) -> None:
    assert all(len(address) == 16 for address in dhcpv6.parse(payload).addresses)


def _query(found: igmp.Query | None, size: int) -> None:
    if found is not None:
        assert {len(each) for each in (found.group, *found.sources)} == {size}
        assert found.max_response >= 0


def _read_nvgre(frame: bytes) -> None:
    outer = nvgre.parse(frame)
    assert outer.header + 14 <= outer.length <= len(frame)
    assert nvgre.carries_gre(frame)
    assert len(outer.source_pa) == len(outer.destination_pa) == {42: 4, 62: 16}[outer.header]


def _too_big(frame: bytes) -> None:
    for own in ((b"", b""), (b"\2" * 6, bytes(range(1, 5))), (b"\2" * 6, b"\xfd" + bytes(15))):
        answer = icmp_error.too_big(frame, 1400, b"\2" * 6, *own)
        assert answer is None or len(answer) <= 14 + 1280


def _translate(frame: bytes) -> None:
    for size in (4, 16):
        for open_at in (-1, 50, 0xFFFF * 2):
            changed = bytearray(frame)
            old = bytes(changed)
            try:
                translate.replace_addresses(memoryview(changed), b"\7" * size, b"\t" * size, open_at)
            except MalformedFrame:
                assert changed == old  # refused frames are left alone
            else:
                assert size == 16 or old[14] & 15 >= 5


PARSERS: dict[str, Parser] = {
    "ethernet": ethernet.ethertype,
    "arp": arp.parse,
    "ndp": ndp.parse,
    "icmpv6 type": ndp.icmpv6_type,
    "nvgre": _read_nvgre,
    "gre": nvgre.carries_gre,
    "datagram": datagram.parse,
    "pa space": datagram.is_of_pa_space,
    "echo": _of_datagram(icmp_echo.parse),
    "igmp": _of_datagram(lambda read: _query(igmp.parse_query(read), 4)),
    "mld": _of_datagram(lambda read: _query(mld.parse_query(read), 16)),
    "redirect": _of_datagram(redirect.parse),
    "udp": _read_udp,
    "dhcp": _in_udp(dhcp.parse),
    "dhcp6": _in_udp(_read_lease),
    "neighbor of the pa space": wire.read,
    "too big": _too_big,
    "translate": _translate,
    "headers": _read_headers,
    **{f"{kind.__name__} {space}": _extension(kind, space) for kind in SETTINGS for space in ("CA", "PA")},
}
# These say "no" by None or False, and have no reason to refuse anything
NEVER_REFUSING = {"udp", "icmpv6 type", "pa space", "too big", "headers"} | {
    name for name in PARSERS if name[-2:] in ("CA", "PA")
}


def _takes(name: str, frame: bytes) -> bool:
    """Whether the parser takes the frame; any exception but MalformedFrame is the test's failure."""
    try:
        PARSERS[name](frame)
    except MalformedFrame:
        assert name not in NEVER_REFUSING, frame.hex()
        return False
    except Exception as error:
        raise AssertionError(f"{name}: {type(error).__name__}: {error}: {frame.hex()}") from error
    return True


@pytest.mark.parametrize("name", PARSERS)
def test_truncated_and_lying(name: str) -> None:
    for frame in CORPUS.values():
        _takes(name, frame)
        for changed in spoiled(frame):
            _takes(name, changed)
    for frame in CHECKSUMMED:
        for changed in resealed(frame):
            _takes(name, changed)


@pytest.mark.parametrize("name", PARSERS)
def test_any_bytes(name: str) -> None:
    frames = st.sampled_from([*CORPUS.values()])

    @settings(repeatable, max_examples=100)
    @given(st.one_of(broken(frames), st.binary(max_size=200), _spliced(frames)))
    def run(frame: bytes) -> None:
        _takes(name, frame)

    run()


@st.composite
def _spliced(draw: st.DrawFn, frames: st.SearchStrategy[bytes]) -> bytes:
    """The start of one frame and the end of another."""
    head, tail = draw(frames), draw(frames)
    return head[: draw(st.integers(0, len(head)))] + tail[draw(st.integers(0, len(tail))) :]


def _understood() -> Iterator[tuple[str, str]]:
    """Parser, and a frame whose every byte it needs."""
    pa = {
        "arp": "arp request",
        "ndp": "na",
        "echo": "echo6",
        "igmp": "igmp query",
        "mld": "mld query",
        "redirect": "redirect6",
        "neighbor of the pa space": "ns",
    }
    yield from ((parser, f"pa {frame}") for parser, frame in pa.items())
    yield from (("dhcp", "dhcp ack"), ("dhcp6", "dhcp6 reply"))
    yield from (("nvgre", f"tunnelled udp{family}") for family in ("", " over ipv6"))


@pytest.mark.parametrize(("name", "frame"), [*_understood()])
def test_a_whole_frame_is_read_and_a_part_of_it_never(name: str, frame: str) -> None:
    """The tests above would pass if a parser refused, or took, everything."""
    assert _takes(name, CORPUS[frame])
    assert not any(_takes(name, part) for part in truncated(CORPUS[frame]))


@pytest.mark.parametrize("frame", sorted(pa_frames()))
def test_no_lie_about_a_checksummed_message_is_believed(frame: str) -> None:
    """In what has a checksum, a changed byte of a message is found (ARP has none)."""
    kinds = {"echo": "echo", "mld": "mld", "igmp": "igmp", "redirect": "redirect", "ns": "ndp", "na": "ndp"}
    parser = next((kinds[key] for key in kinds if frame.startswith(key)), None)
    whole = pa_frames()[frame]
    if parser is None:
        assert frame.startswith("arp")
        return
    at = 34 if whole[12] == 0x08 else 62 if whole[20] == 0 else 54  # behind a hop-by-hop header
    for changed in lying(whole):
        if changed[:at] == whole[:at]:
            assert not _takes(parser, changed)
