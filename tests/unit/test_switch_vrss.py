"""A VM's NIC with several queues: each flow has one, by Microsoft's hash of the frame that the VM gets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from random import Random

import pytest

from support.frames import ICMP, TCP, UDP, arp, encapsulated, ethernet, ipv4, ipv6, mac, ports
from support.switch import MemorySwitch, mac_of, nic_mac, pa, v4, v6
from testbed.packets.ethernet import BROADCAST
from testbed.switch.datapath import Datapath
from testbed.switch.packet import Packet, Translation
from testbed.switch.port import Port
from testbed.switch.vrss import queue_for
from testbed.testing.streams import toeplitz

QUEUES = 3  # does not divide the table's 128 entries
FLOWS = 40


def predicted(addresses: tuple[str, str], with_ports: bytes = b"", queues: int = QUEUES) -> int:
    return toeplitz(*addresses, with_ports) % 128 % queues


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch(queues=QUEUES) as made:
        yield made


class Flow:
    """Random ports between two VMs. target: "blue1", or "web1" in another subnet."""

    def __init__(self, rng: Random, version: int, protocol: int, source: str, target: str = "blue1") -> None:
        self.addresses = (v4 if version == 4 else v6)(source), (v4 if version == 4 else v6)(target)
        self.ports = ports(rng.randrange(1 << 16), rng.randrange(1 << 16))
        packet = (ipv4 if version == 4 else ipv6)(*self.addresses, protocol, self.ports + bytes(40))
        kind = 0x0800 if version == 4 else 0x86DD
        self.frame = ethernet(mac_of(target), mac_of(source), kind, packet)
        self.queue = predicted(self.addresses, self.ports if protocol in (TCP, UDP) else b"")


def arriving(inner: bytes, over: int = 4) -> bytes:
    return encapsulated(inner, 5001, pa(2, 5001, over), pa(1, 5001, over), nic_mac(1), nic_mac(2))


WAYS: dict[str, tuple[str, Callable[[MemorySwitch, bytes], dict[str, list[int]]]]] = {
    "from the wire": ("blue2", lambda switch, frame: switch.from_wire(arriving(frame)).queues),
    "from a VM of this host": ("blue4", lambda switch, frame: switch.from_vm("blue4", frame).queues),
}


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("way", WAYS)
def test_the_queue_of_each_flow_is_the_hashs(
    switch: MemorySwitch, way: str, version: int, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, send = WAYS[way]
    rng = Random(f"{way} {version} {protocol}")
    flows = [Flow(rng, version, protocol, source) for _ in range(FLOWS)]
    for flow in flows:
        assert send(switch, flow.frame) == {"blue1": [flow.queue]}
    monkeypatch.setattr(Datapath, "_compile", None)  # calling it is a TypeError
    for flow in flows:
        assert send(switch, flow.frame) == {"blue1": [flow.queue]}
    counters = switch.state.ports["blue1"].counters()
    counted = [counters[f"to_vm_queue_{number}_packets"] for number in range(QUEUES)]
    assert counted == [2 * sum(flow.queue == number for flow in flows) for number in range(QUEUES)]
    assert min(map(int, counted)) > 0
    assert counters["to_vm_packets"] == 2 * FLOWS
    assert counters["to_vm_bytes"] == 2 * sum(len(flow.frame) for flow in flows)


def test_over_ipv6() -> None:
    rng = Random(6)
    with MemorySwitch(version=6, queues=QUEUES) as switch:
        flows = [Flow(rng, version, TCP, "blue2") for version in (4, 6) for _ in range(FLOWS)]
        for flow in flows + flows:
            assert switch.from_wire(arriving(flow.frame, over=6)).queues == {"blue1": [flow.queue]}


@pytest.mark.parametrize("fragment", [0x2000, 0x0007])
def test_a_fragment_goes_by_its_addresses(switch: MemorySwitch, fragment: int) -> None:
    addresses = v4("blue2"), v4("blue1")
    packet = ipv4(*addresses, UDP, ports(1, 2) + bytes(40), fragment)
    seen = switch.from_wire(arriving(ethernet(mac_of("blue1"), mac_of("blue2"), 0x0800, packet)))
    assert predicted(addresses) != predicted(addresses, ports(1, 2))
    assert seen.queues == {"blue1": [predicted(addresses)]}


@pytest.mark.parametrize("version", [4, 6])
def test_other_protocols_go_by_their_addresses(switch: MemorySwitch, version: int) -> None:
    flow = Flow(Random(1), version, ICMP, "blue2")
    assert switch.from_wire(arriving(flow.frame)).queues == {"blue1": [flow.queue]}


def test_what_the_switch_answers_comes_by_queue_0(switch: MemorySwitch) -> None:
    question = arp(1, (mac_of("blue1"), v4("blue1")), (bytes(6), v4("blue2")), BROADCAST)
    for queue in range(QUEUES):
        assert switch.from_vm("blue1", question, queue=queue).queues == {"blue1": [0]}


def test_a_vm_is_heard_on_each_of_its_queues(switch: MemorySwitch) -> None:
    frame = ethernet(
        mac_of("blue2"), mac_of("blue1"), 0x0800, ipv4(v4("blue1"), v4("blue2"), UDP, ports(1, 2) + bytes(40))
    )
    for queue in range(QUEUES):
        assert len(switch.from_vm("blue1", frame, queue=queue).wire) == 1
    assert switch.state.ports["blue1"].from_vm_packets == QUEUES


@pytest.fixture
def port() -> Iterator[Port]:
    made = Port("blue1", mac_of("blue1"), 0, *(os.open("/dev/null", os.O_RDWR) for _ in range(16)))
    yield made
    made.close()


def test_what_is_translated_goes_by_the_addresses_that_the_vm_sees(port: Port) -> None:
    rng = Random(4)
    for _ in range(FLOWS):
        pas, cas = (f"192.168.1.{rng.randrange(256)}", "192.168.9.2"), ("10.0.0.6", "10.0.0.5")
        flow = ports(rng.randrange(1 << 16), 80)
        packet = Packet(ethernet(mac_of("blue1"), mac_of("blue2"), 0x0800, ipv4(*pas, TCP, flow)), port)
        assert queue_for(port, packet).number == predicted(pas, flow, 16)
        source, destination = (bytes(map(int, each.split("."))) for each in cas)
        packet.translation = Translation(source, destination, None)
        assert queue_for(port, packet).number == predicted(cas, flow, 16)


def test_what_has_no_hash_comes_by_queue_0(port: Port) -> None:
    good = ethernet(mac_of("blue1"), mac("02:00:00:00:00:07"), 0x0800, ipv4("10.0.0.6", "10.0.0.5", 6, b""))
    for frame in (b"", good[:13], good[:33], good[:12] + b"\x88\xcc" + good[14:], good[:14] + b"\x60" * 20):
        assert queue_for(port, Packet(frame, port)).number == 0
    assert queue_for(port, Packet(good, port)).number == predicted(("10.0.0.6", "10.0.0.5"), b"", 16) > 0


def test_a_port_of_one_queue_hashes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.switch.vrss.toeplitz", None)
    with MemorySwitch() as switch:
        assert switch.from_wire(arriving(Flow(Random(1), 4, TCP, "blue2").frame)).queues == {"blue1": [0]}
        assert not any("queue" in name for name in switch.state.ports["blue1"].counters())
