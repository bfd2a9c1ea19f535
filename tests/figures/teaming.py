"""Figures of NIC teams: bandwidth over rate-limited cables, fairness, outages, reordering, cost of the stage.

Usage: ``python tests/figures/teaming.py [bandwidth|lacp|mice|bursts|outage|cost]...`` (all by default).
Labs come up in namespaces; cables have 200 Mbit/s, so that the figures are the same on any machine.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from pyroute2 import IPRoute  # noqa: E402

from support import teams  # noqa: E402
from support.frames import TCP, encapsulated, ethernet, ipv4, ports  # noqa: E402
from support.switch import MemorySwitch, mac_of, nic_mac, v4  # noqa: E402
from testbed.engines.select import by_name  # noqa: E402
from testbed.lab import build, link, team  # noqa: E402
from testbed.lab.lab import Lab  # noqa: E402
from testbed.namespaces import in_netns, new_netns  # noqa: E402
from testbed.nic.aggregate import choose  # noqa: E402
from testbed.switch.datapath import BATCH  # noqa: E402
from testbed.switch.uplink import Uplink  # noqa: E402
from testbed.teaming.flowlets import Flowlets, balanced  # noqa: E402
from testbed.teaming.hashing import flow_hash  # noqa: E402
from testbed.testing.teams import Failure  # noqa: E402
from testbed.topology import plan_from_file  # noqa: E402
from testbed.wnv.forwarding import flow_id_of  # noqa: E402

FILE = ROOT / "topologies" / "team.yaml"
REPEAT = 5
SECONDS = 3.0
LINK = "200mbit"


@contextmanager
def lab(**settings: Any) -> Iterator[Lab]:
    """topologies/team.yaml with some variables."""
    plan = plan_from_file(FILE, {key: str(value) for key, value in settings.items()})
    found = build.up(plan, by_name("namespaces"), None, str(FILE), lambda _: None)
    try:
        yield found
    finally:
        found.close()
        build.down(found.record.name)


def rates(inside: Lab, streams: int) -> list[float]:
    """Mbit/s of so many streams, REPEAT times, from ports of their own each time."""
    found = []
    for turn in range(REPEAT):
        sources = list(range(20000 + 100 * turn, 20000 + 100 * turn + streams))
        found.append(teams.rate(inside, sources, 7500 + turn, SECONDS) / 1e6)
    return found


def told(what: str, found: list[float], single: float, goal: str) -> None:
    """One line."""
    times = statistics.median(found) / single
    shown = " ".join(f"{value:.0f}" for value in found)
    print(f"{what}: {times:.2f} x one cable ({goal}); Mbit/s {shown}", flush=True)


def bandwidth() -> None:
    """SwitchIndependent, the receiver's cables unlimited."""
    with lab(rate=LINK) as inside:
        single = statistics.median(rates(inside, 1))
        told("Dynamic, 2 members, 4 streams", rates(inside, 4), single, ">= 1.85")
    with lab(rate=LINK, nics=4) as inside:
        told("Dynamic, 4 members, 4 streams", rates(inside, 4), single, ">= 3.6")
    with lab(rate=LINK, algorithm="HyperVPort") as inside:
        told("HyperVPort, 2 members, 4 streams", rates(inside, 4), single, "<= 1.02")


def lacp() -> None:
    """LACP at both ends, all cables limited both ways: the switch hashes the GRE key."""
    with lab(rate=LINK, rate_in=LINK, mode="Lacp") as inside:
        single = statistics.median(rates(inside, 1))
        found = [
            teams.rate(inside, _spread(inside, 7550 + turn), 7550 + turn, SECONDS) / 1e6
            for turn in range(REPEAT)
        ]
        told("Lacp and Dynamic, 2 members, 4 streams", found, single, ">= 1.85")


def _spread(inside: Lab, port: int) -> list[int]:
    """Source ports of four streams, two of which the switch sends by each of the receiver's cables."""
    here, there = _pa(inside, "host1"), _pa(inside, "host2")
    chosen: dict[int, list[int]] = {0: [], 1: []}
    source = 23000
    while min(map(len, chosen.values())) < 2:
        segment = ipv4("10.0.0.5", "10.0.0.6", TCP, ports(source, port) + bytes(20))
        inner = ethernet(bytes(6), bytes(6), 0x0800, segment)
        frame = encapsulated(inner, 5001, here, there, bytes(6), flow_id=flow_id_of(inner))
        member = choose(frame, [0, 1])
        assert member is not None
        chosen[member].append(source)
        source += 1
    return chosen[0][:2] + chosen[1][:2]


