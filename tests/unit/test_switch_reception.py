"""What a VM's adapter does not take over on the receive side: the switch cuts and completes for it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from support import offload_truth as truth
from support.frames import encapsulated, vnet
from support.offload_truth import ACK, CWR, FIN, PSH, Packet, Path
from support.switch import PLAIN, MemorySwitch, gateway_mac, mac_of, nic_mac, pa, v4, v6
from testbed.errors import BadInput
from testbed.nic.guest import GUEST_TASKS, GuestOffloads, of_vnic
from testbed.packets import nvgre
from testbed.switch.actions import Decapsulate, Deliver
from testbed.switch.drops import Drop

MSS = 1000
DATA_VALID = b"\x02" + bytes(9)


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch() as made:
        yield made


def path(source: str, target: str) -> Path:
    addresses = {4: (v4(source), v4(target)), 6: (v6(source), v6(target))}
    return Path("test", source, target, (mac_of(source), mac_of(target)), addresses, 1458, 0)


def adapter(switch: MemorySwitch, name: str, **switches: bool) -> None:
    wanted = {task.replace("_", "-"): on for task, on in switches.items()}
    switch.state.ports[name].use(GuestOffloads().changed(wanted))
    switch.state.forget_flows()


def stream(
    source: str, target: str, version: int = 4, size: int = 3 * MSS + 1, flags: int = ACK | PSH
) -> Packet:
    data = bytes(range(250)) * (size // 250) + b"x" * (size % 250)
    at = path(source, target)
    return truth.tcp(at, version, 80, data, sequence=0xFFFFFF00, flags=flags, mss=MSS)


def on_the_wire(packet: Packet, version: int = 4) -> Packet:
    """A packet as the NIC has joined it, from host 2."""
    frame = encapsulated(packet.frame, 5001, pa(2, 5001, version), pa(1, 5001, version), nic_mac(1))
    moved = nvgre.OUTER_IPV4 if version == 4 else nvgre.OUTER_IPV6
    flags, kind, header, size, start, offset = struct.unpack("=BBHHHH", packet.vnet)
    return Packet(struct.pack("=BBHHHH", flags, kind, header + moved, size, start + moved, offset), frame)


def got(switch: MemorySwitch, name: str, packet: Packet, *, wire: bool = False) -> list[Packet]:
    """What a VM gets of a packet that blue1 sends, or that comes from the wire."""
    send = switch.from_wire if wire else lambda frame, head: switch.from_vm("blue1", frame, head)
    seen = send(packet.frame, packet.vnet)
    assert not seen.drops
    return [Packet(*each) for each in seen.ports[name]]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flags", [ACK, ACK | PSH | FIN, ACK | CWR])
@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize("size", [1, MSS, 3 * MSS, 3 * MSS + 1, 60 * MSS + 7])
def test_a_super_packet_of_a_neighbor_is_cut(
    switch: MemorySwitch, version: int, flags: int, checksums: bool, size: int
) -> None:
    packet = stream("blue1", "blue4", version, size, flags)
    adapter(switch, "blue4", rsc=False, rx_checksum=checksums)
    for _ in range(2):  # the full path, then the flow cache
        found = got(switch, "blue4", packet)
        assert [frame for each in found for frame in truth.canonical(each)] == truth.canonical(packet)
        assert not any(each.is_super for each in found)
        assert {each.has_open_checksum for each in found} == {checksums}
    counters = switch.state.ports["blue4"].counters()
    assert counters["to_vm_software_segments"] == counters["to_vm_packets"] == 2 * -(-size // MSS)
    assert counters["to_vm_bytes"] == 2 * sum(map(len, truth.canonical(packet)))
    assert counters["to_vm_software_checksums"] == (0 if checksums else counters["to_vm_packets"])


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("checksums", [True, False])
def test_what_a_nic_has_joined_is_cut(outer: int, checksums: bool) -> None:
    with MemorySwitch(version=outer) as switch:
        packet = stream("blue2", "blue1")
        adapter(switch, "blue1", rsc=False, rx_checksum=checksums)
        for _ in range(2):
            found = got(switch, "blue1", on_the_wire(packet, outer), wire=True)
            assert [frame for each in found for frame in truth.canonical(each)] == truth.canonical(packet)
            assert {each.is_super for each in found} == {False}
            assert {each.has_open_checksum for each in found} == {checksums}


def test_identifications_count_in_15_bits_from_a_vm_and_in_16_from_the_wire(switch: MemorySwitch) -> None:
    def identifications(source: str, target: str, wire: bool) -> list[int]:
        packet = truth.tcp(
            path(source, target), 4, 80, bytes(2 * MSS), sequence=1, mss=MSS, identification=0x7FFF
        )
        found = got(switch, target, on_the_wire(packet) if wire else packet, wire=wire)
        return [int.from_bytes(each.frame[18:20], "big") for each in found]

    adapter(switch, "blue4", rsc=False)
    adapter(switch, "blue1", rsc=False)
    assert identifications("blue1", "blue4", wire=False) == [0x7FFF, 0]
    assert identifications("blue2", "blue1", wire=True) == [0x7FFF, 0x8000]


def test_a_routed_super_packet_is_cut_with_the_new_macs(switch: MemorySwitch) -> None:
    packet = stream("blue1", "web1")
    adapter(switch, "web1", rsc=False)
    routed = Packet(packet.vnet, gateway_mac(5001) + packet.frame[6:])
    found = got(switch, "web1", routed)
    macs = {each.frame[:12] for each in found}
    assert len(found) == 4
    assert macs == {mac_of("web1") + gateway_mac(5002)}


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("wire", [False, True])
def test_open_checksums_are_completed(switch: MemorySwitch, kind: str, wire: bool) -> None:
    source, target = ("blue2", "blue1") if wire else ("blue1", "blue4")
    make = truth.udp if kind == "udp" else lambda *at: truth.tcp(*at, sequence=5)
    packet = make(path(source, target), 4, 80, b"odd")
    adapter(switch, target, rx_checksum=False)
    for _ in range(2):
        found = got(switch, target, on_the_wire(packet) if wire else packet, wire=wire)
        assert found == [Packet(PLAIN, truth.canonical(packet)[0])]
    assert switch.state.ports[target].to_vm_software_checksums == 2


def test_a_udp_checksum_is_never_0(switch: MemorySwitch) -> None:
    packet = truth.udp(path("blue1", "blue4"), 4, 80, bytes(2))
    (complete,) = truth.canonical(packet)
    packet = truth.udp(path("blue1", "blue4"), 4, 80, complete[40:42])  # its sum becomes 0xFFFF
    (complete,) = truth.canonical(packet)
    assert complete[40:42] == b"\xff\xff"
    adapter(switch, "blue4", rx_checksum=False)
    assert got(switch, "blue4", packet) == [Packet(PLAIN, complete)]


def test_nobody_vouches_for_a_checksum(switch: MemorySwitch) -> None:
    (complete,) = truth.canonical(truth.udp(path("blue2", "blue1"), 4, 80, b"data"))
    packet = on_the_wire(Packet(PLAIN, complete))
    joined = Packet(DATA_VALID, packet.frame)
    assert got(switch, "blue1", joined, wire=True) == [Packet(DATA_VALID, complete)]
    adapter(switch, "blue1", rx_checksum=False)
    assert got(switch, "blue1", joined, wire=True) == [Packet(PLAIN, complete)]
    assert switch.state.ports["blue1"].to_vm_software_checksums == 0


def test_other_copies_of_a_packet_are_as_they_were(switch: MemorySwitch) -> None:
    """A group's packet goes to every VM of the subnet, on this host and on others."""
    packet = truth.udp(path("blue1", "blue4"), 4, 80, b"data")
    to_all = Packet(packet.vnet, b"\xff" * 6 + packet.frame[6:])
    before = switch.from_vm("blue1", to_all.frame, to_all.vnet)
    adapter(switch, "blue4", rx_checksum=False)
    after = switch.from_vm("blue1", to_all.frame, to_all.vnet)
    assert before.wire == after.wire
    assert before.ports["blue4"] == [to_all]
    assert after.ports["blue4"] == [(PLAIN, truth.canonical(to_all)[0])]


