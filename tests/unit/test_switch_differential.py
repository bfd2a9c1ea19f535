"""The flow cache changes no output: a switch with it and one without see the same packets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.frames import TCP, UDP, encapsulated, ethernet, ipv4, ipv6, naive_checksum, ports
from support.random_frames import (
    broken,
    flow_frames,
    tenant_frames,
    tunnelled_flow_frames,
    vnet_headers,
    wire_frames,
)
from support.random_input import repeatable
from support.switch import MemorySwitch, mac_of, nic_mac, pa, policy, records, v4, v6
from testbed.switch.datapath import Datapath

FEWER = policy(lookup_records=tuple(record for record in records() if record.vm_name != "blue2"))

_changes = st.sampled_from(
    [
        ("policy", policy()),
        ("policy", FEWER),
        ("neighbor", (pa(2, 5001), nic_mac(2))),
        ("neighbor", (pa(2, 5001), None)),
        ("neighbor", (pa(3, 5001), nic_mac(7))),
    ]
)


@st.composite
def _steps(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """A few different packets, each several times in any order, with changes in between."""
    out, back = tenant_frames("blue1"), wire_frames()
    pool = [("vm", draw(flow_frames("blue1"))), ("wire", draw(tunnelled_flow_frames()))]
    pool.append(("vm", draw(broken(st.just(pool[0][1])) | out | broken(out))))
    pool.append(("wire", draw(broken(st.just(pool[1][1])) | back | broken(back))))
    headers = draw(st.lists(vnet_headers(), min_size=1, max_size=2))
    steps: list[tuple[str, Any]] = []
    for kind, frame in draw(st.lists(st.sampled_from(pool), min_size=4, max_size=14)):
        if draw(st.integers(0, 9)) == 0:
            steps.append(draw(_changes))
        more = bytes(draw(st.sampled_from([0, 0, 0, 1, 40]))) if kind == "vm" else b""
        steps.append((kind, (frame + more, draw(st.sampled_from(headers)))))
    return steps


def _do(switch: MemorySwitch, kind: str, what: Any) -> object:
    if kind == "policy":
        return switch.apply(what)
    if kind == "neighbor":
        return switch.neighbor(*what)
    frame, header = what
    return switch.from_vm("blue1", frame, header) if kind == "vm" else switch.from_wire(frame, header)


@repeatable
@given(_steps())
def test_with_and_without_the_cache(steps: list[tuple[str, Any]]) -> None:
    with MemorySwitch() as fast, MemorySwitch(cached=False) as slow:
        for kind, what in steps:
            assert _do(fast, kind, what) == _do(slow, kind, what)
        assert fast.unresolved == slow.unresolved


def test_the_sequences_do_use_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The differential above would prove nothing if nothing were cached."""
    counted: Counter[str] = Counter()
    for name in ("_first_from_vm", "_first_from_wire"):
        original = getattr(Datapath, name)

        def counting(*args: Any, original: Callable[..., None] = original, **more: Any) -> None:
            counted["full path"] += 1
            original(*args, **more)

        monkeypatch.setattr(Datapath, name, counting)

    @settings(repeatable, max_examples=60)
    @given(_steps())
    def run(steps: list[tuple[str, Any]]) -> None:
        with MemorySwitch() as switch:
            for kind, what in steps:
                counted["packets"] += kind in ("vm", "wire")
                _do(switch, kind, what)

    run()
    assert counted["packets"] - counted["full path"] > counted["packets"] // 8


def _neighbours(frame: bytes, end: int) -> Iterator[bytes]:
    """Frames that differ from ``frame`` a little, in its first ``end`` bytes."""
    for position in range(end):
        for flip in (0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFF):
            yield frame[:position] + bytes([frame[position] ^ flip]) + frame[position + 1 :]
    for position in {12, end - 2}:  # where Ethernet types are
        for kind in (0x8100, 0x88A8, 0x86DD, 0x0806):
            yield frame[:position] + kind.to_bytes(2, "big") + frame[position + 2 :]


def _with_outer_checksum(frame: bytes) -> bytes:
    header = frame[14:24] + b"\0\0" + frame[26:34]
    return frame[:24] + naive_checksum(header).to_bytes(2, "big") + frame[26:]


def _payload(protocol: int) -> bytes:
    return ports(1, 2) + bytes(protocol + 20)


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("version", [4, 6])
def test_no_cached_flow_answers_for_another_packet_of_a_vm(version: int, protocol: int) -> None:
    if version == 4:
        kind, packet = 0x0800, ipv4(v4("blue1"), v4("blue2"), protocol, _payload(protocol))
    else:
        kind, packet = 0x86DD, ipv6(v6("blue1"), v6("blue2"), protocol, _payload(protocol))
    base = ethernet(mac_of("blue2"), mac_of("blue1"), kind, packet)
    with MemorySwitch() as fast, MemorySwitch(cached=False) as slow:
        for frame in _neighbours(base, 38 if version == 4 else 58):
            fast.from_vm("blue1", base)
            assert fast.cached()
            assert fast.from_vm("blue1", frame) == slow.from_vm("blue1", frame)


def test_no_cached_flow_answers_for_another_packet_of_the_wire() -> None:
    inner = ethernet(
        mac_of("blue1"), mac_of("blue2"), 0x0800, ipv4(v4("blue2"), v4("blue1"), UDP, _payload(UDP))
    )
    base = encapsulated(inner, 5001, pa(2, 5001), pa(1, 5001), nic_mac(1))
    with MemorySwitch() as fast, MemorySwitch(cached=False) as slow:
        for neighbour in _neighbours(base, 56):
            for frame in (neighbour, _with_outer_checksum(neighbour)):
                fast.from_wire(base)
                assert fast.cached()
                assert fast.from_wire(frame) == slow.from_wire(frame)
