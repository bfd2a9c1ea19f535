"""ping and test-vmnetworkadapter in whole labs: by each member, with closed guests, with what is broken."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import teams
from support.capture import port_of
from support.cli import TOPOLOGIES, TWO_HOSTS
from support.guests import closed, listening
from support.labs import Lab
from support.vmm_lab import opened
from support.waiting import until
from testbed.lab.lab import Lab as Opened

pytestmark = pytest.mark.e2e
TEAM = TOPOLOGIES / "team.yaml"
TAG = 4  # bytes of a VLAN tag, for which bridge and veth leave room beyond the MTU
ALLOWED = ("tx-refused", "pa-unreachable", "rx-overrun", "not-nvgre", "no-provider-address")
V4 = ("--sender-ip", "10.0.0.5", "--receiver-ip", "10.0.0.6")
V6 = ("--sender-ip", "fd00::5", "--receiver-ip", "fd00::6")
BOTH = ("--sender", "blue1", "--receiver", "blue2")
Found = tuple[Lab, Opened]


@pytest.fixture(scope="module")
def team_lab(module_lab: Callable[..., Any]) -> Iterator[Found]:
    """Two hosts with teams of two NICs at one switch, which tests leave as they found them."""
    up = module_lab(TEAM, may_drop=ALLOWED)
    with pytest.MonkeyPatch.context() as patch, up as found, opened(found, patch) as inside:
        yield _with_handles(found, inside)


@pytest.fixture(scope="module")
def two_hosts(module_lab: Callable[..., Any]) -> Iterator[Found]:
    """Two hosts with a NIC each."""
    up = module_lab(TWO_HOSTS, may_drop=ALLOWED)
    with pytest.MonkeyPatch.context() as patch, up as found, opened(found, patch) as inside:
        yield _with_handles(found, inside)


def _with_handles(lab: Lab, inside: Opened) -> Found:
    for name in inside.node_names():
        inside.netns(name)  # a handle that a test opens would count as left behind
    return lab, inside


def addresses(lab: Lab, host: str) -> dict[int, str]:
    """A host's provider addresses by VSID."""
    hosts = {each["name"]: each for each in lab.cli.inspect(lab.name)["hosts"]}
    return {each["vsid"]: each["address"] for each in hosts[host]["provider_address_states"]}


def answer(lab: Lab, code: int, *words: object) -> Any:
    """What a verb prints for programs that ends with ``code``."""
    done = lab.cli.run(*words, "-f", "json")
    assert done.returncode == code, (done.stdout, done.stderr)
    assert b"Traceback" not in done.stderr
    return json.loads(done.stdout)


def ping(lab: Lab, *words: object, code: int = 0) -> list[dict[str, Any]]:
    """From host1."""
    found: list[dict[str, Any]] = answer(lab, code, "ping", lab.name, "host1", "--pa", *words)
    return found


def probed(lab: Lab, *words: object, code: int = 0) -> dict[str, Any]:
    """test-vmnetworkadapter."""
    found: dict[str, Any] = answer(lab, code, "test-vmnetworkadapter", lab.name, *words)
    return found


# ---- ping ---------------------------------------------------------------------------------


def test_a_host_pings_provider_addresses_where_its_own_ping_fails(team_lab: Found) -> None:
    lab, _ = team_lab
    own, others = addresses(lab, "host1"), addresses(lab, "host2")
    found = ping(lab, "host2", "--count", 3)
    pairs = {(each["source"], each["destination"]) for each in found}
    assert pairs == {(own[vsid], others[vsid]) for vsid in (5001, 6001)}
    assert all(each["lost"] == 0 and len(each["round_trips"]) == 3 for each in found)
    assert all(0 < each["min"] <= each["avg"] <= each["max"] < 1 for each in found)
    (one,) = ping(lab, others[5001], "--from", own[6001], "--size", 1472)
    assert (one["source"], one["destination"], one["lost"]) == (own[6001], others[5001], 0)
    assert lab.cli.inside(lab.name, "host1", "ping", "-c", 1, "-W", 1, others[5001]).returncode != 0
    said = lab.cli.ok("ping", lab.name, "host1", "--pa", others[5001])
    assert f"{own[5001]} -> {others[5001]}: 4 sent, 0 lost, min/avg/max " in said