def test_an_adapter_that_takes_everything_has_no_other_action(switch: MemorySwitch) -> None:
    switch.from_vm("blue1", *reversed(stream("blue1", "blue4")))
    switch.from_wire(*reversed(on_the_wire(stream("blue2", "blue1"))))
    found = [*switch.state.ports["blue1"].flows.values(), *switch.nic.flows.values()]
    assert [type(action) for action in found] == [Deliver, Decapsulate]


@pytest.mark.parametrize(
    "head",
    [
        vnet(34, 16, gso_type=1, gso_size=0, header=54),
        vnet(3, 16, gso_type=1, gso_size=MSS, header=54),
        vnet(9000, 16, gso_type=1, gso_size=MSS, header=54),
        vnet(9000, 16),
    ],
)
def test_metadata_that_lie_are_malformed(switch: MemorySwitch, head: bytes) -> None:
    adapter(switch, "blue4", rsc=False, rx_checksum=False)
    seen = switch.from_vm("blue1", stream("blue1", "blue4").frame, head)
    assert seen.drops == {("blue4", Drop.MALFORMED): 1}
    assert not seen.ports.get("blue4")


def test_frames_that_a_vm_refuses_are_counted_each(switch: MemorySwitch) -> None:
    adapter(switch, "blue4", rsc=False)
    switch.unplug("blue4")
    seen = switch.from_vm("blue1", *reversed(stream("blue1", "blue4")))
    assert seen.drops == {("blue4", Drop.PORT_REFUSED): 4}


def test_supported_and_enabled_are_two_things() -> None:
    made = of_vnic({"rsc": False}, {"lso": False})
    assert made.supported == ("lso", "tx-checksum", "rx-checksum")
    assert made.enabled == ("tx-checksum", "rx-checksum")
    assert made.changed({"lso": True}).enabled == made.supported
    for wanted, what in (({"rsc": True}, "does not support rsc"), ({"rss": False}, "unknown offload 'rss'")):
        with pytest.raises(BadInput, match=what):
            made.changed(wanted)


def test_super_packets_need_open_checksums() -> None:
    assert GuestOffloads().in_use == (True, True, True, True)
    assert GuestOffloads().changed({"tx-checksum": False}).in_use == (False, False, True, True)
    assert GuestOffloads().changed({"rx-checksum": False}).in_use == (True, True, False, False)
    assert GuestOffloads().changed({"rx-checksum": False}).enabled == ("lso", "tx-checksum", "rsc")
    assert of_vnic({"rx-checksum": False}, {}).possible == (True, True, False, False)
    assert set(GuestOffloads().supported) == {*GUEST_TASKS}
