"""A trace in a running lab says what then happens to a real packet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support import teams
from support.cli import FOUR_HOSTS, Cli, drops
from support.vmm_lab import opened
from support.waiting import until
from testbed.lab.lab import Lab

pytestmark = pytest.mark.e2e
OPTIONS = ("--set", "hosts=3", "--set", "vms_per_host=4")  # blue1, blue2 on host1; blue5, blue6 in VSID 5002
ALLOWED = ("oversize", "pa-unreachable", "tx-refused", "no-provider-route")


@pytest.fixture(scope="module")
def traced(module_lab: Callable[..., Any]) -> Iterator[tuple[Cli, str, Lab]]:
    """A lab of three hosts, which tests leave as they found it."""
    up = module_lab(FOUR_HOSTS, *OPTIONS, may_drop=ALLOWED)
    with pytest.MonkeyPatch.context() as patch, up as found, opened(found, patch) as inside:
        for name in inside.node_names():
            inside.netns(name)  # a handle that a test opens would count as left behind
        yield found.cli, found.name, inside


def trace(lab: tuple[Cli, str, Lab], *words: object) -> dict[str, Any]:
    """What ``trace`` says; the exit code agrees with it."""
    cli, name, _ = lab
    ended = cli.run("trace", name, *words, "-f", "json")
    assert ended.returncode in (0, 1), ended.stderr.decode()
    found: dict[str, Any] = json.loads(ended.stdout)
    assert (ended.returncode == 0) is found["arrives"]
    return found


def pings(lab: tuple[Cli, str, Lab], vm: str, address: str, *options: object) -> bool:
    """Whether a VM's echo request is answered."""
    cli, name, _ = lab
    return cli.inside(name, vm, "ping", "-c", 1, "-W", 2, *options, address).returncode == 0


def stage(found: dict[str, Any], name: str, hop: int = 0) -> dict[str, Any]:
    """The first stage of that name."""
    stages = found["hops"][hop]["stages"]
    return dict(next(each for each in stages if each["stage"] == name))


@pytest.mark.parametrize(
    ("address", "outcome"),
    [
        ("10.0.0.6", "delivered to blue2 (blue2:eth0) on host1"),
        ("10.0.0.7", "delivered to blue3 (blue3:eth0) on host2"),
        ("fd00::8", "delivered to blue4 (blue4:eth0) on host2"),
        ("10.0.1.9", "delivered to blue5 (blue5:eth0) on host3"),
        ("fd00:0:0:1::10", "delivered to blue6 (blue6:eth0) on host3"),
        ("10.0.0.99", "dropped: no-lookup-record at wnv on host1"),
        ("10.0.0.9", "dropped: no-lookup-record at wnv on host1"),  # red5's
        ("10.0.0.1", "dropped: gateway-address at wnv on host1"),
        ("172.16.0.1", "dropped: no-customer-route at wnv on host1"),
    ],
)
def test_as_a_real_packet_fares(traced: tuple[Cli, str, Lab], address: str, outcome: str) -> None:
    answered = pings(traced, "blue1", address)
    found = trace(traced, "--from", "blue1", "--to", address)
    assert found["outcome"] == outcome
    assert found["arrives"] is answered


def test_the_details_are_those_of_the_lab(traced: tuple[Cli, str, Lab]) -> None:
    assert pings(traced, "blue1", "10.0.1.9")
    found = trace(traced, "--from", "blue1:eth0", "--to", "10.0.1.9", "--protocol", "udp", "--port", 53)
    details = stage(found, "wnv")["details"]
    assert details["route"]["prefix"] == "10.0.1.0/24"
    record = details["record"]
    assert (record["vm_name"], record["type"]) == ("blue5", "Static")
    (tunnel,) = details["tunnels"]
    outer = stage(found, "nic", 1)["details"]["outer"]
    assert (outer["source_pa"], outer["destination_pa"]) == (tunnel["source_pa"], record["provider_address"])
    assert outer["destination_mac"] == tunnel["next_hop_mac"]
    inspected = traced[0].inspect(traced[1])
    host3 = next(each for each in inspected["hosts"] if each["name"] == "host3")
    assert outer["destination_pa"] in host3["provider_addresses"]
    assert outer["destination_mac"] in [each["mac"] for each in host3["nics"]]


