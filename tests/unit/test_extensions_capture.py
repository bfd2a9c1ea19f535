"""The shipped capture and payload-filter extensions."""

from __future__ import annotations

from typing import Any

import pytest

from support.frames import TCP, UDP, encapsulated, ethernet, ipv4, ipv6, ports, vnet
from support.switch import MemorySwitch, Seen, mac_of, nic_mac, pa, v4, v6
from testbed.extensions.capture import Capture
from testbed.extensions.payload_filter import PayloadFilter
from testbed.switch.extensions.api import Extension
from testbed.switch.extensions.load import load
from testbed.telemetry import EventLog
from testbed.topology.plan import ExtensionPlan


def _loaded(name: str, **settings: Any) -> Extension:
    (extension,) = load([ExtensionPlan(name, settings)], EventLog())
    return extension


def _udp(name: str, to: str, payload: bytes = bytes(40)) -> bytes:
    length = (8 + len(payload)).to_bytes(2, "big")
    packet = ipv4(v4(name), v4(to), UDP, ports(1, 2) + length + b"\0\0" + payload)
    return ethernet(mac_of(to), mac_of(name), 0x0800, packet)


# ---- capture ------------------------------------------------------------------------------


def test_capture_keeps_what_passes_in_both_spaces() -> None:
    camera = _loaded("capture")
    assert isinstance(camera, Capture)
    with MemorySwitch(extensions=[camera]) as switch:
        frame = _udp("blue1", "blue2")
        sent = switch.from_vm("blue1", frame).frame
        assert switch.from_vm("blue1", frame).frame == sent
    shown = camera.query()
    assert [(each["direction"], each["space"]) for each in shown] == [("ingress", "CA"), ("egress", "PA")] * 2
    assert shown[1] | {"time": 0} == {
        "time": 0,
        "direction": "egress",
        "space": "PA",
        "vsid": 5001,
        "source": "blue1",
        "destination": "nic1",
        "length": len(sent),
        "segment_size": 0,
        "data": sent.hex(),
    }
    assert sorted(each["time"] for each in shown) == [each["time"] for each in shown]
    assert camera.counters() == {"ingress": 2, "egress": 2}


def test_capture_is_bounded_and_picks_vsids() -> None:
    camera = _loaded("capture", frames=3, snaplen=50, vsids=[5001])
    with MemorySwitch(extensions=[camera]) as switch:
        for size in range(5):
            switch.from_vm("blue1", _udp("blue1", "blue2", bytes(size)))
            switch.from_vm("red1", _udp("red1", "red2"))
    assert isinstance(camera, Capture)
    shown = camera.frames()
    assert [each["length"] for each in shown if each["direction"] == "ingress"] == [44, 45, 46]
    assert {each["vsid"] for each in shown} == {5001}
    assert {len(each["data"]) // 2 for each in shown if each["space"] == "PA"} == {50}
    assert camera.counters() == {"ingress": 5, "egress": 5}


# ---- payload-filter -----------------------------------------------------------------------

WORM = {"patterns": [{"reason": "worm", "text": "i am a worm"}, {"reason": "exe", "hex": "4d 5a 90"}]}


def _from_wire(inner: bytes) -> bytes:
    return encapsulated(inner, 5001, pa(2, 5001), pa(1, 5001), nic_mac(1))


@pytest.mark.parametrize(("payload", "reason"), [(b"--i am a worm", "worm"), (b"MZ\x90--", "exe")])
def test_a_pattern_is_found_in_both_spaces(payload: bytes, reason: str) -> None:
    scanner = _loaded("payload-filter", **WORM)
    with MemorySwitch(extensions=[scanner]) as switch:
        for _ in range(2):
            assert switch.from_vm("blue1", _udp("blue1", "blue2")).wire
            seen = switch.from_vm("blue1", _udp("blue1", "blue2", payload))
            assert (seen.wire, seen.drops) == ([], {("blue1", f"payload-filter:{reason}"): 1})
            seen = switch.from_wire(_from_wire(_udp("blue2", "blue1", payload)))
            assert (seen.ports, seen.drops) == ({}, {("nic1", f"payload-filter:{reason}"): 1})
    assert isinstance(scanner, PayloadFilter)
    assert scanner.counters()[reason] == 4


def _super_packet(payload: bytes, options: bytes = b"") -> bytes:
    header = ports(1, 2) + bytes(8) + bytes([(20 + len(options)) * 4, 16]) + bytes(6) + options
    packet = ipv6(v6("blue1"), v6("blue2"), TCP, header + payload)
    return ethernet(mac_of("blue2"), mac_of("blue1"), 0x86DD, packet)


def test_a_pattern_is_found_across_the_segments_of_a_super_packet() -> None:
    # segments of 1300 bytes: the pattern lies in two of them
    payload = bytes(12995) + b"i am a worm" + bytes(20000)
    with MemorySwitch(extensions=[_loaded("payload-filter", **WORM)]) as switch:
        offload = vnet(54, 16, gso_type=4, gso_size=1300, header=74)
        assert switch.from_vm("blue1", _super_packet(bytes(30000)), offload).wire
        assert switch.from_vm("blue1", _super_packet(payload), offload).wire == []


def test_the_payload_is_searched_not_the_headers() -> None:
    with MemorySwitch(extensions=[_loaded("payload-filter", **WORM)]) as switch:
        # in the TCP options
        assert switch.from_vm("blue1", _super_packet(b"--", b"i am a worm\0")).wire
        # behind the end of the IP packet: padding
        assert switch.from_vm("blue1", _udp("blue1", "blue2") + b"i am a worm").wire


def test_spaces_and_directions() -> None:
    def run(**settings: Any) -> tuple[Seen, Seen, Seen]:
        with MemorySwitch(extensions=[_loaded("payload-filter", **WORM, **settings)]) as switch:
            return (
                switch.from_vm("blue1", _udp("blue1", "blue2", b"i am a worm")),
                switch.from_vm("blue1", _udp("blue1", "blue4", b"i am a worm")),
                switch.from_wire(_from_wire(_udp("blue2", "blue1", b"i am a worm"))),
            )

    def passed(**settings: Any) -> list[bool]:
        return [bool(seen.wire or seen.ports) for seen in run(**settings)]

    assert passed() == [False, False, False]
    assert passed(spaces=["CA"]) == [False, False, True]
    assert passed(spaces=["PA"]) == [True, True, False]
    assert passed(spaces=["PA"], directions=["egress"]) == [False, True, True]
    assert passed(spaces=["CA"], directions=["egress"]) == [True, False, False]


def test_a_pattern_is_one_of_text_and_hex() -> None:
    for pattern, message in (
        ({"reason": "a"}, "give it either text or hex"),
        ({"reason": "a", "text": "b", "hex": "00"}, "give it either text or hex"),
        ({"reason": "a", "hex": "0"}, "is not hex"),
    ):
        with pytest.raises(Exception, match=message):
            _loaded("payload-filter", patterns=[pattern])
