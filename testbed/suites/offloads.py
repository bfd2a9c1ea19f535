"""Whatever NICs do by themselves, the frames on the cables are right, and all bytes arrive."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

import pytest

from testbed.testing import journey, nics, streams
from testbed.testing.pairs import apart, talking
from testbed.testing.segments import Segment, parse, stream
from testbed.testing.vm import token
from testbed.testing.waiting import until

if TYPE_CHECKING:
    from testbed.testing.lab import LiveLab
    from testbed.testing.vm import Vm
    from testbed.testing.watch import Frame, Watch

BYTES = 300_000
PORT = 7500
FILLED = (
    0.5  # the part of the bytes on the cable that is in full segments; the rest are ends of super-packets
)
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
OFF = {
    "nothing off": (),
    "nvgre off": ("nvgre",),
    "lso off": ("nvgre-lso",),
    "checksum off": ("nvgre-tx-checksum",),
    "coalescing off": ("nvgre-rsc",),
    "verification off": ("nvgre-rx-checksum",),
}


class Sent(NamedTuple):
    """Segments of one stream, as they passed. super_packets: how many frames the VM has handed over uncut."""

    left: list[Segment]
    from_host: list[Segment]
    to_host: list[Segment]
    arrived: list[Segment]
    longest: int
    super_packets: int


def segments(frames: list[Frame], port: int) -> list[Segment]:
    """Those with this destination port, taken out of NVGRE."""
    found = (parse(frame.nvgre.inner if frame.nvgre else frame.data) for frame in frames)
    return [each for each in found if each and each.ports[1] == port]


def hops(lab: LiveLab, seen: Watch, one: Vm, other: Vm, port: int) -> Sent:
    """What passed at each hop from one VM to the other."""
    cables = {name: lab.host(name).cables for name in (one.host, other.host)}
    left = seen.frames(one.point, outgoing=True)
    from_host = seen.frames(cables[one.host], outgoing=False)
    to_host = seen.frames(cables[other.host], outgoing=True)
    on_cables = [each for each in (*from_host, *to_host) if each.nvgre]
    mtu = one.mtu()
    return Sent(
        segments(left, port),
        segments(from_host, port),
        segments(to_host, port),
        segments(seen.frames(other.point, outgoing=False), port),
        max((each.length for each in on_cables), default=0),
        sum(each.size > mtu for each in segments(left, port)),
    )


def is_frames(lab: LiveLab, one: Vm, other: Vm) -> bool:
    """Whether the cables between two VMs carry frames, as real ones do; else super-packets whole."""
    cables = lab.lab.plan.fabric.cables
    return all(cable.wire == "frames" for cable in cables if cable.host in (one.host, other.host))


def cutter(lab: LiveLab, host: str) -> str:
    """Who cuts super-packets for NVGRE: the NIC, or the switch in its place."""
    able = {"nvgre", "lso", "nvgre-lso"} <= nics.enabled(lab, host)
    return "tx_lso_packets" if able else "tx_software_segments"


@VERSIONS
@pytest.mark.parametrize("off", OFF.values(), ids=OFF)
def test_a_stream(lab: LiveLab, off: tuple[str, ...], version: int) -> None:
    """The same bytes leave the VM, are on the cables in full segments with right checksums, and arrive."""
    one, other = talking(lab, version)[0]
    data = random.Random(version).randbytes(BYTES)
    tasks = dict.fromkeys(off, False)
    counters = ("tx_lso_packets", "tx_software_segments")
    with nics.switched(lab, one.host, tasks), nics.switched(lab, other.host, tasks):
        before = nics.counted(lab, one.host, *counters)
        with lab.capture(*journey.points(lab, one, other)) as seen:
            got = streams.copy(one.netns, other.netns, other.address(version), data, PORT)
            sent = hops(lab, seen, one, other, PORT)
        counted = nics.counted(lab, one.host, *counters)
        by = cutter(lab, one.host)
    assert got == data, f"{other} got {len(got)} of {len(data)} bytes, or others"
    for what, found in (("left", sent.left), ("arrived", sent.arrived)):
        assert stream(found) == data, f"what {what} is not what was sent"
    for found in (sent.from_host, sent.to_host):
        assert stream(found) == data, "what was on a cable is not what was sent"
    grown = {name for name, now, then in zip(counters, counted, before, strict=True) if now > then}
    assert grown == ({by} if sent.super_packets else set()), f"{sent.super_packets} super-packets: {grown}"
    if is_frames(lab, one, other):
        check_cut(lab, one, other, sent)


def check_cut(lab: LiveLab, one: Vm, other: Vm, sent: Sent) -> None:
    """Frames fit the PA network, and are as long as they may be; all checksums are right."""
    longest = lab.lab.plan.fabric.pa_mtu + 14
    assert sent.longest <= longest, f"a frame of {sent.longest} bytes on a cable"
    full = min(one.mtu(), other.mtu())
    for found in (sent.from_host, sent.to_host):
        bad = [each for each in found if not each.is_good]
        assert not bad, f"{len(bad)} of {len(found)} segments on a cable have wrong checksums"
        filled = sum(len(each.data) for each in found if each.size == full)
        sizes = sorted({each.size for each in found})
        assert filled >= FILLED * BYTES, f"packets of {sizes} bytes on a cable, hardly any of {full}"


@VERSIONS
@pytest.mark.parametrize("verifies", [True, False], ids=["verified", "handed-up"])
def test_a_wrong_checksum(lab: LiveLab, version: int, *, verifies: bool) -> None:
    """It is on the cables as it left the VM; a NIC that verifies drops it, another one hands it up."""
    one, other = apart(lab, version)[0]
    host = lab.host(other.host)
    if verifies:
        nics.require(lab, host.name, "nvgre", "nvgre-rx-checksum", "rx-checksum")
    tasks = dict.fromkeys(
        ("nvgre", "nvgre-rx-checksum", "rx-checksum") if verifies else ("nvgre-rx-checksum",), verifies
    )
    with nics.switched(lab, host.name, tasks), lab.capture(*journey.points(lab, one, other)) as seen:
        before, mark, later = host.dropped("bad-checksum"), token(), token()
        good = one.frame(other, later, version)
        seen.wait(other.point, later, lambda: one.send(good), outgoing=False, what="a packet before")
        one.send(spoilt(one.frame(other, mark, version)))
        after = token()
        good = one.frame(other, after, version)
        seen.wait(other.point, after, lambda: one.send(good), outgoing=False, what="a later packet")
        trip = journey.of(lab, seen, one, other, mark)
        assert trip.left, trip
        assert trip.from_host, trip
        assert trip.to_host, trip
        assert bool(trip.arrived) is not verifies, f"verification {'on' if verifies else 'off'}: {trip}"
    if verifies:
        until(lambda: host.dropped("bad-checksum") > before, f"{host} counts a drop for bad-checksum")


def spoilt(frame: bytes) -> bytes:
    """With another TCP checksum."""
    at = 14 + (20 if frame[12:14] == b"\x08\x00" else 40) + 16
    return frame[:at] + bytes([frame[at] ^ 0xFF]) + frame[at + 1 :]