def test_questions_are_answered_and_discoveries_flooded(traced: tuple[Cli, str, Lab]) -> None:
    mac = next(each["mac"] for each in traced[0].inspect(traced[1])["vms"] if each["name"] == "blue3")
    for address in ("10.0.0.7", "fd00::7"):
        answered = trace(traced, "--from", "blue1", "--arp", address)
        assert answered["outcome"] == f"answered by the switch of host1 for {address} with {mac}"
    for vm in ("blue3", "blue4"):
        assert pings(traced, "blue1", "10.0.0.7" if vm == "blue3" else "10.0.0.8")
    flooded = trace(traced, "--from", "blue1", "--dhcp")["outcome"]
    assert flooded == (
        "delivered to blue2 (blue2:eth0) on host1, blue3 (blue3:eth0) on host2, blue4 (blue4:eth0) on host2"
    )


def test_too_long_a_packet(traced: tuple[Cli, str, Lab]) -> None:
    cli, name, _ = traced
    found = trace(traced, "--from", "blue1", "--to", "10.0.0.7", "--size", 1500)
    assert found["outcome"] == "dropped: oversize at wnv on host1, and the sender is told"
    before = drops(cli, name).get(("host1", "blue1:eth0", "oversize"), 0)
    mtu = stage(found, "wnv")
    assert mtu["verdict"] == "pass"  # it is the length of what would leave that counts
    cli.output(name, "blue1", "ip", "link", "set", "eth0", "mtu", "1500")
    try:
        assert not pings(traced, "blue1", "10.0.0.7", "-M", "do", "-s", 1472)
        assert drops(cli, name)["host1", "blue1:eth0", "oversize"] == before + 1
    finally:
        cli.output(name, "blue1", "ip", "link", "set", "eth0", "mtu", "1458")
        cli.output(name, "blue1", "ip", "route", "flush", "cache")


def test_a_super_packet_is_cut(traced: tuple[Cli, str, Lab]) -> None:
    assert pings(traced, "blue1", "10.0.0.7")
    found = trace(traced, "--from", "blue1", "--to", "10.0.0.7", "--protocol", "tcp", "--size", 9000)
    assert found["arrives"]
    assert stage(found, "nic")["details"]["segmentation"].startswith("by the NIC, into 7 frames")


def test_a_record_that_is_gone_and_one_that_leads_nowhere(traced: tuple[Cli, str, Lab]) -> None:
    cli, name, _ = traced
    key = ("--host", "host1", "--local", "--customer-address", "10.0.0.8", "--virtual-subnet-id", 5001)
    assert pings(traced, "blue1", "10.0.0.8")
    try:
        cli.ok("policy", name, "lookup-records", "set", *key, "--provider-address", "192.168.250.250")
        assert not pings(traced, "blue1", "10.0.0.8")
        nowhere = trace(traced, "--from", "blue1", "--to", "10.0.0.8")
        assert nowhere["outcome"] in (
            "waits on host1 until 192.168.250.250 is resolved",
            "dropped: no-provider-route at wnv on host1",
        )
        cli.ok("policy", name, "lookup-records", "remove", *key)
        assert not pings(traced, "blue1", "10.0.0.8")
        gone = trace(traced, "--from", "blue1", "--to", "10.0.0.8")
        assert gone["outcome"] == "dropped: no-lookup-record at wnv on host1"
    finally:
        cli.ok("vmm", name, "resync", "--host", "host1")
    assert pings(traced, "blue1", "10.0.0.8")
    assert trace(traced, "--from", "blue1", "--to", "10.0.0.8")["arrives"]


@pytest.mark.parametrize("member", ["nic1", "nic2"])
def test_a_member_that_has_failed(traced: tuple[Cli, str, Lab], member: str) -> None:
    cli, name, inside = traced
    other = {"nic1": "nic2", "nic2": "nic1"}[member]
    for host in ("host1", "host2"):
        cli.ok("team", name, host, "fail", member)
    try:
        until(lambda: pings(traced, "blue1", "10.0.0.7"), "no answer by the other member")
        found = trace(traced, "--from", "blue1", "--to", "10.0.0.7")
        assert found["arrives"]
        assert stage(found, "team")["details"]["member"] == other
        assert found["hops"][1]["nic"] == other
    finally:
        for host in ("host1", "host2"):
            cli.ok("team", name, host, "restore", member)
            teams.wait_for(inside, "Active", host=host)


