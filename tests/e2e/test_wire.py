"""On the cable: NVGRE as RFC 7637 has it, told by two independent decoders; all of it made by the switch."""

from __future__ import annotations

import ipaddress
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from support.capture import captured, port_of
from support.labs import Lab
from support.waiting import until

pytestmark = pytest.mark.e2e

VSID = 5001
FIELDS = (
    "frame.len",
    "eth.src",
    "eth.dst",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ip.flags.df",
    "ip.checksum.status",
    "gre.flags_and_version",
    "gre.proto",
    "gre.key",
    "tcp.checksum.status",
    "tcp.len",
    "icmp.checksum.status",
    "icmpv6.checksum.status",
)


def transfer(lab: Lab, address: str) -> None:
    """2 MiB by TCP from blue1 to blue2."""
    server = lab.cli.start("exec", lab.name, "blue2", "--", "iperf3", "-s", "-1", "--forceflush")
    with lab.cli.ended(server):
        assert server.stdout
        while b"listening" not in (line := server.stdout.readline()):
            assert line, "iperf3 has ended"
        lab.cli.output(lab.name, "blue1", "iperf3", "-c", address, "-n", "2M")
        server.wait(20)


@pytest.fixture
def capture(lab: Lab, tmp_path: Path) -> Path:
    """Traffic between blue1 and blue2 over IPv4 and IPv6, on host1's cable while it has no other."""
    file = tmp_path / "cable.pcap"
    hosts = ("host1", "host2")
    for host in hosts:
        lab.cli.ok("team", lab.name, host, "fail", "nic2")
    with captured(lab, port_of(lab, "host1", "nic1"), file, "ip proto 47", "blue1", "10.0.0.6"):
        for address in ("10.0.0.6", "fd00::6"):
            lab.cli.output(lab.name, "blue1", "ping", "-c", 3, "-i", "0.1", "-W", 2, address)
            transfer(lab, address)
    for host in hosts:
        lab.cli.ok("team", lab.name, host, "restore", "nic2")
    until(lambda: all(_all_active(lab, host) for host in hosts), "nic2 is not used again")
    return file


def _all_active(lab: Lab, host: str) -> bool:
    members = lab.cli.json("team", lab.name, host)["members"]
    return all(each["state"] == "Active" for each in members)