def test_each_member_is_pinged_through_by_itself(team_lab: Found) -> None:
    lab, inside = team_lab
    teams.wait_for(inside, "Active", seconds=30.0)
    with teams.failing(inside, "from-host", "nic1"):
        assert all(each["lost"] == each["sent"] for each in _through(lab, "nic1", code=1))
        assert all(each["lost"] == 0 for each in _through(lab, "nic2"))
    teams.wait_for(inside, "Active", seconds=30.0)
    for member in ("nic1", "nic2"):
        assert all(each["lost"] == 0 for each in _through(lab, member, "--size", 1400))


def _through(lab: Lab, member: str, *words: object, code: int = 0) -> list[dict[str, Any]]:
    found = ping(lab, "host2", "--member", member, "--timeout", 0.3, *words, code=code)
    assert [each["member"] for each in found] == [member] * 2
    return found


def test_a_member_that_was_given_up_can_be_pinged_through(team_lab: Found) -> None:
    """And the one that speaks for it is heard again at once."""
    lab, inside = team_lab
    teams.wait_for(inside, "Active", seconds=30.0)
    with teams.failing(inside, "administrative", "nic1"):
        assert all(each["lost"] == 0 for each in _through(lab, "nic1"))
        mac = teams.members(inside)["nic1"]["mac"]
        known = json.loads(lab.cli.output(lab.name, "fabric", "bridge", "-j", "fdb", "show"))
        assert [each["ifname"] for each in known if each["mac"] == mac] == [port_of(lab, "host1", "nic2")]
        assert lab.cli.json("check", lab.name)["ok"]
    teams.wait_for(inside, "Active", seconds=30.0)


def test_a_sweep_finds_the_smallest_mtu_on_the_way(team_lab: Found) -> None:
    lab, inside = team_lab
    mtu = inside.plan.fabric.pa_mtu
    sweep = ("--sweep", "--timeout", 0.2)
    for each in ping(lab, "host2", *sweep):
        assert (each["path_mtu"], each["largest_payload"]) == (mtu, mtu - 28)
    ends = [port_of(lab, "host2", nic) for nic in ("nic1", "nic2")]
    with contextlib.ExitStack() as stack:
        for end in ends:
            narrow = ("ip", "link", "set", "dev", end, "mtu")
            stack.callback(lab.cli.output, lab.name, "fabric", *narrow, mtu)
            lab.cli.output(lab.name, "fabric", *narrow, 1391 - TAG)
        for each in ping(lab, "host2", *sweep):
            assert (each["path_mtu"], each["largest_payload"]) == (1391, 1363)
    assert {each["path_mtu"] for each in ping(lab, "host2", *sweep)} == {mtu}


def test_nobodys_address_is_told_by_silence(team_lab: Found) -> None:
    lab, inside = team_lab
    own = addresses(lab, "host1")
    told = inside.ask("host1", "status")["provider_addresses"][0]
    network = ipaddress.ip_network(f"{told['address']}/{told['prefix_length']}", strict=False)
    nobodys = str(network.broadcast_address - 1)
    found = ping(lab, nobodys, "--count", 2, "--timeout", 0.3, code=1)
    assert {each["source"] for each in found} == {*own.values()}
    assert all(each["round_trips"] == [None, None] and each["avg"] is None for each in found)
    (swept,) = ping(lab, nobodys, "--from", own[5001], "--sweep", "--timeout", 0.1, code=1)
    assert (swept["path_mtu"], swept["largest_payload"]) == (None, None)


def test_what_can_not_be_pinged(team_lab: Found) -> None:
    lab, _ = team_lab
    for words, said in (
        (("host9", "--pa", "host2"), "no host 'host9': one of host1, host2"),
        (("host1", "--pa", "host1"), "does not ping itself"),
        (("host1", "--pa", "somewhere"), "neither an address"),
        (("host1", "--pa", "host2", "--member", "nic9"), "one of nic1, nic2"),
        (("host1", "--pa", "host2", "--from", "192.0.2.1"), "no provider address that host1 has in use"),
        (("host1", "--pa", "host2", "--size", 1473), "at most 1472"),
    ):
        assert said in lab.cli.refused(2, "ping", lab.name, *words)


# ---- test-vmnetworkadapter ----------------------------------------------------------------