@pytest.mark.parametrize(
    "words",
    [
        ("--to", "10.0.0.6"),
        ("--to", "10.0.0.7"),
        ("--to", "fd00::8", "--protocol", "udp", "--port", 5000),
        ("--to", "10.0.1.9", "--protocol", "tcp", "--port", 5000, "--size", 1000),
        ("--to", "10.0.0.1"),
        ("--to", "10.0.0.99"),
        ("--arp", "10.0.0.7"),
        ("--arp", "fd00::7"),
        ("--dhcp",),
    ],
)
def test_a_real_packet_fares_as_was_said(traced: tuple[Cli, str, Lab], words: tuple[object, ...]) -> None:
    if words[0] == "--to":
        pings(traced, "blue1", str(words[1]))
    dry = trace(traced, "--from", "blue1", *words)
    real = trace(traced, "--from", "blue1", *words, "--real")
    assert sorted(real["outcome"].split(", ")) == sorted(dry["outcome"].split(", "))
    outers = [
        [copy["outer"]["destination_pa"] for copy in found["hops"][0]["copies"] if copy["to"] == "wire"]
        for found in (dry, real)
    ]
    assert sorted(outers[0]) == sorted(outers[1])


def test_a_trace_leaves_no_trace(traced: tuple[Cli, str, Lab]) -> None:
    """Lost packets would be counted, and claims of addresses learned."""
    cli, name, _ = traced

    def lost() -> dict[tuple[str, str, str], int]:
        found = drops(cli, name)
        return {key: value for key, value in found.items() if key[2] == "no-customer-route"}

    before, learned = lost(), cli.inspect(name)["hosts"][0]["lookup_records"]
    for _ in range(3):
        trace(traced, "--from", "blue1", "--to", "172.16.0.1")
        trace(traced, "--from", "blue1", "--frame", _announcement(cli, name))
    assert lost() == before
    assert cli.inspect(name)["hosts"][0]["lookup_records"] == learned


def _announcement(cli: Cli, name: str) -> str:
    """ARP of blue1 with an address that it does not have."""
    mac = next(each["mac"] for each in cli.inspect(name)["vms"] if each["name"] == "blue1").replace(":", "")
    address = "0a000058"
    return f"ffffffffffff{mac}0806000108000604000" + f"1{mac}{address}000000000000{address}"


def test_text_for_people(traced: tuple[Cli, str, Lab]) -> None:
    cli, name, _ = traced
    assert pings(traced, "blue1", "10.0.0.7")
    lines = cli.ok("trace", name, "--from", "blue1", "--to", "10.0.0.7").splitlines()
    assert lines[0] == "42 bytes from blue1:eth0"
    assert lines[-1] == "delivered to blue3 (blue3:eth0) on host2"
    assert any(line.startswith("  wnv (out): pass: to 10.0.0.7; route 10.0.0.0/24 on-link") for line in lines)
    assert any(line.startswith("host2, inbound, nic") for line in lines)


def test_what_can_not_be_traced(traced: tuple[Cli, str, Lab]) -> None:
    cli, name, _ = traced
    for words, said in (
        (("--from", "blue99", "--dhcp"), "no VM 'blue99'"),
        (("--from", "blue1:eth5", "--dhcp"), "one of blue1:eth0"),
        (("--from", "blue1"), "one of --to IP"),
        (("--from", "blue1", "--to", "10.0.0.5"), "is its own address"),
        (("--from", "blue1", "--to", "nonsense"), "no IP address"),
        (("--from", "blue1", "--frame", "xyz"), "not hexadecimal"),
        (("--from", "blue1", "--to", "10.0.0.6", "--size", 5), "28 to 65535"),
    ):
        assert said in cli.refused(2, "trace", name, *words)
