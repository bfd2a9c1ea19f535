"""testbed.host.pa against a kernel's own stack at the other end of a cable: PAs, neighbors, ping."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from support.frames import BROADCAST, arp, ethernet, icmpv6, ip, ipv4, mac, naive_checksum, solicitation
from support.pa_cable import (
    MAC,
    OTHER,
    PA4,
    PA6,
    PEER4,
    PEER6,
    SECONDS,
    THIRD,
    Cable,
    laid,
    preferred,
    together,
    until,
)
from testbed.host.pa.addresses import AddressState
from testbed.host.pa.groups import link_local
from testbed.namespaces import in_netns

pytestmark = pytest.mark.netns


@pytest.fixture
def cable() -> Iterator[Cable]:
    with laid() as made:
        yield made


# ---- addresses ----------------------------------------------------------------------------


async def kernel_ping(cable: Cable, address: str, payload: bytes) -> bytes:
    """The reply, ICMP header first, that the other end's kernel gets."""
    six = ":" in address
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, 1)
    request = struct.pack("!BBHHH", 128 if six else 8, 0, 0, 0xBEEF, 7) + payload
    if not six:
        request = request[:2] + naive_checksum(request).to_bytes(2, "big") + request[4:]
    with in_netns(cable.theirs):
        made = socket.socket(family, socket.SOCK_RAW, protocol)
    made.setblocking(False)
    with made:
        loop = asyncio.get_running_loop()
        await loop.sock_sendto(made, request, (address, 0))
        async with asyncio.timeout(SECONDS):
            while True:
                found = await loop.sock_recv(made, 1 << 16)
                reply = found if six else found[20:]
                if reply[0] == (129 if six else 0):
                    return reply


@together
async def test_a_kernel_resolves_and_pings_both_families(cable: Cable) -> None:
    space = cable.open()
    try:
        space.set_addresses({PA4, PA6})
        assert space.states() == dict.fromkeys((PA4, PA6), AddressState.TENTATIVE)
        await until(lambda: len(space.preferred()) == 2)
        for address in (PA4, PA6):
            for payload in (b"", bytes(range(256)) * 5 + b"odd"):
                reply = await kernel_ping(cable, address, payload)
                assert reply[4:] == struct.pack("!HH", 0xBEEF, 7) + payload
        known = {each["dst"]: each["lladdr"] for each in json.loads(cable.run("ip", "-j", "neigh"))}
        assert known[PA4] == known[PA6] == MAC.hex(":")
        told = [(pa, fields["state"]) for pa, fields in cable.seen("provider-address")]
        assert sorted(told) == sorted(
            (pa, state) for pa in (PA4, PA6) for state in ("Tentative", "Preferred")
        )
        assert cable.states >= 1
        space.set_addresses({PA6})
        assert cable.seen("provider-address") == [(PA4, {"state": "Invalid", "mac": ""})]
        assert space.states() == {PA6: AddressState.PREFERRED}
    finally:
        space.close()


@together
async def test_a_kernel_confirms_by_unicast(cable: Cable) -> None:
    space = cable.open()
    try:
        await preferred(space, PA4, PA6)
        for family, address in (("ipv4", PA4), ("ipv6", PA6)):
            cable.write(f"{family}/neigh/p0/delay_first_probe_time", 0)
            entry = (address, "lladdr", MAC.hex(":"), "dev", "p0")
            with cable.tap() as tap:
                cable.run("ip", "neigh", "replace", *entry, "nud", "delay")
                await tap.find(lambda frame: frame[:6] == MAC and frame[12:14] in (b"\x08\x06", b"\x86\xdd"))
            await until(lambda address=address: _state(cable, address) == ["REACHABLE"])
    finally:
        space.close()


def _state(cable: Cable, address: str) -> Any:
    known = json.loads(cable.run("ip", "-j", "neigh", "show", address))
    return known[0]["state"] if known else None


