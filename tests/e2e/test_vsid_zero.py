"""VSID 0 is not virtualised: plain frames on the cable, and no way into a virtual subnet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import topologies
from support.capture import LAST, captured, port_of
from support.cli import Cli
from support.engines import DOCKER_IS_LONG
from support.topologies import blue, plain

pytestmark = pytest.mark.e2e


@DOCKER_IS_LONG
def test_plain_vms_reach_each_other_and_the_tenant_stays_alone(
    each_cli: Cli, tmp_path: Path, running: Callable[..., Any]
) -> None:
    file = topologies.write(
        tmp_path,
        "mixed",
        {"host1": "tor1", "host2": "tor1"},
        [
            plain("plain1", "host1", 1),
            plain("plain2", "host2", 2),
            blue("blue1", "host1", 5),
            blue("blue2", "host2", 6),
        ],
    )
    # plain frames reach every VM-less corner of the fabric; the other host has no port for them all
    with running(each_cli, file, may_drop=("not-nvgre",)) as lab:
        assert each_cli.json("check", lab.name)["ok"]
        vms = {vm["name"]: vm for vm in each_cli.inspect(lab.name)["vms"]}
        assert (vms["plain1"]["vsid"], vms["plain1"]["mtu"]) == (0, 1500)
        dump = tmp_path / "cable.pcap"
        with captured(lab, port_of(lab, "host1", "nic1"), dump, "not ip proto 47", "plain1", "172.16.0.2"):
            for address in ("172.16.0.2", "fd10::2"):
                each_cli.output(lab.name, "plain1", "ping", "-c", 2, "-i", "0.1", "-W", 2, address)
                each_cli.output(lab.name, "plain1", "ping", "-c", 1, "-W", 2, "-M", "do", "-s", 1400, address)
        plain_on_the_cable(dump, vms["plain1"]["mac"], vms["plain2"]["mac"])
        # the same addresses on both sides change nothing
        each_cli.output(lab.name, "plain1", "ip", "address", "add", "10.0.0.77/24", "dev", "eth0")
        assert each_cli.inside(lab.name, "plain1", "ping", "-c", 1, "-W", 1, "10.0.0.6").returncode == 1
        each_cli.output(lab.name, "blue1", "ip", "address", "add", "172.16.0.77/24", "dev", "eth0")
        assert each_cli.inside(lab.name, "blue1", "ping", "-c", 1, "-W", 1, "172.16.0.2").returncode == 1


def plain_on_the_cable(dump: Path, source: str, target: str) -> None:
    """Echo requests and replies of both families, untagged, between the VMs' own MACs."""
    from scapy.layers.inet import ICMP
    from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest
    from scapy.layers.l2 import Dot1Q
    from scapy.utils import rdpcap

    echoes = (ICMP, ICMPv6EchoRequest, ICMPv6EchoReply)
    frames = [frame for frame in rdpcap(str(dump)) if any(kind in frame for kind in echoes)]
    frames = [frame for frame in frames if LAST not in bytes(frame)]
    assert not [frame for frame in frames if Dot1Q in frame]
    ways = [(frame.src, frame.dst) for frame in frames]
    assert ways.count((source, target)) == ways.count((target, source)) == 6
    assert len(ways) == 12