def decoded(file: Path) -> list[dict[str, list[str]]]:
    """The frames as tshark tells them: every occurrence of each field, outermost first."""
    options = [word for field in FIELDS for word in ("-e", field)]
    for protocol in ("ip", "tcp", "udp"):
        options += ["-o", f"{protocol}.check_checksum:TRUE"]
    done = subprocess.run(
        ["tshark", "-n", "-r", file, "-T", "fields", "-E", "separator=|", "-E", "occurrence=a", *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [
        {
            name: [value for value in cell.split(",") if value]
            for name, cell in zip(FIELDS, line.split("|"), strict=True)
        }
        for line in done.stdout.splitlines()
    ]


def test_every_frame_is_nvgre(lab: Lab, capture: Path) -> None:
    found = lab.cli.inspect(lab.name)
    macs = {vm["name"]: vm["mac"] for vm in found["vms"]}
    pas = {
        host["name"]: next(pa["address"] for pa in host["provider_address_states"] if pa["vsid"] == VSID)
        for host in found["hosts"][:3]
    }
    nics = {  # the MAC of the PA's home in the team, by turns
        host["name"]: host["nics"][int(ipaddress.ip_address(pas[host["name"]])) % 2]["mac"]
        for host in found["hosts"][:3]
    }
    ways = {
        (pas["host1"], pas["host2"]): [nics["host2"], macs["blue1"], macs["blue2"]],
        (pas["host2"], pas["host1"]): [nics["host1"], macs["blue2"], macs["blue1"]],
    }
    members = {pas[host["name"]]: {nic["mac"] for nic in host["nics"]} for host in found["hosts"][:3]}
    frames = [frame for frame in decoded(capture) if (frame["ip.src"][0], frame["ip.dst"][0]) in ways]
    assert len(frames) > 500
    assert max(int(frame["frame.len"][0]) for frame in frames) == 1500 + 14  # full ones, and none aggregated
    seen: set[str] = set()
    for frame in frames:
        wanted = ways[frame["ip.src"][0], frame["ip.dst"][0]]
        assert [frame["eth.dst"][0], frame["eth.src"][1], frame["eth.dst"][1]] == wanted
        assert frame["eth.src"][0] in members[frame["ip.src"][0]]
        assert [int(value, 16) for value in frame["gre.flags_and_version"]] == [0x2000]
        assert [int(value, 16) for value in frame["gre.proto"]] == [0x6558]
        assert int(frame["gre.key"][0], 0) >> 8 == VSID
        assert frame["ip.flags.df"][0] in ("1", "True")
        for field in FIELDS:
            if field.endswith("checksum.status"):
                assert set(frame[field]) <= {"1"}, (field, frame)  # 1: good
        seen |= {field for field in FIELDS if frame[field]}
        seen |= {"ipv4 tcp"} if frame["tcp.len"] and not frame["ipv6.src"] else set()
        seen |= {"ipv6 tcp"} if frame["tcp.len"] and frame["ipv6.src"] else set()
    assert seen == {*FIELDS, "ipv4 tcp", "ipv6 tcp"}


def test_scapy_finds_the_same(capture: Path) -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import GRE, Ether
    from scapy.utils import rdpcap

    flows: dict[Any, set[int]] = {}
    checked = 0
    for frame in rdpcap(str(capture)):
        outer, gre, inner = frame[IP], frame[GRE], frame[GRE].payload
        assert isinstance(inner, Ether)
        assert bytes(gre)[:4] == b"\x20\x00\x65\x58"
        assert outer.flags == "DF"
        assert outer.len == len(bytes(frame)) - 14
        if gre.key >> 8 != VSID:
            continue
        again = Ether(bytes(frame))
        del again[IP].chksum
        ip = again[GRE].payload.payload
        if isinstance(ip, IP):
            del ip.chksum
        if TCP in inner:
            del ip[TCP].chksum
            checked += 1
            inner_ip = inner.payload
            assert isinstance(inner_ip, IP | IPv6)
            flow = (inner_ip.src, inner_ip.dst, inner[TCP].sport, inner[TCP].dport)
            flows.setdefault(flow, set()).add(gre.key & 0xFF)
        assert bytes(Ether(bytes(again))) == bytes(frame)  # all checksums as scapy makes them
    assert checked > 500
    assert len(flows) == 8  # control and data connection, both ways, both families
    assert all(len(ids) == 1 for ids in flows.values())  # a FlowID per flow
    assert len({number for ids in flows.values() for number in ids}) > 1


@pytest.mark.may_drop("rx-overrun")
def test_nothing_passes_while_the_switch_process_is_stopped(lab: Lab) -> None:
    host1 = lab.cli.inspect(lab.name)["hosts"][0]
    worker = next(process["pid"] for process in host1["processes"] if process["role"] == "worker")
    ping = ("ping", "-c", 1, "-W", 1)
    lab.cli.output(lab.name, "blue1", *ping, "10.0.0.6")
    os.kill(worker, signal.SIGSTOP)
    try:
        for source, target in (("blue1", "10.0.0.6"), ("blue2", "10.0.0.5"), ("red1", "fd00::6")):
            assert lab.cli.inside(lab.name, source, *ping, target).returncode == 1
        lab.cli.output(lab.name, "blue2", *ping, "10.0.0.7")  # other hosts do not care
    finally:
        os.kill(worker, signal.SIGCONT)
    end = time.monotonic() + 10
    while lab.cli.inside(lab.name, "blue1", *ping, "10.0.0.6").returncode:
        assert time.monotonic() < end
    lab.cli.output(lab.name, "red1", *ping, "fd00::6")
