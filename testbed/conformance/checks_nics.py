"""Checks of emulated NICs: statements 40 to 44. All leave the NICs as they were."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from testbed.channel import Message
from testbed.conformance import cast, frames, probes
from testbed.conformance.checks_wire import put_on_wire
from testbed.conformance.observe import Capture
from testbed.conformance.outcome import expect
from testbed.conformance.scene import Guest, Scene, poll
from testbed.lab import nic

SECONDS = 5.0
QUEUES = 4
COPIES = 5
_NOBODY = bytes.fromhex("02000000000f")
_FIN_PSH = 0x09
TRANSFER_BYTES = 400_000

# Microsoft, "Verifying the RSS Hash Calculation": destination, source, hash of addresses, hash with TCP ports
VECTORS = (
    ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x323E8FC2, 0x51CCC178),
    ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xD718262A, 0xC626B0EA),
    ("12.22.207.184", 38024, "24.19.198.95", 12898, 0xD2D0A5DE, 0x5C2B394A),
    ("209.142.163.6", 2217, "38.27.205.30", 48228, 0x82989176, 0xAFC7327F),
    ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x5D1809C5, 0x10E828A2),
    ("3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2CC18CD5, 0x40207D3D),
    ("ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0F0C461C, 0xDDE51BBF),
    (
        "fe80::200:f8ff:fe21:67cf",
        38024,
        "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
        44251,
        0x4B61E985,
        0x02D1FEEF,
    ),
)
PA_HASH = 0x1AA34A23  # of 192.168.1.101 -> 192.168.1.102


@contextmanager
def switched(scene: Scene, host: str, **tasks: bool) -> Iterator[None]:
    """A host's NICs with some tasks switched, "-" written as "_"."""
    wanted = {task.replace("_", "-"): on for task, on in tasks.items()}
    enabled = _nic(scene, host)["offloads"]["enabled"]
    before = {task: task in enabled for task in wanted}
    nic.change(scene.lab, host, [], wanted, {})
    try:
        yield
    finally:
        nic.change(scene.lab, host, [], before, {})


def hashes(scene: Scene) -> str:
    """40: frames of the published flows on the cable, plain and in NVGRE; the queue tells the hash."""
    host = cast.remote(scene)[1].host
    table = [number % QUEUES for number in range(128)]
    with switched(scene, host, vmq=False, rss=True, nvgre=True):
        for types in (["ipv4", "ipv6"], ["ipv4", "tcp-ipv4", "ipv6", "tcp-ipv6"]):
            nic.change(scene.lab, host, [], {}, {"table": table, "hash_types": types})
            for vector in VECTORS:
                wanted = table[(vector[5] if "tcp-ipv4" in types else vector[4]) % 128]
                _expect_queue(scene, host, _plain(scene, host, vector), wanted, str(vector))
        for vector in VECTORS:
            wanted = table[vector[5] % 128]
            _expect_queue(
                scene, host, _tunnelled(scene, host, _plain(scene, host, vector)), wanted, "inner ports"
            )
        echo = frames.ethernet(b"\2" * 6, b"\4" * 6, 0x0800, frames.ip("10.0.0.5", "10.0.0.6", 1, bytes(16)))
        _expect_queue(
            scene, host, _tunnelled(scene, host, echo), table[PA_HASH % 128], "ICMP, outer addresses"
        )
    return (
        f"{scene.name}: 16 published hashes chose the queue on {host}; in NVGRE the inner TCP ports, of ICMP "
        "the outer addresses"
    )


def queues(scene: Scene) -> str:
    """41: NVGRE frames for two VMs of a host."""
    one, two, three = (scene.guest(name) for name in ("one", "two", "three"))
    of = _nic(scene, two.host)["vmq"]
    own = {guest.name: of[guest.mac.hex(":")] for guest in (two, three)}
    expect(len({*own.values(), 0}) == 3, f"queues of the VMs: {own}")
    with switched(scene, two.host, nvgre=True):
        for guest in (two, three):
            _expect_queue(scene, two.host, _for(scene, one, guest), own[guest.name], f"for {guest.name}")
    for guest in (two, three):
        _expect_queue(scene, two.host, _for(scene, one, guest), 0, f"for {guest.name}, without offload")
    return f"{scene.name}: with NVGRE offload queues {own}, without all of it in queue 0"