@together
async def test_an_address_of_the_kernel_is_a_duplicate(cable: Cable) -> None:
    space = cable.open()
    try:
        space.set_addresses({PEER4, PEER6, PA4})
        wanted = {PEER4: "Duplicate", PEER6: "Duplicate", PA4: "Preferred"}
        await until(lambda: space.states() == wanted)
        assert space.preferred() == [PA4]
        lost = [each for each in cable.seen("provider-address") if each[1]["state"] == "Duplicate"]
        expected = {"state": "Duplicate", "mac": OTHER.hex(":")}
        assert sorted(lost, key=repr) == [(PEER4, expected), (PEER6, expected)]
    finally:
        space.close()


@together
async def test_a_probe_for_the_same_address_makes_both_duplicates(cable: Cable) -> None:
    space = cable.open(probe_interval=SECONDS, retransmit=SECONDS)
    try:
        with cable.tap() as tap:
            space.set_addresses({PA4, PA6})
            tap.send(arp(1, (THIRD, "0.0.0.0"), (bytes(6), PA4), BROADCAST))
            tap.send(solicitation(PA6, "::", THIRD))
            await until(lambda: set(space.states().values()) == {AddressState.DUPLICATE})
    finally:
        space.close()


@together
async def test_the_kernels_dad_finds_the_pa(cable: Cable) -> None:
    space = cable.open()
    cable.write("ipv6/conf/p0/accept_dad", 1)
    try:
        await preferred(space, PA6)
        cable.run("ip", "addr", "add", f"{PA6}/64", "dev", "p0")
        await until(lambda: "dadfailed" in cable.run("ip", "addr", "show", "dev", "p0"))
        assert space.preferred() == [PA6]
    finally:
        space.close()


@together
async def test_probe_and_announcement_are_the_rfcs(cable: Cable) -> None:
    space = cable.open(probes=3, probe_interval=0.02, announcements=2, announce_interval=0.02)
    try:
        with cable.tap() as tap:
            space.set_addresses({PA4})
            probes = [await tap.find(lambda frame: frame[12:14] == b"\x08\x06") for _ in range(3)]
            assert probes == [arp(1, (MAC, "0.0.0.0"), (bytes(6), PA4), BROADCAST)] * 3
            told = [await tap.find(lambda frame: frame[12:14] == b"\x08\x06") for _ in range(2)]
            assert told == [arp(1, (MAC, PA4), (bytes(6), PA4), BROADCAST)] * 2
            space.set_addresses({PA6})
            six = [await tap.find(lambda frame: frame[12:14] == b"\x86\xdd" and frame[6:12] == MAC)]
            six.append(await tap.find(lambda frame: frame[54] == 135))
            six.append(await tap.find(lambda frame: frame[54] == 136))
            assert (six[0][20], six[0][22:38], six[0][62]) == (0, link_local(MAC), 143)  # MLD goes first
            assert six[1] == solicitation(PA6, "::", MAC)
            body = b"\x88\0\0\0\x20\0\0\0" + ip(PA6) + b"\2\1" + MAC
            assert six[2] == icmpv6(PA6, "ff02::1", body, mac("33:33:00:00:00:01"), MAC)
    finally:
        space.close()


# ---- defence ------------------------------------------------------------------------------


@together
async def test_an_ipv4_pa_is_defended_once_and_then_given_up(cable: Cable) -> None:
    space = cable.open()
    claim = arp(1, (THIRD, PA4), (bytes(6), PA4), BROADCAST)
    try:
        await preferred(space, PA4)
        with cable.tap() as tap:
            tap.rest()
            tap.send(claim)
            await tap.find(lambda frame: frame == arp(1, (MAC, PA4), (bytes(6), PA4), BROADCAST))
            assert space.preferred() == [PA4]
            assert cable.seen("address-conflict") == [(PA4, {"mac": THIRD.hex(":")})]
            tap.send(claim)
            await until(lambda: space.states() == {PA4: AddressState.DUPLICATE})
            expected = {"state": "Duplicate", "mac": THIRD.hex(":")}
            assert cable.seen("provider-address") == [(PA4, expected)]
    finally:
        space.close()