def _pa(inside: Lab, host: str) -> str:
    found = inside.ask(host, "policy", verb="list", object="provider-addresses")["objects"]
    return next(str(each["provider_address"]) for each in found if each["virtual_subnet_id"] == 5001)


def mice() -> None:
    """One elephant and eight mice, of which an address hash puts the elephant and seven on one member."""
    medians = {}
    for algorithm in ("Dynamic", "TransportPorts"):
        with lab(rate=LINK, algorithm=algorithm) as inside:
            medians[algorithm] = [_mice(inside, 7600 + turn) for turn in range(REPEAT)]
    ratio = statistics.median(medians["Dynamic"]) / statistics.median(medians["TransportPorts"])
    shown = {name: [round(value) for value in found] for name, found in medians.items()}
    print(f"mice, median rate under Dynamic: {ratio:.2f} x address hash (>= 1.5); Mbit/s {shown}", flush=True)


def _mice(inside: Lab, port: int) -> float:
    together: list[int] = []
    apart: list[int] = []
    source = 30000
    while len(together) < 8 or not apart:
        frame = ethernet(
            bytes(6), bytes(6), 0x0800, ipv4("10.0.0.5", "10.0.0.6", TCP, ports(source, port) + bytes(20))
        )
        (apart if flow_hash(frame, "TransportPorts") % 2 else together).append(source)
        source += 1
    sources = [*together[:8], apart[0]]
    found = _by_stream(inside, sources, port)
    return statistics.median(found[source] for source in sources[1:])


def _by_stream(inside: Lab, sources: list[int], port: int) -> dict[int, float]:
    """Mbit/s of each greedy stream, in which the first second is not counted."""
    client, server = inside.netns("blue1"), inside.netns("blue2")
    with in_netns(server):
        listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((teams.BLUE2, port))
    listener.listen(64)
    sender = os.fork()
    if sender == 0:
        _send_greedily(client, sources, port, SECONDS + 1.5)
        os._exit(0)
    got = dict.fromkeys(sources, 0)
    poll, streams = select.poll(), {}
    for _ in sources:
        sock, (_, source) = listener.accept()
        sock.setblocking(False)
        streams[sock.fileno()] = sock, source
        poll.register(sock, select.POLLIN)
    buffer, begin = bytearray(1 << 20), time.monotonic() + 1.0
    while (now := time.monotonic()) < begin + SECONDS:
        for number, _ in poll.poll(50):
            sock, source = streams[number]
            count = sock.recv_into(buffer)
            got[source] += count if now > begin else 0
    for sock, _ in streams.values():
        sock.close()
    os.waitpid(sender, 0)
    listener.close()
    return {source: count * 8 / SECONDS / 1e6 for source, count in got.items()}


def _send_greedily(netns: int, sources: list[int], port: int, seconds: float) -> None:
    poll, streams = select.poll(), {}
    for source in sources:
        with in_netns(netns):
            sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        sock.bind(("", source))
        sock.connect((teams.BLUE2, port))
        sock.setblocking(False)
        streams[sock.fileno()] = sock
        poll.register(sock, select.POLLOUT)
    data, end = os.urandom(1 << 16), time.monotonic() + seconds
    while time.monotonic() < end:
        for number, _ in poll.poll(50):
            with contextlib.suppress(OSError):  # the far end has seen enough
                streams[number].send(data)


def bursts() -> None:
    """One TCP stream that pauses between bursts: both members, and what came out of order."""
    with lab(rate=LINK) as inside:
        before, sent = team.show(inside, "host2")["received_out_of_order"], teams.sent_by(inside)
        segments = _burst(inside, 7700, count=400, size=100_000, pause=0.01)
        after, now = team.show(inside, "host2")["received_out_of_order"], teams.sent_by(inside)
    shares = {name: now[name] - sent[name] for name in now}
    part = (after - before) / segments
    total = sum(shares.values())
    split = ", ".join(f"{name} {100 * value / total:.0f} %" for name, value in shares.items())
    print(f"one bursty stream: {split}; {100 * part:.3f} % out of order (< 0.1 %)", flush=True)


def _burst(inside: Lab, port: int, *, count: int, size: int, pause: float) -> int:
    """Segments of a stream that sends so many bursts."""
    client, server = inside.netns("blue1"), inside.netns("blue2")
    with in_netns(server):
        listener = socket.socket()
    with in_netns(client):
        sock = socket.socket()
    listener.bind((teams.BLUE2, port))
    listener.listen()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    sock.connect((teams.BLUE2, port))
    far, _ = listener.accept()
    buffer = bytearray(1 << 20)
    for _ in range(count):
        sock.sendall(bytes(size))
        left = size
        while left:
            left -= far.recv_into(buffer)
        time.sleep(pause)
    for each in (sock, far, listener):
        each.close()
    return count * size // 1400