def segments(scene: Scene) -> str:
    """42: TCP between VMs, cut by the NIC and by the switch; all frames of it on the cable."""
    one, two = scene.guest("one"), scene.guest("two")
    told = []
    for offloaded in (True, False):
        with switched(scene, one.host, nvgre=offloaded):
            cable = scene.cable(one.host)
            with Capture(cable) as capture:
                got = probes.transfer(one, two, TRANSFER_BYTES)
                expect(got == TRANSFER_BYTES, f"{got} of {TRANSFER_BYTES} bytes arrived")
                seen = [
                    each.data for each in capture.frames(cable) if each.data[6:12] == scene.nic_mac(one.host)
                ]
        told.append(_check_segments(scene, [frame for frame in seen if _payload(frame) > 0], offloaded))
    return f"{scene.name}: {'; '.join(told)}"


def verdicts(scene: Scene) -> str:
    """43: NVGRE frames of which one IPv4 header's checksum is wrong, or the other's, or none."""
    one, two = scene.guest("one"), scene.guest("two")
    with switched(scene, two.host, nvgre=True):
        for at, what in ((None, "no"), (24, "the outer"), (66, "the inner")):
            mark = probes.token()
            frame = bytearray(probes.carried(scene, one, two, probes.packet(one, two, mark)))
            if at:
                frame[at] ^= 0xFF
            delivered, counted = put_on_wire(scene, one, two, bytes(frame), mark, "bad-checksum")
            expect(delivered is (at is None), f"{what} header's checksum wrong: delivered is {delivered}")
            expect(counted == (at is not None), f"{what} header's checksum wrong: {counted} as bad-checksum")
    return f"{scene.name}: a frame came to {two.name} with both IPv4 headers good, and with neither one wrong"


def inactive(scene: Scene) -> str:
    """44: a NIC that supports NVGRE offload, before and after it is switched on."""
    one, two = scene.guest("one"), scene.guest("two")
    supported = _nic(scene, one.host)["offloads"]["supported"]
    expect("nvgre-lso" in supported, f"{one.host}'s NIC does not support nvgre-lso")
    found = []
    for on in (False, True):
        with switched(scene, one.host, nvgre=on):
            before = _nic(scene, one.host)["counters"]
            probes.transfer(one, two, TRANSFER_BYTES)
            after = _nic(scene, one.host)["counters"]
        found.append(tuple(after[name] > before[name] for name in ("tx_lso_packets", "tx_software_segments")))
    expect(found == [(False, True), (True, False)], f"cut by (NIC, switch), off and on: {found}")
    return f"{scene.name}: supported and off, the switch of {one.host} cut; once on, its NIC"


def _nic(scene: Scene, host: str) -> Message:
    return nic.show(scene.lab, host)[0]


def _plain(scene: Scene, host: str, vector: tuple[str, int, str, int, int, int]) -> bytes:
    destination, destination_port, source, source_port, _, _ = vector
    packet = frames.tcp_reset(source, destination, b"", (source_port, destination_port))
    kind = frames.TYPE_IPV6 if ":" in source else frames.TYPE_IPV4
    return frames.ethernet(scene.nic_mac(host), _NOBODY, kind, packet)


def _tunnelled(scene: Scene, host: str, inner: bytes) -> bytes:
    """NVGRE between the PAs of PA_HASH."""
    pas = ("192.168.1.102", "192.168.1.101")
    return frames.nvgre((scene.nic_mac(host), _NOBODY), pas, 5001, inner)


def _for(scene: Scene, one: Guest, guest: Guest) -> bytes:
    return probes.carried(scene, one, guest, probes.packet(one, guest, probes.token()))


