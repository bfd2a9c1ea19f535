"""testbed policy, vnic, events: the policy of a running lab, changed by hand; without a VMM unless said."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.capture import port_of
from support.cli import TWO_HOSTS, Cli, drops
from support.frames import UDP, encapsulated, ethernet, ipv4, mac, ports
from support.labs import Lab
from support.waiting import until

pytestmark = pytest.mark.e2e

SECONDS = 10.0
STATIC = ("--set", "vmm=false", "--set", "learning=false")  # nothing but these commands changes the policy
BLUE2 = ("--customer-address", "10.0.0.6", "--virtual-subnet-id", 5001)
SEND = """
import socket, sys
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.bind((sys.argv[1], 0))
sender.send(bytes.fromhex(sys.argv[2]))
"""


def answers(lab: Lab, address: str = "10.0.0.6") -> bool:
    """Whether blue1 gets an answer from an address."""
    ping = ("ping", "-c", 3, "-i", "0.2", "-W", 1, address)
    return lab.cli.inside(lab.name, "blue1", *ping).returncode == 0


def records(lab: Lab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lab.cli.json("policy", lab.name, "lookup-records")
    return found


def options(record: dict[str, Any]) -> list[Any]:
    """The options that make this record."""
    names = ("customer_address", "virtual_subnet_id", "mac_address", "provider_address", "rule", "vm_name")
    return [word for name in names for word in ("--" + name.replace("_", "-"), record[name])]


def test_a_removed_record_stops_traffic_at_once_and_an_added_one_restores_it(
    cli: Cli, running: Callable[..., Any]
) -> None:
    with running(cli, TWO_HOSTS, *STATIC) as lab:
        assert answers(lab)
        before = records(lab)
        done = cli.json("policy", lab.name, "lookup-records", "remove", *BLUE2)["changes"]
        assert [(each["host"], each["kind"], each["new"]) for each in done] == [
            (host, "lookup-records", None) for host in ("host1", "host2")
        ]
        assert not answers(lab)
        assert answers(lab, "fd00::6")
        assert len(records(lab)) == len(before) - 2
        cli.ok("policy", lab.name, "lookup-records", "add", *options(done[0]["old"]))
        assert answers(lab)
        key = lambda each: (each["host"], each["customer_address"])  # noqa: E731
        assert sorted(records(lab), key=key) == sorted(before, key=key)


def test_what_one_host_refuses_changes_none(cli: Cli, running: Callable[..., Any]) -> None:
    with running(cli, TWO_HOSTS, *STATIC) as lab:
        new = (
            "--customer-address",
            "10.0.0.9",
            "--virtual-subnet-id",
            5001,
            "--provider-address",
            "192.168.0.2",
        )
        add = ("policy", lab.name, "lookup-records", "add", *new)
        cli.ok(*add, "--mac-address", "02:00:00:00:00:01", "--host", "host2")
        before = records(lab)
        assert {each["host"] for each in before if each["customer_address"] == "10.0.0.9"} == {"host2"}
        said = cli.refused(2, *add, "--mac-address", "02:00:00:00:00:02")
        assert said.startswith("testbed: host2: lookup-records: 10.0.0.9")
        refusals = {
            "4096": ("lookup-records", "remove", *BLUE2[:2], "--virtual-subnet-id", 5),
            "VSID 5009": ("lookup-records", "remove", "--virtual-subnet-id", 5009),
            "--virtual-subnet-id": ("lookup-records", "remove", *BLUE2[:2]),
            "--mac-address": ("lookup-records", "add", *BLUE2),
            "no --metric": ("lookup-records", "add", *BLUE2, "--metric", 3),
            "--host": ("provider-addresses", "remove", "--virtual-subnet-id", 5001),
            "no host 'host9'": ("lookup-records", "list", "--host", "host9"),
            "list takes no": ("lookup-records", "list", *BLUE2),
        }
        for reason, words in refusals.items():
            assert reason in cli.refused(2, "policy", lab.name, *words), words
        assert records(lab) == before
        assert answers(lab)


def test_provider_addresses_pass_duplicate_detection(cli: Cli, running: Callable[..., Any]) -> None:
    with running(cli, TWO_HOSTS, *STATIC, may_drop=("own-packet",)) as lab:

        def state(address: str) -> str:
            found = cli.json("policy", lab.name, "provider-addresses", "--host", "host1")
            return next(str(each["address_state"]) for each in found if each["provider_address"] == address)

        def settled(address: str) -> str:
            end = time.monotonic() + SECONDS
            while (now := state(address)) == "Tentative":
                assert time.monotonic() < end
            return now

        add = ("policy", lab.name, "provider-addresses", "add", "--host", "host1", "--prefix-length", 20)
        cli.ok(*add, "--virtual-subnet-id", 5001, "--provider-address", "192.168.0.77")
        assert settled("192.168.0.77") == "Preferred"
        cli.ok(*add, "--virtual-subnet-id", 5002, "--provider-address", "192.168.0.2")  # host2's
        assert settled("192.168.0.2") == "Duplicate"
        told = cli.json("events", lab.name, "host1", "--kind", "provider-address")["events"]
        states = [each["fields"]["state"] for each in told if each["object"] == "192.168.0.77"]
        assert states == ["Tentative", "Preferred"]


def test_a_port_in_another_virtual_subnet_keeps_its_guest(cli: Cli, running: Callable[..., Any]) -> None:
    with running(cli, TWO_HOSTS, may_drop=("no-provider-address", "no-port")) as lab:

        def link() -> str:
            return cli.output(lab.name, "blue1", "ip", "-o", "link", "show", "eth0").split("qlen")[0]

        before = link()
        assert "mtu 1458" in before
        done = cli.json("vnic", lab.name, "blue1:eth0", "--virtual-subnet-id", 5002)
        assert done == {"host": "host1", "port": "blue1:eth0", "virtual_subnet_id": 5002, "before": 5001}
        assert not answers(lab)
        assert link() == before
        assert {vm["name"]: vm["vsid"] for vm in cli.inspect(lab.name)["vms"]} == {
            "blue1": 5002,
            "blue2": 5001,
        }
        assert "4096 to 16777214" in cli.refused(2, "vnic", lab.name, "blue1:eth0", "--virtual-subnet-id", 9)
        assert "blue1:eth0" in cli.refused(2, "vnic", lab.name, "blue1", "--virtual-subnet-id", 5001)
        cli.ok("vnic", lab.name, "blue1:eth0", "--virtual-subnet-id", 5001)
        # A neighbor that the guest has just given up as failed costs a whole ping.
        until(lambda: answers(lab), "blue1 has not come back")


def test_a_packet_of_an_unknown_virtual_subnet_is_an_event_and_reaches_nobody(
    cli: Cli, running: Callable[..., Any]
) -> None:
    with running(cli, TWO_HOSTS, may_drop=("policy-mismatch",)) as lab:
        found = cli.inspect(lab.name)
        nic, vm = found["hosts"][0]["nics"][0]["mac"], found["vms"][0]["mac"]
        interface = port_of(lab, "host1", "nic1")
        payload = ipv4("10.0.0.6", "10.0.0.5", UDP, ports(1, 2) + b"\0\x08\0\0")
        inner = ethernet(mac(vm), b"\2\0\0\0\0\1", 0x0800, payload)
        before = arrived(lab)
        for vsid, sender in ((7777, "192.168.0.2"), (5001, "192.168.0.99"), (5001, "192.168.0.2")):
            frame = encapsulated(inner, vsid, sender, "192.168.0.1", mac(nic))
            cli.output(lab.name, "fabric", sys.executable, "-c", SEND, interface, frame.hex())
        told = mismatches(cli, lab.name, 2)
        assert [each["fields"]["vsid"] for each in told] == [7777, 5001]
        assert [each["fields"]["pa"] for each in told] == ["192.168.0.2", "192.168.0.99"]
        assert {each["host"] for each in told} == {"host1"}
        assert {each["fields"]["ca"] for each in told} == {"10.0.0.6"}
        assert drops(cli, lab.name)["host1", "nic1", "policy-mismatch"] == 2
        assert arrived(lab) == before + 1  # the third one, which is as it should be


def arrived(lab: Lab) -> int:
    """Datagrams that the kernel of blue1 got for a port where nobody listens."""
    names, values = (
        line.split()
        for line in lab.cli.output(lab.name, "blue1", "cat", "/proc/net/snmp").splitlines()
        if line.startswith("Udp:")
    )
    return int(values[names.index("NoPorts")])


def mismatches(cli: Cli, name: str, number: int) -> list[dict[str, Any]]:
    """The policy mismatches, once there are so many."""
    end = time.monotonic() + SECONDS
    while True:
        told: list[dict[str, Any]] = cli.json("events", name, "--kind", "policy-mismatch")["events"]
        if len(told) >= number:
            return told
        assert time.monotonic() < end, told


def test_apply_takes_back_what_was_changed_by_hand(cli: Cli, running: Callable[..., Any]) -> None:
    with running(cli, TWO_HOSTS, *STATIC) as lab:
        before = records(lab)
        assert not any(each["unsynchronized"] for each in before)
        assert cli.ok("apply", lab.name, TWO_HOSTS, *STATIC) == "nothing to change\n"
        cli.ok("policy", lab.name, "lookup-records", "set", "--host", "host1", *BLUE2, "--context", "by hand")
        assert [each["customer_address"] for each in records(lab) if each["unsynchronized"]] == ["10.0.0.6"]
        assert cli.json("apply", lab.name, TWO_HOSTS, *STATIC, "--dry-run")["changes"]["policy"] == ["host1"]
        assert cli.ok("apply", lab.name, TWO_HOSTS, *STATIC) == "~ policy host1\n"
        assert records(lab) == before
        assert cli.ok("apply", lab.name, TWO_HOSTS, *STATIC) == "nothing to change\n"


def test_the_next_hop_of_a_packet(cli: Cli, running: Callable[..., Any], tmp_path: Path) -> None:
    with running(cli, TWO_HOSTS) as lab:
        vms = {vm["name"]: vm for vm in cli.inspect(lab.name)["vms"]}
        ask = ("policy", lab.name, "select-next-hop", "--source-virtual-subnet-id", 5001)
        to = ("--destination-customer-address", "10.0.0.6", "--source-customer-address", "10.0.0.5")
        found = cli.json(*ask, "--host", "host1", *to)
        assert found["next_hop_mac_address"] == vms["blue2"]["mac"]
        assert found["source_mac_address"] == vms["blue1"]["mac"]
        assert "10.0.0.200" in cli.refused(
            2, *ask, "--host", "host1", "--destination-customer-address", "10.0.0.200"
        )
        assert "--host" in cli.refused(2, *ask, *to)
        assert "leave out 'add'" in cli.refused(2, "policy", lab.name, "select-next-hop", "add")
