"""The classifier in eBPF does what its model in Python says, and both what Microsoft has published."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from support import bpf
from support.frames import TCP, UDP, encapsulated, ethernet, ipv4, ipv6, ports
from testbed.conformance.checks_nics import VECTORS
from testbed.nic.bpf import loader
from testbed.nic.classifier import (
    HASH_TYPES,
    IPV4,
    IPV6,
    KEY,
    KINDS,
    TCP_IPV4,
    TCP_IPV6,
    Steered,
    Steering,
    steer,
    toeplitz,
)
from testbed.nic.offloads import Offloads
from testbed.nic.registers import FILTERS, SIZE, Registers

pytestmark = pytest.mark.netns
OTHER_HOST = bytes.fromhex("00155d0000aa")
MAC_A, MAC_B = bytes.fromhex("00155d000001"), bytes.fromhex("00155d000002")

TABLE = tuple(position % 16 for position in range(128))


class Nic:
    """The hardware: a loaded program and its registers."""

    def __init__(self) -> None:
        memory, (self.program,) = loader.load_with_map("cable", "registers", "cable_rx")
        self.registers = Registers(memory)
        os.close(memory)
        self.steering = Steering()

    def set(self, **more: object) -> None:
        self.steering = Steering(**more)  # type: ignore[arg-type]
        self.registers.write(self.steering, Offloads(enabled=()))

    def steer(self, frame: bytes) -> Steered:
        ran = bpf.run(self.program, frame)
        assert ran.verdict == 0xFFFFFFFF  # TC_ACT_UNSPEC
        assert ran.frame == frame
        return Steered(ran.cb[0], ran.cb[1], KINDS[ran.cb[2]])

    def check(self, frame: bytes) -> Steered:
        """The same from both, which is returned."""
        found = self.steer(frame)
        assert found == steer(self.steering, frame)
        return found

    def close(self) -> None:
        os.close(self.program)
        self.registers.close()


@pytest.fixture
def nic() -> Iterator[Nic]:
    made = Nic()
    yield made
    made.close()


def packet(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """An Ethernet frame."""
    if ":" in source:
        return ethernet(MAC_B, MAC_A, 0x86DD, ipv6(source, destination, protocol, payload))
    return ethernet(MAC_B, MAC_A, 0x0800, ipv4(source, destination, protocol, payload))


def nvgre(frame: bytes, source: str, destination: str) -> bytes:
    return encapsulated(frame, 5001, source, destination, OTHER_HOST)


def tcp(source: str, source_port: int, destination: str, destination_port: int) -> bytes:
    return packet(source, destination, TCP, ports(source_port, destination_port) + bytes(16))


@pytest.mark.parametrize("vector", VECTORS, ids=[vector[0] for vector in VECTORS])
def test_the_published_vectors(nic: Nic, vector: tuple[str, int, str, int, int, int]) -> None:
    destination, destination_port, source, source_port, two, four = vector
    frame = tcp(source, source_port, destination, destination_port)
    plain, with_ports = ("ipv6", "tcp-ipv6") if ":" in source else ("ipv4", "tcp-ipv4")
    nic.set(rss=True, table=TABLE)
    assert nic.check(frame) == (TABLE[four % 128], four, with_ports)
    nic.set(rss=True, table=TABLE, hash_types=IPV4 | IPV6)
    assert nic.check(frame) == (TABLE[two % 128], two, plain)
    nic.set(rss=True, table=TABLE, nvgre_rss=True)
    inner = nic.check(nvgre(frame, "192.168.0.1", "192.168.0.2"))
    assert inner == (TABLE[four % 128], four, with_ports)


def test_without_the_offload_all_of_a_host_pair_is_one_flow(nic: Nic) -> None:
    nic.set(rss=True, table=TABLE)
    frames = [tcp("10.0.0.5", port, "10.0.0.6", 80) for port in range(1000, 1040)]
    queues = {nic.check(nvgre(frame, "192.168.1.101", "192.168.1.102")) for frame in frames}
    assert queues == {(TABLE[0x1AA34A23 % 128], 0x1AA34A23, "ipv4")}
    nic.set(rss=True, table=TABLE, nvgre_rss=True)
    spread = {nic.check(nvgre(frame, "192.168.1.101", "192.168.1.102")).queue for frame in frames}
    assert len(spread) > 8


def test_what_has_no_ports_inside_goes_by_the_outer_addresses(nic: Nic) -> None:
    nic.set(rss=True, table=TABLE, nvgre_rss=True)
    for inner in (packet("10.0.0.5", "10.0.0.6", 1, bytes(16)), ethernet(MAC_B, MAC_A, 0x0806, bytes(28))):
        found = nic.check(nvgre(inner, "192.168.1.101", "192.168.1.102"))
        assert found.hash == 0x1AA34A23


def test_fragments_and_udp_go_by_addresses(nic: Nic) -> None:
    nic.set(rss=True, table=TABLE)
    whole = toeplitz(KEY, bytes((10, 0, 0, 5, 10, 0, 0, 6)))
    fragment = ipv4("10.0.0.5", "10.0.0.6", TCP, ports(1, 2) + bytes(16), fragment=0x2000)
    assert nic.check(ethernet(MAC_B, MAC_A, 0x0800, fragment))[1:] == (whole, "ipv4")
    assert nic.check(packet("10.0.0.5", "10.0.0.6", UDP, ports(1, 2) + bytes(4)))[1:] == (whole, "ipv4")


def test_what_has_no_hash_takes_the_default_queue(nic: Nic) -> None:
    nic.set(rss=True, table=TABLE, default_queue=5)
    assert nic.check(ethernet(MAC_B, MAC_A, 0x0806, bytes(28))) == (5, 0, "none")
    nic.set(rss=True, table=TABLE, default_queue=5, hash_types=TCP_IPV4)
    assert nic.check(packet("10.0.0.5", "10.0.0.6", 1, bytes(16))).queue == 5


def test_vmq_goes_by_the_destination_mac(nic: Nic) -> None:
    outer = nvgre(tcp("10.0.0.5", 1, "10.0.0.6", 2), "192.168.0.1", "192.168.0.2")
    filters = {(bytes((0, 0x15, 0x5D, 0, 1, number)), 0): number % 16 for number in range(FILTERS - 1)}
    filters[MAC_B, 0] = 9
    nic.set(vmq=True, default_queue=3, filters=filters)
    assert nic.check(tcp("10.0.0.5", 1, "10.0.0.6", 2)).queue == 9
    assert nic.check(outer).queue == 3  # the outer MAC is no VM's
    nic.set(vmq=True, nvgre_vmq=True, default_queue=3, filters=filters)
    assert nic.check(outer).queue == 9
    assert nic.check(ethernet(b"\xff" * 6, MAC_A, 0x0806, bytes(28))).queue == 3
    assert nic.registers.counters()["rx_vmq_unmatched"] == 2


def test_vmq_goes_by_the_vlan_too(nic: Nic) -> None:
    def tagged(identifier: int) -> bytes:
        return ethernet(MAC_B, MAC_A, 0x8100, identifier.to_bytes(2, "big") + b"\x08\0" + bytes(46))

    filters = {(MAC_B, 0): 1, (MAC_B, 7): 2}
    nic.set(vmq=True, default_queue=3, filters=filters)
    assert nic.check(ethernet(MAC_B, MAC_A, 0x0800, bytes(46))).queue == 1
    assert nic.check(tagged(0xE007)).queue == 2  # the priority is no part of it
    assert nic.check(tagged(8)).queue == 3
    assert nic.check(tagged(0xE000)).queue == 1  # a tag of priority alone


def test_the_counters_tell_the_kinds(nic: Nic) -> None:
    nic.set(rss=True, table=TABLE)
    for _ in range(3):
        nic.check(tcp("10.0.0.5", 1, "10.0.0.6", 2))
    nic.check(ethernet(MAC_B, MAC_A, 0x0806, bytes(28)))
    counters = nic.registers.counters()
    assert (counters["rx_hash_tcp_ipv4"], counters["rx_hash_none"], counters["rx_hash_ipv6"]) == (3, 1, 0)


def test_any_frame_with_any_setting(nic: Nic) -> None:
    """Broken ones too: cut, with options, of other types, with some bytes changed."""
    dice = random.Random(5)
    addresses = ("10.0.0.5", "fd00::5"), ("10.0.0.6", "fd00::6")
    for _ in range(3000):
        version = dice.randrange(2)
        protocol = dice.choice((TCP, UDP, 1, 47))
        payload = ports(dice.randrange(1 << 16), 80) + bytes(dice.randrange(30))
        frame = packet(addresses[0][version], addresses[1][version], protocol, payload)
        if dice.random() < 0.6:
            outer = dice.choice((("192.168.0.1", "192.168.0.2"), ("fd01::1", "fd01::2")))
            frame = nvgre(frame, *outer)
        cut = dice.choice((len(frame), len(frame), dice.randrange(34, len(frame) + 1)))
        changed = bytearray(frame[:cut].ljust(60, b"\0"))  # the shortest frame on Ethernet
        for _ in range(dice.choice((0, 0, 1, 3))):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        if dice.random() < 0.2:
            changed[12:14] = b"\x81\0"
        length = 1 << dice.randrange(8)
        own = bytes(changed[:6]), dice.choice((0, int.from_bytes(changed[14:16], "big") & 0xFFF))
        nic.set(
            rss=dice.random() < 0.7,
            vmq=True,
            nvgre_rss=dice.random() < 0.5,
            nvgre_vmq=dice.random() < 0.5,
            key=dice.randbytes(40),
            table=[dice.randrange(16) for _ in range(length)],
            hash_types=sum(bit for bit in HASH_TYPES.values() if dice.random() < 0.7),
            default_queue=dice.randrange(16),
            filters={(MAC_B, 0): 4, own: 2} if dice.random() < 0.5 else {},
        )
        nic.check(bytes(changed))


def test_the_registers_fit_a_page() -> None:
    assert SIZE <= 4096
    assert sum(HASH_TYPES.values()) == TCP_IPV6 | TCP_IPV4 | IPV4 | IPV6