def _expect_queue(scene: Scene, host: str, frame: bytes, wanted: int, what: str) -> None:
    """Frames put on a host's cable must come in on this queue."""

    def packets() -> list[int]:
        counters = _nic(scene, host)["counters"]
        return [counters[f"rx_queue_{number}_packets"] for number in range(QUEUES)]

    before = packets()
    probes.send(scene.cable(host), *[frame] * COPIES)
    grown = [0] * QUEUES

    def arrived() -> bool:
        grown[:] = [now - then for now, then in zip(packets(), before, strict=True)]
        return max(grown) >= COPIES

    expect(poll(arrived, SECONDS), f"{what}: not all frames came, by queue {grown}")
    expect(grown[wanted] >= COPIES, f"{what}: by queue {grown}, not in {wanted}")


def _check_segments(scene: Scene, seen: list[bytes], offloaded: bool) -> str:
    """What is on the cable of one direction of a TCP connection."""
    who = "NIC" if offloaded else "switch"
    expect(seen, f"{who}: nothing on the cable")
    for frame in seen:
        inner, ip, tcp = frame[42:], frame[56:76], frame[76:]
        expect(len(frame) <= 14 + scene.plan.fabric.pa_mtu, f"{who}: a frame of {len(frame)} bytes")
        good = (frames.checksum(frame[14:34]), frames.checksum(ip))
        expect(good == (0, 0), f"{who}: checksums of the IPv4 headers {good}")
        lengths = (int.from_bytes(frame[16:18], "big"), int.from_bytes(ip[2:4], "big"))
        expect(
            lengths == (len(frame) - 14, len(inner) - 14), f"{who}: lengths {lengths} of {len(frame)} bytes"
        )
        pseudo = ip[12:20] + struct.pack("!HH", 6, len(tcp))
        expect(frames.checksum(pseudo + tcp) == 0, f"{who}: a TCP checksum is wrong")
    supers = _super_packets(seen)
    long = [each for each in supers if len(each) > 2]
    expect(long, f"{who}: no super-packet among {len(seen)} frames")
    for each in long:
        sizes = {_payload(frame) for frame in each[:-1]}
        expect(len(sizes) == 1, f"{who}: segments of {sizes} bytes before the last one")
        expect(_payload(each[-1]) <= max(sizes), f"{who}: the last segment is the longest")
        for before, after in itertools.pairwise(each):
            expect(_id(after, 60) == _next_id(_id(before, 60), offloaded), f"{who}: inner identifications")
            expect(not before[89] & _FIN_PSH, f"{who}: FIN or PSH before the last segment")
    longest = max(map(len, seen))
    return f"{who}: {len(long)} super-packets as {sum(map(len, long))} frames of at most {longest} bytes"


def _super_packets(seen: list[bytes]) -> list[list[bytes]]:
    """Frames by the packet they were cut of: the outer identification counts up from 0 in each."""
    found: list[list[bytes]] = []
    for frame in seen:
        if _id(frame, 18) == 0 or not found:
            found.append([])
        expect(_id(frame, 18) == len(found[-1]), f"outer identification {_id(frame, 18)} out of order")
        found[-1].append(frame)
    return found


def _id(frame: bytes, at: int) -> int:
    return int.from_bytes(frame[at : at + 2], "big")


def _next_id(now: int, offloaded: bool) -> int:
    """The kernel counts in 16 bits, the switch in 15 (NDIS)."""
    return now + 1 & 0xFFFF if offloaded else now & 0x8000 | now + 1 & 0x7FFF


def _payload(frame: bytes) -> int:
    """Bytes of TCP payload in an NVGRE frame; 0 in anything else."""
    if len(frame) < 96 or frame[12:14] != b"\x08\x00" or frame[23] != 47 or frame[65] != 6:
        return 0
    return int.from_bytes(frame[58:60], "big") - 20 - (frame[88] >> 2 & 60)
