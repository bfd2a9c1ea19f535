"""Truth table of NIC offloads: whatever is on, the frames and the bytes are those of all off."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pytest

from support import offload_truth as truth
from support import topologies
from support.cli import Cli
from support.frames import encapsulated, mac
from support.labs import Lab
from support.offload_truth import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG, Capture, Flows, Packet, Path, Tap
from testbed.lab import nic
from testbed.lab.lab import FABRIC
from testbed.lab.lab import Lab as Opened

pytestmark = pytest.mark.e2e

BITS = ("tx-checksum", "lso", "rsc", "nvgre", "nvgre-tx-checksum", "nvgre-lso", "nvgre-rsc")
LONGEST = 14 + 1500  # on a cable that carries frames
HOSTS = ("host1", "host2")
VSID = 5001
# a fabric floods plain frames and the fillers of a burst; guests answer what belongs to no connection
MAY_DROP = ("not-nvgre", "malformed")


class Bench(NamedTuple):
    """A running lab. taps: at VMs by name, and at the fabric's end of cables by host."""

    lab: Opened
    wire: str
    paths: list[Path]
    taps: dict[str, Tap]


class Found(NamedTuple):
    """Of one run over one path: packets on the cable and at the VM, what the NIC has counted."""

    cable: list[Packet]
    vm: list[Packet]
    longest: int
    counted: dict[str, int]


