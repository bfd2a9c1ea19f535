"""The datapath on real devices: super-packets over both families of PAs, path MTU, tags, translation."""

from __future__ import annotations

import select
import socket
import struct
from typing import Literal

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether

from support.datapath_lab import CAS, PAS, VM_MACS, VSID, Lab, datapath_lab
from support.frames import TCP as TCP_PROTOCOL
from support.frames import ip, ipv4, vnet
from testbed.namespaces import in_netns, run_in_netns, start_in_netns
from testbed.packets.checksum import ones_sum
from testbed.switch.uplink import Uplink
from testbed.topology.schema import Wire

pytestmark = pytest.mark.netns

SIZE = 24 << 20  # bytes of one transfer
DEADLINE = 60.0
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h


def _receive(listener: socket.socket) -> int:
    connection, _ = listener.accept()
    total = 0
    with connection:
        while chunk := connection.recv(1 << 20):
            if chunk != bytes(len(chunk)):
                raise AssertionError("other bytes than were sent")
            total += len(chunk)
    return total


def _send(address: str, port: int) -> int:
    """Sends zeros; the connection's MSS at the end."""
    with socket.create_connection((address, port), timeout=DEADLINE) as connection:
        block = bytes(1 << 18)
        for _ in range(SIZE // len(block)):
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)  # the other end has read everything
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)


def transfer(lab: Lab, family: int) -> int:
    """TCP from the first VM to the second; the sender's MSS at its end."""
    with in_netns(lab.vms[1]):
        listener = socket.create_server(
            ("::" if family == 6 else "0.0.0.0", 5000),
            family=socket.AF_INET6 if family == 6 else socket.AF_INET,
        )
    with listener, start_in_netns(lab.vms[1], _receive, listener) as receiving:
        mss = run_in_netns(lab.vms[0], _send, CAS[family][1], 5000, timeout=DEADLINE)
        assert receiving.result(DEADLINE) == SIZE
    return mss


class Sniffer:
    """The first frames of more than 1000 bytes that the fabric gets from host 1."""

    def __init__(self, lab: Lab) -> None:
        with in_netns(lab.fabric):
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
            self._sock.bind((lab.switch_ports[0], 3))
        self._sock.setblocking(False)

    def frames(self, count: int = 20) -> list[bytes]:
        """``count`` frames with at least 1000 bytes; fewer when no more come for a second."""
        found: list[bytes] = []
        while len(found) < count and select.select([self._sock], [], [], 1)[0]:
            frame = self._sock.recv(1 << 17)
            if len(frame) > 1000:
                found.append(frame)
        self._sock.close()
        return found


def _checksums_hold(packet: IP | IPv6) -> bool:
    """Whether scapy, computing them anew, gets the same bytes."""
    before = bytes(packet)
    if IP in packet:
        del packet[IP].chksum
    del packet[TCP].chksum
    return bytes(packet) == before


@pytest.mark.parametrize("wire", ["frames", "aggregated"])
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
def test_super_packets_over_both_families(inner: int, outer: int, wire: Wire) -> None:
    with datapath_lab(outer, wire) as lab:
        sniffer = Sniffer(lab)
        transfer(lab, inner)
        frames = sniffer.frames()
        near, far = lab.counters()
    assert near["drops"] == far["drops"] == {}
    overhead = 42 if outer == 4 else 62
    # the VM hands over super-packets, and what arrives is coalesced again
    assert near["from_vm_bytes"] / near["from_vm_packets"] > 4000
    assert far["to_vm_bytes"] / far["to_vm_packets"] > 4000
    assert len(frames) == 20
    longest = max(map(len, frames))
    assert longest == 1514 if wire == "frames" else longest > 4000
    for frame in frames:
        read = Ether(frame)
        assert read[IP if outer == 4 else IPv6].src == PAS[outer][0]
        assert read[GRE].key == VSID << 8 | 7
        length = read[IP].len + 14 if outer == 4 else read[IPv6].plen + 54
        assert length == len(frame)
        tenant = Ether(frame[overhead:])[IP if inner == 4 else IPv6]
        assert tenant.src == CAS[inner][0]
        if wire == "frames":
            assert _checksums_hold(tenant)


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
def test_a_vm_with_a_too_large_mtu_finds_the_path_mtu(inner: int, outer: int) -> None:
    with datapath_lab(outer, "frames", vm_mtu=1500) as lab:
        mss = transfer(lab, inner)
        near, far = lab.counters()
    assert set(near["drops"]) == {"oversize"}
    assert far["drops"] == {}
    room = 1500 - (42 if outer == 4 else 62)
    assert mss == room - (20 if inner == 4 else 40) - 20 - 12  # IP, TCP, timestamps


def _super_packet(tags: bytes) -> bytes:
    """Vnet header and a tagged frame of a TCP segment of three times the segment size."""
    source, destination = CAS[4]
    payload = bytes(3 * 1000)
    tcp = bytearray(struct.pack("!HHIIBBHHH", 1, 2, 0, 0, 0x50, 0x10, 0xFFFF, 0, 0))
    tcp[16:18] = ones_sum(ip(source) + ip(destination), 6 + 20 + len(payload)).to_bytes(2, "big")
    packet = ipv4(source, destination, TCP_PROTOCOL, bytes(tcp) + payload)
    frame = VM_MACS[1] + VM_MACS[0] + tags + b"\x08\x00" + packet
    start = 34 + len(tags)
    return vnet(start, 16, gso_type=1, gso_size=1000, header=start + 20) + frame


@pytest.mark.parametrize("tags", [b"", b"\x81\0\0\7", b"\x88\xa8\0\7\x81\0\0\x09"], ids=["", "Q", "QinQ"])
def test_tags_of_a_vm_are_stripped(tags: bytes) -> None:
    """A tagged super-packet leaves as frames without a tag, whose checksums are complete."""
    with datapath_lab(4, "frames") as lab:
        sniffer = Sniffer(lab)
        with in_netns(lab.vms[0]):
            vm = Uplink("eth0", VM_MACS[0])  # a packet socket that takes offload metadata
        vm.socket.send(_super_packet(tags))
        vm.close()
        frames = sniffer.frames(3)
        near, _ = lab.counters()
    assert near["drops"] == {}
    assert [len(frame) for frame in frames] == [42 + 54 + 1000] * 3
    for frame in frames:
        packet = Ether(frame[42:])
        assert packet.type == 0x0800
        assert _checksums_hold(packet[IP])


@pytest.mark.parametrize("wire", ["frames", "aggregated"])
@pytest.mark.parametrize("family", [4, 6])
def test_translated_addresses(family: Literal[4, 6], wire: Wire) -> None:
    with datapath_lab(family, wire, translate=True) as lab:
        sniffer = Sniffer(lab)
        transfer(lab, family)
        frames = sniffer.frames()
        near, far = lab.counters()
    assert near["drops"] == far["drops"] == {}
    assert len(frames) == 20
    for frame in frames:
        packet = Ether(frame)[IP if family == 4 else IPv6]
        assert (packet.src, packet.dst) == PAS[family]
        if wire == "frames":
            assert _checksums_hold(packet)
