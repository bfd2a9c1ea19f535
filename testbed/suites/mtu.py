"""The longest packet fits the PA network exactly; a longer one ends in the switch and its sender is told."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from testbed.conformance import probes
from testbed.namespaces import in_netns
from testbed.testing import journey
from testbed.testing.vm import token
from testbed.testing.waiting import until

if TYPE_CHECKING:
    from testbed.testing.lab import LiveLab
    from testbed.testing.vm import Vm
    from testbed.testing.watch import Frame

ETHERNET = 14
HEADERS = {4: 20 + 20, 6: 40 + 20}  # IP and TCP around the payload of Vm.frame
OVERHEAD = {4: 42, 6: 62}  # outer Ethernet-less headers by the PAs' family: IP, GRE, inner Ethernet
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
SECONDS = 10.0


class Path(NamedTuple):
    """Two VMs on different hosts. longest: bytes of the longest IP packet that fits between them."""

    one: Vm
    other: Vm
    longest: int
    overhead: int


def path(lab: LiveLab, version: int = 4) -> Path:
    """The first that there is."""
    one, other = lab.pairs(
        lambda one, other: bool(one.vsid) and one.vsid == other.vsid and one.host != other.host,
        "two VMs of one virtual subnet on different hosts",
        version=version,
    )[0]
    provider = next(iter(lab.host(one.host).provider_addresses(one.vsid)))
    overhead = OVERHEAD[6 if ":" in provider else 4]
    return Path(one, other, lab.lab.plan.fabric.pa_mtu - overhead, overhead)


def sized(one: Vm, other: Vm, version: int, size: int, mark: bytes) -> bytes:
    """A frame whose IP packet has ``size`` bytes."""
    return one.frame(other, mark + bytes(size - HEADERS[version] - len(mark)), version)


def test_kernels_have_the_mtu_that_was_decided(lab: LiveLab) -> None:
    """What is planned for each adapter; for a synthetic one, what fits into the PA network."""
    for each in lab.vms:
        assert each.mtu() == each.planned.mtu, each


@VERSIONS
def test_the_longest_packet(lab: LiveLab, version: int) -> None:
    """It leaves, is one frame of the PA network's MTU on the cable, and arrives whole."""
    way = path(lab, version)
    size = min(way.longest, way.one.mtu(), way.other.mtu())
    trip = journey.take(lab, way.one, way.other, lambda mark: sized(way.one, way.other, version, size, mark))
    journey.check(lab, trip)
    assert [frame.length for frame in trip.left] == [ETHERNET + size]
    lengths = {frame.length for frame in (*trip.from_host, *trip.to_host)}
    assert lengths == {ETHERNET + size + way.overhead}, f"frames of {lengths} bytes on the cables: {trip}"
    assert trip.arrived[0].length == ETHERNET + size


@VERSIONS
def test_one_byte_more(lab: LiveLab, version: int) -> None:
    """It leaves the VM, ends in the switch, which counts it and tells the VM what fits; no cable sees it."""
    way = path(lab, version)
    one, size, mark = way.one, way.longest + 1, token()
    host = lab.host(one.host)
    before = host.dropped("oversize")
    with one.with_mtu(size), lab.capture(*journey.points(lab, one, way.other)) as seen:
        frame = sized(one, way.other, version, size, mark)
        told = seen.wait(
            one.point,
            lambda frame: mark in frame.data and not frame.outgoing,
            lambda: one.send(frame),
            what=f"an ICMP error about {size} bytes",
            seconds=SECONDS,
        )
        assert mtu_of(told, version) == way.longest, f"{one} was told an MTU of {mtu_of(told, version)}"
        later = token()
        small = one.frame(way.other, later, version)
        seen.wait(way.other.point, later, lambda: one.send(small), outgoing=False, what="a later packet")
        trip = journey.of(lab, seen, one, way.other, mark)
        assert trip.left, trip
        assert not trip.from_host, f"on a cable: {trip}"
        assert not seen.count(way.other.point, mark), f"delivered: {trip}"
    until(lambda: host.dropped("oversize") > before, f"{host} counts a drop for oversize")


def mtu_of(frame: Frame, version: int) -> int:
    """The MTU in an ICMP error: RFC 1191 section 4, RFC 4443 section 3.2."""
    message = frame.data[ETHERNET + (20 if version == 4 else 40) :]
    if version == 4:
        assert message[:2] == b"\x03\x04", f"ICMP type and code {message[:2].hex()}"
        return int.from_bytes(message[6:8], "big")
    assert message[:2] == b"\x02\x00", f"ICMPv6 type and code {message[:2].hex()}"
    return int.from_bytes(message[4:8], "big")


def test_a_kernel_that_believes_in_more_learns(lab: LiveLab) -> None:
    """A VM with the MTU of the PA network comes to know what fits from the switch's word alone."""
    way = path(lab)
    size = way.longest + way.overhead
    mark = token()
    with way.one.with_mtu(size), lab.capture(way.other.point) as seen:
        payload = mark + bytes(size - 28 - len(mark))
        assert probes.learns_path_mtu(way.one, way.other.address(), payload), f"{way.one} was not told"
        assert not seen.count(way.other.point, mark), f"{way.other} got a packet of {size} bytes"


def test_fragments_of_a_kernel(lab: LiveLab) -> None:
    """A long datagram arrives whole; on the cables it is in frames that fit, none itself a fragment."""
    way = path(lab)
    mark = token()
    payload = mark + bytes(5 * way.longest)
    address = way.other.address()
    with in_netns(way.other.netns):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock, lab.capture(*journey.points(lab, way.one, way.other)) as seen:
        sock.bind((address, 9))
        sock.settimeout(0.5)
        assert received(sock, lambda: probes.datagram(way.one, address, payload)) == payload
        cables = seen.frames(lab.host(way.one.host).cables, lambda frame: frame.nvgre is not None)
    assert any(mark in frame.data for frame in cables), "it was on no cable"
    longest = lab.lab.plan.fabric.pa_mtu + ETHERNET
    assert max(frame.length for frame in cables) <= longest
    for frame in cables:
        if frame.data[12:14] == b"\x08\x00":
            assert int.from_bytes(frame.data[20:22], "big") & 0x3FFF == 0, (
                f"an outer fragment at {frame.point}"
            )


def received(sock: socket.socket, send: object) -> bytes:
    """What comes of sending, again and again."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert callable(send)
        send()
        try:
            return sock.recv(1 << 16)
        except TimeoutError:
            continue
    return b""
