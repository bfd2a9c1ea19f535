"""Packets that are not encapsulated (rules Nat and None): both ways through the switch, and lost by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet as Layer
from scapy.packet import Raw

from support.frames import ip, vnet
from support.switch import PLAIN, MemorySwitch, mac_of, nic_mac
from testbed.host.pipeline import build_pipeline
from testbed.switch.datapath import Datapath
from testbed.switch.drops import Drop
from testbed.switch.packet import Packet, Translation, Verdict
from testbed.switch.pipeline import NIC, WNV

CAS = {4: ("10.0.0.5", "10.0.0.6"), 6: ("fd00::5", "fd00::6")}
PAS = {4: ("192.168.1.1", "192.168.9.2"), 6: ("2001:db8::1", "2001:db8::2")}
NEXT_HOP = {4: "192.168.9.2", 6: "2001:db8::2"}


class _Translates:
    """In the place of the WNV filter: everything is translated, for ``version``."""

    name = WNV

    def __init__(self, switch: MemorySwitch, version: int, rule: str) -> None:
        self._switch = switch
        self._version = version
        self._to = PAS if rule == "Nat" else CAS

    def outbound(self, packet: Packet) -> Verdict:
        source, target = map(ip, self._to[self._version])
        packet.macs = bytes(packet.frame[:12])
        packet.translation = Translation(source, target, ip(NEXT_HOP[self._version]))
        packet.cacheable = False
        return None

    def delivered(self, packet: Packet) -> None:
        """Nobody learns."""

    def inbound(self, packet: Packet) -> Verdict:
        source, target = map(ip, CAS[self._version])
        packet.vsid = 5001
        packet.ports = (self._switch.state.ports["blue1"],)
        packet.macs = mac_of("blue1") + mac_of("blue2")
        packet.translation = Translation(target, source, None)
        packet.cacheable = False
        return None


@pytest.fixture(params=["Nat", "None"])
def rule(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[4, 6])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def switch(version: int, rule: str) -> Iterator[MemorySwitch]:
    with MemorySwitch() as made:
        stage = _Translates(made, version, rule)
        pipeline = build_pipeline(made.state, stage)  # type: ignore[arg-type]
        made.datapath = Datapath(made.state, pipeline, made.unresolved.append)
        made.state.neighbors[ip(NEXT_HOP[version])] = nic_mac(2)
        yield made


def _frame(version: int, addresses: tuple[str, str], macs: bytes, transport: Layer) -> bytes:
    layer = IP if version == 4 else IPv6
    return bytes(
        Ether(dst=macs[:6].hex(":"), src=macs[6:].hex(":"))
        / layer(src=addresses[0], dst=addresses[1])
        / transport
    )


@pytest.mark.parametrize("transport", [TCP() / Raw(b"abc"), UDP() / Raw(b"abcd")])
def test_from_a_vm(switch: MemorySwitch, version: int, rule: str, transport: Layer) -> None:
    sent = _frame(version, CAS[version], mac_of("blue2") + mac_of("blue1"), transport)
    to = PAS if rule == "Nat" else CAS
    wanted = _frame(version, to[version], nic_mac(2) + nic_mac(1), transport)
    for _ in range(2):
        seen = switch.from_vm("blue1", sent)
        assert seen.wire == [(PLAIN, wanted)]
        assert not seen.ports
        assert not seen.drops
    assert switch.cached() == 0
    assert switch.nic.counters()["tx_bytes"] == 2 * len(sent)


@pytest.mark.parametrize("transport", [TCP() / Raw(b"abc"), UDP() / Raw(b"abcd")])
def test_from_the_wire(switch: MemorySwitch, version: int, rule: str, transport: Layer) -> None:
    come = PAS if rule == "Nat" else CAS
    arriving = _frame(version, come[version][::-1], nic_mac(1) + nic_mac(2), transport)
    wanted = _frame(version, CAS[version][::-1], mac_of("blue1") + mac_of("blue2"), transport)
    for _ in range(2):
        assert switch.from_wire(arriving).ports == {"blue1": [(PLAIN, wanted)]}
    assert switch.cached() == 0


def test_offload_metadata_stays(switch: MemorySwitch, version: int, rule: str) -> None:
    """The sum in the field of an open checksum changes with the addresses (it would not, complete)."""
    start = 34 if version == 4 else 54
    header = vnet(start, 16, gso_type=version - 3 if version == 4 else 4, gso_size=1000, header=start + 20)
    sent = bytearray(
        _frame(version, CAS[version], mac_of("blue2") + mac_of("blue1"), TCP() / Raw(bytes(5000)))
    )
    sent[start + 16 : start + 18] = b"\x12\x34"
    ((moved, left),) = switch.from_vm("blue1", bytes(sent), header).wire
    assert moved == header
    old, new = CAS[version], (PAS if rule == "Nat" else CAS)[version]
    assert int.from_bytes(left[start + 16 : start + 18], "big") == (0x1234 + _sum(new) - _sum(old)) % 0xFFFF


def _sum(addresses: tuple[str, str]) -> int:
    return int.from_bytes(b"".join(map(ip, addresses)), "big")


def test_what_cannot_be_translated_is_named(switch: MemorySwitch, version: int) -> None:
    other = _frame(10 - version, CAS[10 - version], mac_of("blue2") + mac_of("blue1"), UDP())
    assert switch.from_vm("blue1", other).dropped(Drop.MALFORMED)
    assert switch.datapath.drops == {(WNV, "blue1", 5001, Drop.MALFORMED): 1}
    short = _frame(version, CAS[version], mac_of("blue2") + mac_of("blue1"), UDP())[
        : 38 if version == 4 else 58
    ]
    assert switch.from_vm("blue1", short).dropped(Drop.MALFORMED)
    arriving = _frame(10 - version, CAS[10 - version], nic_mac(1) + nic_mac(2), UDP())
    assert switch.from_wire(arriving).dropped(Drop.MALFORMED)


def test_a_lost_neighbor_or_nic_is_named(switch: MemorySwitch, version: int) -> None:
    sent = _frame(version, CAS[version], mac_of("blue2") + mac_of("blue1"), UDP())
    del switch.state.neighbors[ip(NEXT_HOP[version])]
    assert switch.from_vm("blue1", sent).dropped(Drop.PA_UNREACHABLE)
    switch.lose_nics()
    assert switch.from_vm("blue1", sent).dropped(Drop.NO_UPLINK)


def test_a_refused_packet_is_named(switch: MemorySwitch, version: int) -> None:
    sent = _frame(version, CAS[version], mac_of("blue2") + mac_of("blue1"), UDP())
    switch.nic.error = OSError(90, "too long")
    assert switch.from_vm("blue1", sent).dropped(Drop.TX_OVERSIZE)
    assert switch.datapath.drops == {(NIC, "nic1", 5001, Drop.TX_OVERSIZE): 1}
