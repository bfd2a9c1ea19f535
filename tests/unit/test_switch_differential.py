"""The flow cache changes no output: a switch with it and one without see the same packets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from support.accounting import CONFIGS, MODES, Config
from support.changes import policies, series, twins
from support.frames import TCP, UDP, encapsulated, ethernet, ipv4, ipv6, naive_checksum, ports
from support.switch import MemorySwitch, mac_of, nic_mac, pa, v4, v6
from testbed.switch.datapath import Datapath
from testbed.topology.schema import WnvMode

SERIES, LENGTH = 3, 120


def _run(config: Config, start: str) -> tuple[int, int]:
    """How many changes were made and ordered in some series of packets and changes, the same each time."""
    changed = ordered = 0
    for number in range(SERIES):
        rng = Random(f"{config} {start} {number}")
        with twins(config, policies(config.version)[start]) as both:
            for at, (kind, what) in enumerate(series(rng, config.version, LENGTH)):
                ordered += kind not in ("vm", "wire")
                try:
                    both.do(kind, what)
                except AssertionError as error:
                    raise AssertionError(f"series {number}, step {at}: {kind} {what}") from error
            changed += both.changed
    return changed, ordered


@pytest.mark.parametrize("start", policies(4))
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_with_and_without_the_cache(config: Config, start: str) -> None:
    _run(config, start)


@pytest.mark.parametrize("extensions", ["none", "flow"])
@pytest.mark.parametrize("mode", MODES)
def test_the_series_do_use_the_cache_and_change_something(
    monkeypatch: pytest.MonkeyPatch, mode: WnvMode, extensions: str
) -> None:
    """The differential above would prove nothing if nothing were cached, or every change refused."""
    counted: Counter[str] = Counter()
    for name in ("_first_from_vm", "_first_from_wire", "drain_port", "drain_uplink"):
        original = getattr(Datapath, name)

        def counting(
            *args: Any, name: str = name, original: Callable[..., None] = original, **more: Any
        ) -> None:
            counted["full path" if name.startswith("_") else "packets"] += 1
            original(*args, **more)

        monkeypatch.setattr(Datapath, name, counting)
    changed, ordered = _run(Config(mode, 4, extensions), "plain")
    # half of the packets are those of the switch without a cache
    assert counted["packets"] - counted["full path"] > counted["packets"] // 16
    assert changed > ordered // 2 > 10


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
    return ports(3, 2) + bytes(protocol + 20)  # port 3: see the rules of the flow-scope extensions


@pytest.mark.parametrize("extensions", ["none", "flow"])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("version", [4, 6])
def test_no_cached_flow_answers_for_another_packet_of_a_vm(
    version: int, protocol: int, extensions: str
) -> None:
    config = Config("in-switch", 4, extensions)
    if version == 4:
        kind, packet = 0x0800, ipv4(v4("blue1"), v4("blue2"), protocol, _payload(protocol))
    else:
        kind, packet = 0x86DD, ipv6(v6("blue1"), v6("blue2"), protocol, _payload(protocol))
    base = ethernet(mac_of("blue2"), mac_of("blue1"), kind, packet)
    with config.made() as fast, config.made(cached=False) as slow:
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