def outage() -> None:
    """The longest gap in 1 ms UDP probes when a member fails, and the bandwidth after it is back."""
    goals: dict[Failure, str] = {"carrier": "<= 50", "black-hole": "<= 1000"}
    with lab(rate=LINK) as inside:
        for how, goal in goals.items():
            found = []
            for turn in range(2 * REPEAT):
                teams.wait_for(inside, "Active", seconds=30.0)
                found.append(teams.outage(inside, how, f"nic{1 + turn % 2}").longest)
            shown = " ".join(f"{value:.0f}" for value in found)
            print(f"outage, {how}: median {statistics.median(found):.0f} ms ({goal}); {shown}", flush=True)
        teams.wait_for(inside, "Active", seconds=30.0)
        time.sleep(10.0)  # earlier failures are forgotten
        single = teams.rate(inside, [21000], 7800, SECONDS) / 1e6
        back = [_after_restore(inside, turn, single) for turn in range(3)]
        print(
            f"bandwidth 2 s after restore: {' '.join(f'{value:.2f}' for value in back)} x (>= 1.85)",
            flush=True,
        )


def _after_restore(inside: Lab, turn: int, single: float) -> float:
    link.set_up(inside, "host1:nic1", up=False)
    teams.wait_for(inside, "Failed", "nic1")
    link.set_up(inside, "host1:nic1", up=True)
    restored = time.monotonic()
    while time.monotonic() - restored < 1.5:  # rate() leaves out another half second
        time.sleep(0.05)
    sources = list(range(22000 + 10 * turn, 22004 + 10 * turn))
    found = teams.rate(inside, sources, 7810 + turn, SECONDS) / 1e6
    time.sleep(10.0)  # this failure is forgotten, too
    return found / single


class _Nic:
    name, tx_bytes = "nic", 0

    def backlog(self) -> int:
        return 0


def cost() -> None:
    """Nanoseconds that Dynamic adds to a packet, beside what the switch takes for a packet of 1500 bytes."""
    flowlets, nics = Flowlets(), [_Nic(), _Nic()]
    flowlets.use(nics)  # type: ignore[arg-type]
    action = balanced(flowlets, flowlets.bucket(1), lambda _: _nothing)
    alone = min(timeit.repeat(lambda: _nothing(1500), number=200_000, repeat=REPEAT)) / 200_000
    stage = min(timeit.repeat(lambda: action(1500), number=200_000, repeat=REPEAT)) / 200_000 - alone
    whole = _pipeline()
    part = 100 * stage / whole
    print(
        f"team stage: {1e9 * stage:.0f} ns of {1e9 * whole:.0f} ns a packet: {part:.1f} % (<= 5 %)",
        flush=True,
    )


def _nothing(_: int) -> None:
    pass


def _pipeline() -> float:
    """Seconds that the switch takes for a packet of 1400 bytes from a VM to a NIC, system calls and all."""
    inner = ipv4(v4("blue1"), v4("blue2"), TCP, ports(1, 2) + bytes(1380))
    packet = bytes(10) + ethernet(mac_of("blue2"), mac_of("blue1"), 0x0800, inner)
    netns = new_netns()
    with in_netns(netns), IPRoute() as ip:
        ip.link("add", ifname="nic1", kind="veth", peer={"ifname": "p1"})
        for name in ("nic1", "p1"):
            ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")
        uplink = Uplink("nic1", nic_mac(1))
    taken = []
    with MemorySwitch(bound=False) as switch:
        switch.state.uplinks["nic1"] = uplink
        port = switch.state.ports["blue1"]
        for _ in range(2000):
            for _ in range(BATCH):
                switch._vms["blue1"][0].send(packet)
            began = time.perf_counter()
            switch.datapath.drain_port(port, port.descriptor)
            taken.append((time.perf_counter() - began) / BATCH)
        assert uplink.tx_packets == 2000 * BATCH
    uplink.close()
    os.close(netns)
    return statistics.median(taken)


ALL: dict[str, Callable[[], None]] = {
    "bandwidth": bandwidth,
    "lacp": lacp,
    "mice": mice,
    "bursts": bursts,
    "outage": outage,
    "cost": cost,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or ALL:
        ALL[name]()