@together
async def test_conflicts_far_apart_do_not_end_a_pa(cable: Cable) -> None:
    space = cable.open(defend_interval=0.01)
    try:
        await preferred(space, PA4)
        with cable.tap() as tap:
            for _ in range(3):
                tap.rest()
                tap.send(arp(2, (THIRD, PA4), (OTHER, PEER4), BROADCAST))
                await tap.find(lambda frame: frame[:12] == BROADCAST + MAC)
                await asyncio.sleep(0.02)  # more than the defend interval
        assert space.preferred() == [PA4]
    finally:
        space.close()


@together
async def test_an_ipv6_pa_is_announced_again_and_kept(cable: Cable) -> None:
    space = cable.open()
    body = b"\x88\0\0\0\x20\0\0\0" + ip(PA6) + b"\2\1" + THIRD
    claim = icmpv6(PA6, "ff02::1", body, mac("33:33:00:00:00:01"), THIRD)
    try:
        await preferred(space, PA6)
        with cable.tap() as tap:
            tap.rest()
            tap.send(claim)
            tap.send(claim)
            tap.send(solicitation(PA6, PEER6, OTHER))  # its answer shows that both claims have been read
            found = []
            await tap.find(
                lambda frame: found.append(frame) or frame[54:59] == b"\x88\0" + frame[56:58] + b"\x60"
            )
        announced = [frame for frame in found if frame[:12] == mac("33:33:00:00:00:01") + MAC]
        assert len(announced) == 1
        assert space.preferred() == [PA6]
        assert cable.seen("address-conflict") == [(PA6, {"mac": THIRD.hex(":")})]
    finally:
        space.close()


# ---- neighbors ----------------------------------------------------------------------------


@together
async def test_the_kernel_is_found_refreshed_and_lost(cable: Cable) -> None:
    space = cable.open(reachable=0.05, resolve_interval=0.02)
    try:
        with cable.tap() as tap:
            space.set_addresses({PA4, PA6})
            for peer in (PEER4, PEER6):  # no source yet: that is waited for
                space.resolve(ip(peer))
            await until(lambda: len(cable.neighbors) == 2)
            assert sorted(cable.neighbors) == [(ip(PEER4), OTHER), (ip(PEER6), OTHER)]
            tap.rest()
            for kind in (b"\x08\x06", b"\x86\xdd"):  # asked again by unicast
                await tap.find(lambda frame, kind=kind: frame[:14] == OTHER + MAC + kind)
        assert len(cable.neighbors) == 2
        cable.run("ip", "addr", "flush", "dev", "p0")
        await until(lambda: len(cable.neighbors) == 4)
        assert sorted(cable.neighbors[2:]) == [(ip(PEER4), None), (ip(PEER6), None)]
    finally:
        space.close()


@together
async def test_without_an_address_of_the_family_nobody_is_asked(cable: Cable) -> None:
    space = cable.open(resolve_interval=0.01)
    try:
        await preferred(space, PA4)
        space.resolve(ip(PEER6))
        await until(lambda: cable.neighbors)
        assert cable.neighbors == [(ip(PEER6), None)]
    finally:
        space.close()


@together
async def test_a_new_mac_of_a_neighbor_is_noticed(cable: Cable) -> None:
    space = cable.open()
    for name in ("ipv4/conf/p0/arp_notify", "ipv6/conf/p0/ndisc_notify"):
        cable.write(name, 1)
    try:
        await preferred(space, PA4, PA6)
        for peer in (PEER4, PEER6):
            space.resolve(ip(peer))
        await until(lambda: len(cable.neighbors) == 2)
        cable.run("ip", "link", "set", "p0", "address", THIRD.hex(":"))
        await until(lambda: len(cable.neighbors) == 4)
        assert sorted(cable.neighbors[2:]) == [(ip(PEER4), THIRD), (ip(PEER6), THIRD)]
    finally:
        space.close()


@together
async def test_an_advertisement_without_override_changes_nothing(cable: Cable) -> None:
    space = cable.open()
    try:
        await preferred(space, PA6)
        space.resolve(ip(PEER6))
        await until(lambda: cable.neighbors)
        with cable.tap() as tap:
            for flags in (0, 0x20):
                body = bytes((0x88, 0, 0, 0, flags, 0, 0, 0)) + ip(PEER6) + b"\2\1" + THIRD
                tap.send(icmpv6(PEER6, "ff02::1", body, mac("33:33:00:00:00:01"), THIRD))
                tap.send(solicitation(PA6, "fd00:7::9", OTHER))
                await tap.find(lambda frame: frame[54] == 136 and frame[6:12] == MAC)
                assert cable.neighbors[1:] == ([(ip(PEER6), THIRD)] if flags else [])
    finally:
        space.close()