@pytest.fixture(scope="module", params=["frames", "aggregated"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The hosts of 2host, each with its VM of the tenant and one that is not virtualised."""
    folder = tmp_path_factory.mktemp("truth")
    vms = [topologies.blue(f"blue{n}", f"host{n}", n + 4) for n in (1, 2)]
    vms += [topologies.plain(f"plain{n}", f"host{n}", n + 4) for n in (1, 2)]
    file = topologies.write(folder, "truth", dict.fromkeys(HOSTS, "tor1"), vms)
    file.write_text(file.read_text().replace(", tor1]", f", tor1]\n    wire: {request.param}"))
    cli = Cli(folder / "state")
    lab = Lab(cli, cli.up(file)["name"])
    try:
        faults = lab.boot(MAY_DROP)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TESTBED_STATE_DIR", str(cli.state))
            with Opened.open(lab.name) as opened:
                yield from _tapped(opened, request.param)
        faults += lab.faults(MAY_DROP)
    finally:
        cli.ok("down", lab.name)
    assert not faults, "\n".join(faults)


def _tapped(lab: Opened, wire: str) -> Iterator[Bench]:
    for name in lab.node_names():
        lab.netns(name)  # opened here, so that no test seems to leave it open
    taps = {vm.name: Tap(lab.netns(vm.name), "eth0") for vm in lab.plan.vms}
    taps |= {cable.host: Tap(lab.netns(FABRIC), cable.interface) for cable in lab.plan.fabric.cables}
    try:
        yield Bench(lab, wire, truth.paths(lab, [("blue1", "blue2"), ("plain1", "plain2")]), taps)
    finally:
        for tap in taps.values():
            tap.close()


def counters(lab: Opened) -> dict[str, int]:
    """What the sending NIC has counted."""
    (shown,) = nic.show(lab, HOSTS[0])
    return {name: count for name, count in shown["counters"].items() if isinstance(count, int)}


def switch(lab: Opened, tasks: dict[str, bool]) -> None:
    for host in HOSTS:
        nic.change(lab, host, [], tasks, {})


def run(bench: Bench, path: Path, sent: list[Packet], flows: Flows) -> Found:
    """Have the VM hand over the list, and take it from the cable and from the other VM."""
    before, frames = counters(bench.lab), sum(map(len, flows.values()))
    cable = Capture(bench.taps[HOSTS[0]], path.tunnel)
    vm = Capture(bench.taps[path.receiver], 0)
    bench.taps[path.sender].send(sent)
    found = cable.collect(flows, frames), vm.collect(flows, frames)
    counted = {name: count - before[name] for name, count in counters(bench.lab).items()}
    return Found(*found, cable.longest, counted)


def frames_of(packets: Iterable[Packet], tunnel: int = 0) -> Flows:
    return truth.by_flow((each for packet in packets for each in truth.canonical(packet, tunnel)), tunnel)


def share(packets: Iterable[Packet], tunnel: int = 0, flags: int = 0xFF) -> float:
    """The part of the TCP payload that is in super-packets, of segments with no other flags than these."""
    sizes = {True: 0, False: 0}
    for packet in packets:
        if truth.is_tcp(packet.frame[tunnel:]) and not truth.flags_of(packet.frame[tunnel:]) & ~flags:
            sizes[packet.is_super] += len(truth.data_of(packet.frame[tunnel:]))
    return sizes[True] / sum(sizes.values())


class Expected(NamedTuple):
    """What a list of packets has to become, whatever the NICs do."""

    sent: list[Packet]
    flows: Flows
    streams: dict[bytes, bytes]

    @classmethod
    def of(cls, path: Path) -> Expected:
        sent = [packet for version in (4, 6) for packet in truth.fixed_list(path, version)]
        streams: dict[bytes, bytes] = {}
        for packet in sent:
            if truth.is_tcp(packet.frame):
                flow = truth.flow_of(packet.frame)
                streams[flow] = streams.get(flow, b"") + truth.data_of(packet.frame)
        return cls(sent, frames_of(sent), streams)


def in_use(path: Path, tasks: dict[str, bool]) -> dict[str, bool]:
    """Which tasks hold for the packets of a path."""
    tunnel = path.tunnel > 0
    return {
        task: tasks[task] and (not tunnel or (tasks["nvgre"] and tasks[f"nvgre-{task}"]))
        for task in ("tx-checksum", "lso", "rsc")
    }


def wrong_shares(wire: str, path: Path, expected: Expected, found: Found, on: dict[str, bool]) -> list[str]:
    """Off: below 2 % in super-packets; on: above 90 %."""
    supers = [packet for packet in expected.sent if packet.is_super]
    cut = sum(len(truth.canonical(packet)) for packet in supers)
    single = sum(packet.has_open_checksum for packet in expected.sent) - len(supers)
    data = sum(bool(truth.data_of(f)) for fs in expected.flows.values() for f in fs if truth.is_tcp(f))
    counted = {name: found.counted[name] for name in ("tx_lso_packets", "tx_lso_segments")}
    counted |= {name: found.counted[f"tx_software_{name}"] for name in ("segments", "checksums")}
    wanted = {
        "tx_lso_packets": on["lso"] * len(supers),
        "tx_lso_segments": on["lso"] * cut,
        "segments": (not on["lso"]) * cut,
        "checksums": (not on["tx-checksum"]) * (single + (not on["lso"]) * cut),
    }
    cable, vm = share(found.cable, path.tunnel), share(found.vm, flags=ACK | PSH)
    checks = {
        f"counted {counted}, not {wanted}": counted == wanted,
        "handed to the NIC": fits(counted["tx_lso_segments"] / data, on["lso"]),
        f"on the cable {cable:.3f}": fits(cable, on["lso"] and wire == "aggregated"),
        # What comes one by one may be too far apart to be joined, as nothing here waits for more.
        f"at the VM {vm:.3f}": fits(vm, on["rsc"]) or (on["rsc"] and not on["lso"]),
    }
    return [words for words, good in checks.items() if not good]


def fits(part: float, on: bool) -> bool:
    return part > 0.9 if on else part < 0.02


def wrong_frames(
    wire: str, path: Path, expected: Expected, found: Found, first: dict[str, Flows]
) -> list[str]:
    """Differences from the run with all off, and to what was sent.

    Outer headers are compared whole, FlowID, identification and checksum too: the switch sends 0 as the
    identification, and whoever cuts counts up from it.
    """
    cable, vm = frames_of(found.cable, path.tunnel), frames_of(found.vm)
    streams = {flow: truth.stream_of(vm[flow]) for flow in expected.streams}
    inner = {flow: [frame[path.tunnel :] for frame in frames] for flow, frames in cable.items()}
    checks = {
        "cable": cable == first.setdefault(f"{path.name} cable", cable),
        "VM": vm == first.setdefault(f"{path.name} VM", vm),
        "frames that were sent": vm == inner == expected.flows,
        "bytes": streams == expected.streams,
    }
    if wire == "frames":
        checks[f"a frame of {found.longest} bytes"] = found.longest <= LONGEST
        checks["open checksum"] = not any(packet.has_open_checksum for packet in found.cable)
    return [words for words, good in checks.items() if not good]


def test_every_combination_is_the_same_as_all_off(bench: Bench) -> None:
    expected = {path.name: Expected.of(path) for path in bench.paths}
    first: dict[str, Flows] = {}
    wrong: list[str] = []
    for bits in itertools.product((False, True), repeat=len(BITS)):
        tasks = dict(zip(BITS, bits, strict=True))
        # Who verifies changes nothing about what is right; on and off with each of the others.
        verifies = sum(bits) % 2 == 1
        switch(bench.lab, {**tasks, "rx-checksum": verifies, "nvgre-rx-checksum": verifies})
        for path in bench.paths:
            mine = expected[path.name]
            found = run(bench, path, mine.sent, mine.flows)
            faults = wrong_frames(bench.wire, path, mine, found, first)
            faults += wrong_shares(bench.wire, path, mine, found, in_use(path, tasks))
            wrong += [f"{path.name} {[task for task in tasks if tasks[task]]}: {fault}" for fault in faults]
    assert not wrong, f"{len(wrong)} faults:\n" + "\n".join(wrong[:40])


# ---- what may be coalesced (NDIS, "Rules for Coalescing TCP/IP Packets") ------------------------

SACK = b"\1\1\5\x0a" + bytes(8)
OPTION = {4: b"\1\1\1\1", 6: b"\6\0\1\4" + bytes(4)}  # no-operations; destination options of padding
Changes = dict[int, dict[str, Any]]  # by position, of five segments in sequence

JOINED: dict[str, Changes] = {"in sequence": {}, "PSH on the last": {4: {"flags": ACK | PSH}}}
SINGLE: dict[str, Changes] = {
    "URG": {2: {"flags": ACK | URG}},
    "SYN": {2: {"flags": ACK | SYN}},
    "RST": {2: {"flags": ACK | RST}},
    "ECE": {2: {"flags": ACK | ECE}},
    "CWR": {2: {"flags": ACK | CWR}},
    "no ACK": {2: {"flags": 0}},
    "pure ACK": {2: {"data": b""}},
    "gap": {2: {"sequence": 90_000}},
    "again": {2: {"sequence": 1}},
    "other flow": {2: {"port": 7200}},
    "ECN": {2: {"tos": 3}},
    "DSCP": {2: {"tos": 0x20}},
    "may be fragmented": {2: {"fragment": 0}},
    "fragment": {2: {"fragment": 0x2000}},
    "IP option": {2: {"extension": OPTION}},
    "TCP option": {2: {"options": truth.TIMESTAMP + SACK}},
}
# The kernel's GRO joins these, and the switch takes them apart again.
BEYOND: dict[str, Changes] = {
    "FIN": {4: {"flags": ACK | FIN}},
    "ECE twice": {at: {"flags": ACK | ECE} for at in (2, 3)},
    "TCP option each": {at: {"options": truth.TIMESTAMP + SACK} for at in range(5)},
    "IPv6 option each": {at: {"extension": OPTION} for at in range(5)},
}
ONLY_IPV4 = ("may be fragmented", "fragment")
# The kernel lets these pass what it still holds: nobody fragments within a stream.
PASSES = ("fragment", "IP option")
frames_only = pytest.mark.parametrize("bench", ["frames"], indirect=True)


def segments(path: Path, version: int, changes: Changes) -> list[bytes]:
    """Five segments in sequence but for the changes, as complete frames."""
    found, sequence = [], 1
    for at in range(5):
        change = {"data": bytes([at]) * 1000, "port": 7300, "sequence": sequence, **changes.get(at, {})}
        if "extension" in change:
            change["extension"] = change["extension"][version]
        data, port = change.pop("data"), change.pop("port")
        (frame,) = truth.canonical(truth.tcp(path, version, port, data, identification=at, **change))
        found.append(frame)
        # what is somewhere else leaves no hole here
        sequence += len(data) if change["sequence"] == sequence and port == 7300 else 0
    return found


def on_the_cable(bench: Bench, path: Path, frame: bytes) -> Packet:
    """As the sending host would have it."""
    if path.tunnel:
        pas = [bench.lab.ask(host, "status")["provider_addresses"][0]["address"] for host in HOSTS]
        nics = [mac(host.nics[0].mac) for host in bench.lab.plan.hosts]
        frame = encapsulated(frame, VSID, pas[0], pas[1], nics[1], nics[0], 5)
    return Packet(bytes(10), frame)


def coalesced(bench: Bench, path: Path, frames: list[bytes], *, in_order: bool = True) -> list[list[int]]:
    """Send the frames to the receiving NIC in one go: positions of those in each packet that the VM got."""
    bench.taps[path.receiver].received()
    interface = next(each.interface for each in bench.lab.plan.fabric.cables if each.host == HOSTS[1])
    tap = bench.taps[HOSTS[1]]
    with truth.burst(bench.lab.netns(FABRIC), interface, tap):
        tap.send([on_the_cable(bench, path, frame) for frame in frames])
    flows = truth.by_flow(frames)
    packets = Capture(bench.taps[path.receiver], 0).collect(flows, len(frames))
    found = frames_of(packets)
    assert not in_order or found == flows, "not what was sent, or not in this order"
    assert {flow: sorted(found[flow]) for flow in found} == {flow: sorted(flows[flow]) for flow in flows}
    return [[frames.index(frame) for frame in truth.canonical(packet)] for packet in packets]


def cases(bench: Bench, only: tuple[int, ...] = (4, 6)) -> Iterator[tuple[Path, int]]:
    """Paths and IP versions, everything on."""
    switch(bench.lab, {**dict.fromkeys(BITS, True), "rx-checksum": True, "nvgre-rx-checksum": True})
    yield from itertools.product(bench.paths, only)


@frames_only
@pytest.mark.parametrize("name", JOINED)
def test_segments_in_sequence_are_joined(bench: Bench, name: str) -> None:
    for path, version in cases(bench):
        assert coalesced(bench, path, segments(path, version, JOINED[name])) == [[0, 1, 2, 3, 4]]


@frames_only
@pytest.mark.parametrize("name", SINGLE)
def test_what_differs_is_not_joined(bench: Bench, name: str) -> None:
    for path, version in cases(bench, (4,) if name in ONLY_IPV4 else (4, 6)):
        frames = segments(path, version, SINGLE[name])
        groups = coalesced(bench, path, frames, in_order=name not in PASSES)
        assert [2] in groups, (path.name, version, groups)
        assert [0, 1] in groups or [0, 1, 3, 4] in groups, (path.name, version, groups)


@frames_only
@pytest.mark.parametrize("name", BEYOND)
def test_what_ndis_does_not_join(bench: Bench, name: str) -> None:
    for path, version in cases(bench, (6,) if "IPv6" in name else (4, 6)):
        groups = coalesced(bench, path, segments(path, version, BEYOND[name]))
        assert all([at] in groups for at in BEYOND[name]), (path.name, version, groups)
