"""`explain` names the cause of each planted fault, and finds none where nothing is wrong."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from support import planted_faults as plants
from support.labs import Lab
from support.planted_faults import Plant
from support.vmm_lab import opened
from support.waiting import until
from testbed.errors import BadInput
from testbed.explain.model import KINDS, Report
from testbed.explain.runner import explain
from testbed.lab.lab import Lab as Opened

pytestmark = pytest.mark.e2e
SECONDS = 10.0  # that an explanation may take
NIC3 = "host3:nic1"  # the only cable of host3
OTHER_MAC = "02:00:00:00:00:99"
ALLOWED = (
    "oversize", "pa-unreachable", "tx-refused", "no-provider-route", "no-provider-address", "pa-not-local",
    "policy-mismatch", "no-port", "port-refused", "bad-checksum", "no-uplink", "acl:not-to-blue4",
    "port-security:mac-spoofing", "tx-oversize", "malformed", "not-nvgre",
)  # fmt: skip
TOPOLOGY = """
name: explained
networks:
  - name: blue
    subnets:
      - {vsid: 5001, prefixes: [10.0.0.0/24, "fd00::/64"]}
      - {vsid: 5002, prefixes: [10.0.1.0/24]}
  - name: red
    subnets: [{vsid: 6001, prefixes: [10.0.0.0/24]}]
hosts:
  - name: host1
    nics: [{name: nic1}, {name: nic2}]
    extensions:
      - name: acl
        settings:
          rules:
            - {name: not-to-blue4, action: deny, ports: ["blue1:eth0"], remote: [10.0.0.8]}
  - {name: host2, nics: [{name: nic1}, {name: nic2}], extensions: [port-security]}
  - {name: host3, nics: [{name: nic1}]}
vms:
  - {name: blue1, host: host1, vnics: [{vsid: 5001, addresses: [10.0.0.5, "fd00::5"]}]}
  - {name: red1, host: host1, vnics: [{vsid: 6001, addresses: [10.0.0.5]}]}
  - {name: blue2, host: host2, vnics: [{vsid: 5001, addresses: [10.0.0.6, "fd00::6"]}]}
  - {name: blue5, host: host2, vnics: [{vsid: 5002, addresses: [10.0.1.9]}]}
  - {name: red2, host: host2, vnics: [{vsid: 6001, addresses: [10.0.0.6]}]}
  - {name: red9, host: host2, vnics: [{vsid: 6001, addresses: [10.0.0.99]}]}
  - {name: blue3, host: host3, vnics: [{vsid: 5001, addresses: [10.0.0.7]}]}
  - {name: blue4, host: host3, vnics: [{vsid: 5001, addresses: [10.0.0.8]}]}
fabric: {switches: [tor1, tor2]}
links:
  - endpoints: ["host1:nic1", tor1]
  - endpoints: ["host1:nic2", tor2]
  - endpoints: ["host2:nic1", tor1]
  - endpoints: ["host2:nic2", tor2]
  - endpoints: ["host3:nic1", tor1]
  - endpoints: [tor1, tor2]
"""


@pytest.fixture(scope="module")
def found(
    module_lab: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Lab, Opened]]:
    """A lab that each test leaves as it found it, and a handle of its own for planting."""
    file = tmp_path_factory.mktemp("explain") / "lab.yaml"
    file.write_text(TOPOLOGY)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        lab = stack.enter_context(module_lab(Path(file), may_drop=ALLOWED))
        inside = stack.enter_context(opened(lab, patch))
        for name in inside.node_names():
            inside.netns(name)  # a handle that a test opens would count as left behind
        for host in inside.plan.hosts:
            inside.host(host.name)
        yield lab, inside


def explained(lab: Lab, source: str, to: str) -> Report:
    """What is said, within its time, by handles of its own."""
    with pytest.MonkeyPatch.context() as patch, opened(lab, patch) as fresh:
        began = time.monotonic()
        report = explain(fresh, source, to)
        assert time.monotonic() - began < SECONDS
    print(f"{source} {to}: {report.cause or 'nothing'}, {report.seconds} s: {report.sentence}")
    assert report.cause in ("", *KINDS)
    assert bool(report.cause) is not report.sentence.startswith("Nothing is wrong")
    return report


def _host_prefix(vsid: int) -> Plant:
    """host1's PA of a VSID no longer makes an on-link route."""
    key = {"virtual_subnet_id": vsid, "provider_address": ("host1", vsid)}
    return plants.policy("host1", "provider-addresses", "set", **key, prefix_length=32)


