"""A real packet is known again wherever it is seen, and what is said of that. Whole labs: tests/e2e."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.frames import ip, mac
from support.memory_lab import MemoryLab
from support.switch import gateway_mac, mac_of, v4, v6
from testbed.cli.trace_text import lines
from testbed.errors import BadInput
from testbed.lab import trace as tracer
from testbed.lab import trace_frames, trace_real
from testbed.lab.trace import Asked
from testbed.lab.trace_frames import Ends, Kind
from testbed.lab.trace_real import Place, Sighting
from testbed.packets import arp, ethernet, icmp_echo, icmp_error
from testbed.packets import datagram as datagrams

MARK = bytes(range(16))
OTHER = mac("02:00:00:00:00:77")


@pytest.fixture
def lab() -> Iterator[MemoryLab]:
    made = MemoryLab()
    yield made
    made.close()


def frame_to(name: str, to: bytes | None = None, protocol: str = "icmp", version: int = 4) -> bytes:
    text = v4 if version == 4 else v6
    ends = Ends(mac_of("blue1"), to or mac_of(name), ip(text("blue1")), ip(text(name)))
    return trace_frames.packet(ends, Kind(protocol, 80, 1000, 0, MARK))


def sightings(dry: dict[str, Any]) -> list[Sighting]:
    """What would be seen of a packet of which the switches say this."""
    found = []
    for hop in dry["hops"]:
        for copy in hop["copies"]:
            if copy["to"] == "wire":
                cable = Place("cable", hop["host"], copy["nic"], "fabric", "p")
                found.append(Sighting(cable, bytes.fromhex(copy["frame"]), False))
            elif copy["to"] == "port":
                adapter = Place("adapter", hop["host"], copy["port"], copy["port"], "eth0")
                found.append(Sighting(adapter, bytes.fromhex(copy["frame"]), False))
            elif copy["to"] == "sender":
                adapter = Place("adapter", hop["host"], "blue1", "blue1", "eth0")
                found.append(Sighting(adapter, bytes.fromhex(copy["frame"]), False))
        if hop["direction"] == "inbound":
            cable = Place("cable", hop["host"], hop["nic"], "fabric", "p")
            wire = next(each.frame for each in found if each.place.kind == "cable")
            found.append(Sighting(cable, wire, True))
    return found


def followed(lab: MemoryLab, frame: bytes, lost: trace_real.Lost | None = None) -> tuple[Any, Any]:
    """What the dry trace says, and what is said of the sightings that it foretells."""
    dry = lab.trace("blue1", frame)
    start = tracer.started_at(lab, "blue1")  # type: ignore[arg-type]
    seen = sightings(dry)
    assert all(trace_real._is_it(each, start, frame) for each in seen)
    hops = trace_real._hops(start, seen, lost or {})
    return dry, tracer.result(lab, start, Asked(frame), hops, [])  # type: ignore[arg-type]


@pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6])
def test_what_is_delivered_is_seen_to_be(lab: MemoryLab, protocol: str, version: int) -> None:
    for name, to in (("blue2", None), ("blue4", None), ("web2", gateway_mac(5001))):
        dry, real = followed(lab, frame_to(name, to, protocol, version))
        assert (real["outcome"], real["arrives"]) == (dry["outcome"], True)
        assert [hop["host"] for hop in real["hops"]] == [hop["host"] for hop in dry["hops"]]
        assert [*lines(real)][-1] == real["outcome"]


def test_a_flood_is_seen_everywhere(lab: MemoryLab) -> None:
    _, real = followed(lab, trace_frames.discover(mac_of("blue1")))
    assert real["outcome"].startswith("delivered to")
    assert {name for name in ("blue2", "blue3", "blue4") if f"{name} ({name})" in real["outcome"]} == {
        "blue2",
        "blue3",
        "blue4",
    }


def test_answers_and_refusals_are_seen_by_the_sender(lab: MemoryLab) -> None:
    for version, text in ((4, v4), (6, v6)):
        ends = Ends(mac_of("blue1"), b"", ip(text("blue1")), ip(text("blue2")))
        dry, real = followed(lab, trace_frames.question(ends))
        assert real["outcome"] == dry["outcome"], version
    own = Ends(mac_of("blue1"), mac_of("blue2"), ip(v4("blue1")), ip(v4("blue2")))
    lost = {("host1", "blue1", "wnv", "oversize"): 1, ("host1", "nic1", "nic", "not-for-us"): 7}
    dry, real = followed(lab, trace_frames.packet(own, Kind("icmp", size=1480, mark=MARK)), lost)
    assert real["outcome"] == dry["outcome"] == "dropped: oversize at wnv on host1, and the sender is told"
    assert "1 counted meanwhile" in "\n".join(lines(real))
    _, real = followed(lab, frame_to("blue2"), {("host2", "nic1", "wnv", "no-port"): 1})
    counted = [
        (each["way"], each["reason"]) for each in real["hops"][1]["stages"] if each["verdict"] == "drop"
    ]
    assert counted == [("in", "no-port")]


def test_answers_of_the_other_vm_and_strangers_are_no_sightings(lab: MemoryLab) -> None:
    start = tracer.started_at(lab, "blue1")  # type: ignore[arg-type]
    frame = frame_to("blue2")
    echo = icmp_echo.parse(datagrams.parse(frame))
    assert echo is not None
    answer = datagrams.build(icmp_echo.build(echo.reply()), mac_of("blue1"), mac_of("blue2"))
    own = Place("adapter", "host1", "blue1", "blue1", "eth0")
    other = Place("adapter", "host2", "blue2", "blue2", "eth0")
    assert not trace_real._is_it(Sighting(own, answer, False), start, frame)
    assert not trace_real._is_it(Sighting(own, frame, True), start, frame)
    assert not trace_real._is_it(Sighting(other, answer, True), start, frame)
    assert not trace_real._is_it(Sighting(other, frame[:-20] + bytes(20), False), start, frame)
    told = icmp_error.too_big(frame, 1400, mac_of("blue1"))
    assert told is not None
    assert trace_real._is_it(Sighting(own, told, False), start, frame)
    asked = arp.build(
        arp.Arp(arp.REQUEST, OTHER, ip("10.0.0.9"), bytes(6), ip("10.0.0.6")), ethernet.BROADCAST
    )
    assert not trace_real._is_it(Sighting(own, asked, False), start, asked)


def test_a_super_packet_can_not_be_sent(lab: MemoryLab) -> None:
    start = tracer.started_at(lab, "blue1")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="1458 bytes"):
        trace_real.follow(lab, start, Asked(bytes(60), b"\1" * 10))  # type: ignore[arg-type]