def test_closed_guests_are_reached_and_hear_nothing(team_lab: Found, tmp_path: Path) -> None:
    lab, inside = team_lab
    with listening(lab, tmp_path, "blue1", "blue2") as heard, closed(inside, "blue1", "blue2"):
        ordinary = lab.cli.inside(lab.name, "blue1", "ping", "-c", 1, "-W", 1, "10.0.0.6")
        assert ordinary.returncode != 0
        for words in (V4, V6, (*V4, "--payload-size", 1400, "--sequence-number", 65535)):
            found = probed(lab, *BOTH, *words)
            assert (found["result"], found["stopped"]) == ("Success", None)
            assert 0 < found["round_trip"] < 1
    assert heard == {"blue1": [], "blue2": []}
    said = lab.cli.ok("test-vmnetworkadapter", lab.name, *BOTH, *V4)
    assert said.startswith("blue1 10.0.0.5 -> blue2 10.0.0.6, sequence number 100: Success, ")


def test_two_calls_the_receivers_first(two_hosts: Found) -> None:
    lab, inside = two_hosts
    words = ("test-vmnetworkadapter", lab.name, *V4, "-f", "json")
    with closed(inside, "blue1", "blue2"):
        waiting = lab.cli.start(*words, "--receiver", "blue2", "--as", "receiver", "--timeout", 20)
        with lab.cli.ended(waiting):
            sender = (*V4, "--sender", "blue1", "--as", "sender", "--timeout", 1)

            def succeeds() -> bool:
                done = lab.cli.run("test-vmnetworkadapter", lab.name, *sender, "-f", "json")
                return json.loads(done.stdout)["result"] == "Success"

            until(succeeds, "the sender's call")
            said, _ = waiting.communicate(timeout=20)
        assert waiting.returncode == 0
        told = json.loads(said)
        assert (told["result"], told["round_trip"], told["stopped"]) == ("Success", None, None)
        alone = probed(lab, *V4, "--receiver", "blue2", "--as", "receiver", "--timeout", 0.2, code=1)
        assert alone["stopped"]["reason"] == "nothing for this test has reached host2"


def test_a_missing_record_is_named(two_hosts: Found) -> None:
    lab, _ = two_hosts
    blue2 = ("--customer-address", "10.0.0.6", "--virtual-subnet-id", 5001)
    lab.cli.ok("policy", lab.name, "lookup-records", "remove", "--host", "host1", "--local", *blue2)
    try:
        found = probed(lab, *BOTH, *V4, code=1)
        where = {"message": "request", "hop": "host1", "stage": "wnv", "reason": "no-lookup-record"}
        assert (found["result"], found["round_trip"], found["stopped"]) == ("Failure", None, where)
        said = lab.cli.run("test-vmnetworkadapter", lab.name, *BOTH, *V4).stdout.decode()
        assert "Failure: the request stopped at host1, stage wnv: no-lookup-record" in said
        assert probed(lab, *BOTH, *V6)["result"] == "Success"
    finally:
        lab.cli.ok("vmm", lab.name, "resync")
    assert probed(lab, *BOTH, *V4)["result"] == "Success"


@pytest.mark.parametrize(
    ("way", "message", "hosts"),
    [("to-host", "request", ("host1", "host2")), ("from-host", "reply", ("host2", "host1"))],
)
def test_a_black_hole_is_named(two_hosts: Found, way: str, message: str, hosts: tuple[str, str]) -> None:
    lab, _ = two_hosts
    assert probed(lab, *BOTH, *V4)["result"] == "Success"
    lab.cli.ok("link", lab.name, "host2:nic1", "set", "black-hole=on", "--way", way)
    try:
        found = probed(lab, *BOTH, *V4, "--timeout", 0.5, code=1)
    finally:
        lab.cli.ok("link", lab.name, "host2:nic1", "clear")
    reason = f"it has left {hosts[0]} by nic1, and has not reached {hosts[1]}"
    assert found["stopped"] == {"message": message, "hop": "fabric", "stage": "", "reason": reason}
    assert probed(lab, *BOTH, *V4)["result"] == "Success"


def test_what_can_not_be_tested(two_hosts: Found) -> None:
    lab, _ = two_hosts
    verb = ("test-vmnetworkadapter", lab.name)
    for words, said in (
        ((*V4, "--sender", "blue1"), "Say --receiver VM"),
        ((*V4, "--receiver", "blue2", "--as", "sender"), "Say --sender VM"),
        ((*V4, "--sender", "blue9", "--receiver", "blue2"), "no such VM: one of blue1, blue2"),
        ((*BOTH, *V4[:3], "fd00::6"), "different families"),
        ((*BOTH, *V4, "--payload-size", 4), "--payload-size 4: from 8 to"),
        ((*BOTH, *V4, "--next-hop-mac", "x"), "is no MAC address"),
    ):
        assert said in lab.cli.refused(2, *verb, *words)