@together
async def test_closing_reports_neighbors_as_gone(cable: Cable) -> None:
    space = cable.open()
    await preferred(space, PA4)
    space.resolve(ip(PEER4))
    await until(lambda: cable.neighbors)
    space.close()
    assert cable.neighbors == [(ip(PEER4), OTHER), (ip(PEER4), None)]
    assert space.states() == {}


# ---- ICMP ---------------------------------------------------------------------------------


@together
async def test_ping_to_the_kernel(cable: Cable) -> None:
    space = cable.open()
    try:
        await preferred(space, PA4, PA6)
        for own, peer in ((PA4, PEER4), (PA6, PEER6)):
            for size in (0, 1400):
                assert 0 < await space.ping(own, peer, size, SECONDS) < SECONDS
        with pytest.raises(TimeoutError):
            await space.ping(PA4, "192.168.7.99", 8, SECONDS)  # the neighbor gives no answer
        with pytest.raises(TimeoutError):
            await space.ping(PA4, "192.168.9.9", 8, 0.1, next_hop=PEER4)  # the destination gives none
    finally:
        space.close()


def _echo(sequence: int, kind: int = 8) -> bytes:
    """An ICMP echo request, or with kind 0 the reply to it."""
    bare = struct.pack("!BBHHH", kind, 0, 0, 1, sequence)
    return bare[:2] + naive_checksum(bare).to_bytes(2, "big") + bare[4:]


@together
async def test_what_gets_no_echo(cable: Cable) -> None:
    space = cable.open()
    packets = (
        (BROADCAST, ipv4(PEER4, PA4, 1, _echo(1))),
        (MAC, ipv4(PEER4, PA4, 1, _echo(2), 0x2000)),
        (MAC, ipv4(PEER4, "192.168.7.66", 1, _echo(3))),
        (MAC, ipv4("239.1.1.1", PA4, 1, _echo(4))),
        (MAC, ipv4(PEER4, PA4, 1, _echo(5)[:2] + b"\0\0" + _echo(5)[4:])),
        (MAC, ipv4(PEER4, PA4, 17, bytes(16))),
        (MAC, ipv4(PEER4, PA4, 1, _echo(6))),  # this one gets one
    )
    try:
        await preferred(space, PA4)
        with cable.tap() as tap:
            tap.rest()
            for destination, packet in packets:
                tap.send(ethernet(destination, OTHER, 0x0800, packet))
            found: list[bytes] = []
            async with asyncio.timeout(SECONDS):
                while not found or found[-1][34:42] != _echo(6, 0):
                    found.append(await tap.find(lambda frame: frame[6:12] == MAC))
        assert [frame[34:42] for frame in found] == [_echo(6, 0)]
        assert found[0][26:34] == ip(PA4) + ip(PEER4)
    finally:
        space.close()


@together
async def test_a_redirect_is_an_event(cable: Cable) -> None:
    space = cable.open()
    try:
        await preferred(space, PA4)
        with cable.tap() as tap:
            for sender in ("192.168.7.66", PA4):
                quoted = ipv4(sender, "192.168.9.9", 47, b"\x20\0\x65\x58" + (5001 << 8).to_bytes(4, "big"))
                body = b"\5\1\0\0" + ip("192.168.7.250") + quoted
                body = body[:2] + naive_checksum(body).to_bytes(2, "big") + body[4:]
                tap.send(ethernet(MAC, OTHER, 0x0800, ipv4("192.168.7.254", PA4, 1, body)))
            found: list[Any] = []
            await until(lambda: found.extend(cable.seen("redirect")) or found)
        told = {"new_pa": "192.168.7.250", "router": "192.168.7.254", "vsid": 5001, "ca": ""}
        assert found == [("192.168.9.9", told)]
    finally:
        space.close()