KEY3: dict[str, Any] = {"customer_address": "10.0.0.7", "virtual_subnet_id": 5001}
KEY1: dict[str, Any] = {"customer_address": "10.0.0.5", "virtual_subnet_id": 5001}
ELSEWHERE = {
    **KEY3,
    "virtual_subnet_id": 5002,
    "mac_address": ("blue3", "mac"),
    "provider_address": ("host3", 5001),
}
LINK_UP = "ip link set eth0 up"
FAULTS: dict[str, tuple[Plant, str, str, str, str]] = {
    "wrong VSID of a port": (
        plants.virtual_subnet("blue3:eth0", 5002, 5001), "blue1", "blue3", "wrong-vsid",
        "blue3:eth0 is in the virtual subnet 5002 instead of 5001",
    ),
    "wrong VSID of a record": (
        plants.both(
            plants.policy("host1", "lookup-records", "remove", **KEY3),
            plants.policy("host1", "lookup-records", "add", **ELSEWHERE),
        ),
        "blue1", "blue3", "wrong-vsid",
        "host1 has the lookup record of 10.0.0.7 in VSID 5002 instead of 5001",
    ),
    "missing record": (
        plants.policy("host1", "lookup-records", "remove", **KEY3), "blue1", "blue3", "missing-record",
        "host1 has no lookup record of 10.0.0.7 (blue3) in VSID 5001",
    ),
    "missing record, on the way back": (
        plants.policy("host3", "lookup-records", "remove", **KEY1), "blue1", "blue3", "missing-record",
        "host3 has no lookup record of 10.0.0.5 (blue1) in VSID 5001",
    ),
    "stale record, where the VM is not": (
        plants.policy("host1", "lookup-records", "set", **KEY3, provider_address=("host2", 5001)),
        "blue1", "blue3", "stale-record", "of host2, and blue3 is on host3",
    ),
    "stale record, of nobody": (
        plants.policy("host1", "lookup-records", "set", **KEY3, provider_address="192.168.9.9"),
        "blue1", "blue3", "stale-record", "192.168.9.9, which no host has",
    ),
    "customer route missing": (
        plants.policy("host1", "customer-routes", "remove", virtual_subnet_id=5002),
        "blue1", "blue5", "missing-route", "host1 has no customer route of VSID 5002 to 10.0.1.9",
    ),
    "PA route missing": (
        plants.both(_host_prefix(5001), _host_prefix(6001)), "blue1", "blue3", "pa-route",
        "host1 has no route of the PA network",
    ),
    "PA missing": (
        plants.policy("host3", "provider-addresses", "remove", virtual_subnet_id=5001),
        "blue1", "blue3", "provider-address", "host3 has no provider address in use for VSID 5001",
    ),
    "fabric MTU": (
        plants.commands("fabric", "ip link set tor1-p3 mtu 1400", "ip link set tor1-p3 mtu 1500"),
        "blue1", "blue3", "fabric-mtu",
        "too small: 1404 bytes pass instead of 1500 (the cable host3:nic1 has the MTU 1400)",
    ),
    "the only cable down": (
        plants.cable_down(NIC3), "blue1", "blue3", "cable-down", "the cable host3:nic1 is down",
    ),
    "one of two cables down": (
        plants.cable_down("host1:nic1"), "blue1", "blue3", "cable-down",
        "blue1 reaches blue3 now, but the cable host1:nic1 is down; nic2 stands in for it",
    ),
    "the trunk down": (
        plants.commands("fabric", "ip link set tor1-p4 down", "ip link set tor1-p4 up"),
        "blue1", "blue3", "cable-down", "the trunk tor1--tor2 is down",
    ),
    "a member that is a black hole": (
        plants.cable_set("host1:nic1", black_hole="on"), "blue1", "blue2", "black-hole",
        "the cable host1:nic1 is a black hole: it has carrier, and nothing passes; nic2 stands in",
    ),
    "the only cable a black hole": (
        plants.cable_set(NIC3, black_hole="on"), "blue1", "blue3", "black-hole", "host3:nic1 is a black hole",
    ),
    "a lossy cable": (
        plants.cable_set(NIC3, loss="40%"), "blue1", "blue3", "lossy-cable",
        "the cable host3:nic1 is bad: 0.4 of its frames to-host are lost",
    ),
    "port security": (
        plants.mac("blue2", OTHER_MAC),
        "blue1", "blue2", "port-security", "host2's extension port-security drops such packets",
    ),
    "a MAC that is not the port's": (
        plants.mac("blue3", OTHER_MAC),
        "blue1", "blue3", "guest-network", f"blue3 speaks with the MAC {OTHER_MAC}",
    ),
    "the receiver's firewall": (
        plants.firewall("blue3"), "blue1", "blue3", "guest-firewall",
        "the firewall of blue3 is closed (nftables: closed): blue3 gets the request and does not",
    ),
    "the sender's firewall": (
        plants.firewall("blue1"), "blue1", "blue3", "guest-firewall",
        "the firewall of blue1 is closed (nftables: closed): blue1 does not let it out",
    ),
    "echoes ignored": (
        plants.commands("blue3", "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all",
                        "echo 0 > /proc/sys/net/ipv4/icmp_echo_ignore_all"),
        "blue1", "blue3", "guest-firewall", "icmp_echo_ignore_all",
    ),
    "duplicate address": (
        plants.commands("blue4", "ip addr add 10.0.0.7/24 dev eth0", "ip addr del 10.0.0.7/24 dev eth0"),
        "blue1", "blue3", "duplicate-address", "10.0.0.7 of blue3:eth0 is a duplicate: blue4:eth0 has it too",
    ),
    "the sender has the receiver's address": (
        plants.commands("blue4", "ip addr add 10.0.0.7/24 dev eth0", "ip addr del 10.0.0.7/24 dev eth0"),
        "blue4", "blue3", "duplicate-address",
        "blue4 does not reach blue3: 10.0.0.7 of blue3:eth0 is a duplicate",
    ),
    "duplicate provider address": (
        plants.duplicate_pa("host3", 5001, "host2"), "blue1", "blue3", "duplicate-address",
        "of host3 is a duplicate: another machine has it",
    ),
    "address missing in the guest": (
        plants.commands("blue3", "ip addr del 10.0.0.7/24 dev eth0", "ip addr add 10.0.0.7/24 dev eth0"),
        "blue1", "blue3", "guest-network", "blue3 lacks its address 10.0.0.7",
    ),
    "adapter down": (
        plants.commands("blue3", "ip link set eth0 down", LINK_UP), "blue1", "blue3", "guest-network",
        "blue3 has its adapter eth0 down",
    ),
    "VMM away": (
        plants.vmm_stopped(), "blue1", "blue3", "vmm-away",
        "blue1 reaches blue3 now, but the VMM does not answer",
    ),
    "a switch that hangs": (
        plants.stopped(plants.worker_of("host3")), "blue1", "blue3", "node-down",
        "host3 is down or does not answer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault(found: tuple[Lab, Opened], name: str) -> None:
    lab, inside = found
    plant, source, to, cause, words = FAULTS[name]
    with plant(lab, inside):
        report = explained(lab, source, to)
    assert report.cause == cause, report
    assert words in report.sentence
    if cause:
        assert any(not step.ok for step in report.steps)
    until(lambda: not explained(lab, source, to).cause, f"{name}: not healthy again")


def test_what_stands_in_for_something_is_not_the_cause(found: tuple[Lab, Opened]) -> None:
    """A member that has failed, a VMM that is away and a closed guest: only the last one stops packets."""
    lab, inside = found
    away = plants.both(plants.cable_down("host1:nic2"), plants.vmm_stopped())
    with away(lab, inside), plants.firewall("blue3")(lab, inside):
        report = explained(lab, "blue1", "blue3")
    assert (report.cause, report.works) == ("guest-firewall", False)


def test_an_acl(found: tuple[Lab, Opened]) -> None:
    """It is part of the topology, so that it needs no planting; the way from another VM is open."""
    lab, _ = found
    report = explained(lab, "blue1", "blue4")
    assert (report.cause, report.works) == ("acl", False)
    assert (
        "host1's extension acl (not-to-blue4, stage port-extensions) drops the request from blue1"
        in report.sentence
    )
    injected = next(step.said for step in report.steps if "Test-VMNetworkAdapter" in step.asked)
    assert injected == "no: the request stopped at host1, port-extensions: acl:not-to-blue4"
    assert explained(lab, "blue2", "blue4").cause == ""


def test_a_record_that_the_vmm_could_not_tell(found: tuple[Lab, Opened]) -> None:
    lab, inside = found
    with (
        plants.policy("host1", "lookup-records", "remove", **KEY3)(lab, inside),
        plants.cut_off(inside, "host1"),
    ):
        report = explained(lab, "blue1", "blue3")
    assert report.cause == "vmm-away"
    assert "host1 is cut off from the VMM" in report.sentence
    assert "host1 has no lookup record of 10.0.0.7" in report.sentence


@pytest.mark.parametrize(
    ("source", "to", "words"),
    [
        ("blue1", "blue3", "blue1 reaches blue3"),
        ("blue1", "10.0.0.6", "blue1 reaches blue2"),
        ("blue1", "fd00::6", "blue1 reaches blue2"),
        ("blue1:eth0", "blue5:eth0", "blue1 reaches blue5"),
        ("blue4", "blue3", "blue4 reaches blue3"),
        ("blue1", "red2", "isolated by design: different routing domains"),
        ("blue1", "red1", "isolated by design: different routing domains"),
        ("blue1", "10.0.0.99", "isolated by design: different routing domains"),
        ("blue1", "10.0.0.1", "default gateway"),
    ],
)
def test_nothing_is_wrong(found: tuple[Lab, Opened], source: str, to: str, words: str) -> None:
    report = explained(found[0], source, to)
    assert report.cause == "", report
    assert words in report.sentence
    assert all(step.ok for step in report.steps)


def test_an_address_that_nobody_has(found: tuple[Lab, Opened]) -> None:
    report = explained(found[0], "blue1", "10.0.0.200")
    assert (report.cause, report.to) == ("no-such-address", "")


def test_a_leak(found: tuple[Lab, Opened], monkeypatch: pytest.MonkeyPatch) -> None:
    """Were two tenants not apart: the VMs' plan has one of them in the other's network."""
    lab, _ = found
    with opened(lab, monkeypatch) as fresh:
        vms = [each for each in fresh.plan.vms if each.name != "blue3"]
        blue3 = fresh.plan.vm("blue3")
        moved = structs.replace(blue3, vnics=(structs.replace(blue3.vnics[0], network="red"),))
        fresh.plan = structs.replace(fresh.plan, vms=(*vms, moved))
        report = explain(fresh, "blue1", "blue3")
    assert report.cause == "leak"


def test_the_verb(found: tuple[Lab, Opened]) -> None:
    lab, _ = found
    said = lab.cli.ok("explain", lab.name, "--from", "blue1", "--to", "blue3").splitlines()
    assert said[-1] == "Nothing is wrong: blue1 reaches blue3, and its answers come back, small and large."
    assert all(line.startswith("ok ") for line in said[:-2])
    ended = lab.cli.run("explain", lab.name, "--from", "blue1", "--to", "blue4", "-f", "json")
    assert ended.returncode == 1
    report = json.loads(ended.stdout)
    assert (report["from"], report["to"], report["cause"]) == ("blue1:eth0", "blue4:eth0", "acl")
    assert "is blue1 itself" in lab.cli.refused(2, "explain", lab.name, "--from", "blue1", "--to", "blue1")


@pytest.mark.parametrize(
    ("source", "to", "what"),
    [
        ("blue99", "blue1", "no VM 'blue99'"),
        ("blue1", "blue99", "no VM 'blue99'"),
        ("blue1", "blue2:eth7", "--to blue2:eth7: there is no such adapter"),
        ("blue1", "10.0.0.5", "is blue1 itself"),
    ],
)
def test_what_can_not_be_explained(found: tuple[Lab, Opened], source: str, to: str, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        explained(found[0], source, to)


def test_a_vm_that_has_ended(found: tuple[Lab, Opened]) -> None:
    """The last one: it does not come back."""
    lab, inside = found
    os.kill(inside.node("blue4").pid, signal.SIGKILL)
    report = explained(lab, "blue1", "blue4")
    assert (report.cause, report.works) == ("node-down", None)
    assert "blue4 is down" in report.sentence
