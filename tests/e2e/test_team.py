"""NIC teams in whole labs: all members carry, some fail and come back, the switch may be a partner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import teams
from support.cli import TOPOLOGIES, Cli
from support.vmm_lab import opened
from support.waiting import until
from testbed.lab.lab import Lab
from testbed.testing import streams

pytestmark = pytest.mark.e2e
TEAM = TOPOLOGIES / "team.yaml"
FOUR_HOSTS = TOPOLOGIES / "4host.yaml"
ALLOWED = ("tx-refused", "pa-unreachable", "rx-overrun")  # while a member fails, and at full speed
MODES = ("SwitchIndependent", "Static", "Lacp")


@pytest.fixture(scope="module")
def team_lab(module_lab: Callable[..., Any]) -> Iterator[tuple[Cli, str, Lab]]:
    """Two hosts with teams of two NICs, which tests leave as they found them."""
    up = module_lab(TEAM, may_drop=ALLOWED)
    with pytest.MonkeyPatch.context() as patch, up as found, opened(found, patch) as inside:
        for name in inside.node_names():
            inside.netns(name)  # a handle that a test opens would count as left behind
        yield found.cli, found.name, inside


def used(lab: Lab, port: int) -> set[str]:
    """The members of host1's team that carry 16 flows of some time."""
    before = teams.sent_by(lab)
    teams.rate(lab, list(range(20000, 20016)), port, 1.0)
    after = teams.sent_by(lab)
    return {name for name in after if after[name] - before[name] > 1_000_000}


@pytest.mark.parametrize(
    ("engine", "mode"),
    [
        pytest.param(engine, mode, marks=pytest.mark.long if engine == "docker" and mode != "Lacp" else ())
        for engine in ("namespaces", "docker")
        for mode in MODES
    ],
    indirect=["engine"],
    scope="session",
)
def test_a_team_carries_with_all_members_and_without_one(
    each_cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    options = ("--set", f"mode={mode}", "--set", "nics=3")
    with running(each_cli, TEAM, *options, may_drop=ALLOWED) as lab, opened(lab, monkeypatch) as inside:
        assert each_cli.json("check", lab.name)["ok"]
        told = each_cli.json("team", lab.name, "host1")
        assert (told["mode"], told["algorithm"]) == (mode, "Dynamic")
        assert [each["state"] for each in told["members"]] == ["Active"] * 3
        until(lambda: all(each["round_trip"] for each in teams.members(inside).values()), "no loopback")
        assert used(inside, 7400) == {"nic1", "nic2", "nic3"}
        each_cli.ok("team", lab.name, "host1", "fail", "nic1")
        failed = teams.members(inside)["nic1"]
        assert (failed["state"], failed["fault"]) == ("Failed", "administrative")
        assert used(inside, 7401) == {"nic2", "nic3"}
        assert each_cli.json("check", lab.name)["ok"]
        each_cli.ok("team", lab.name, "host1", "restore", "nic1")
        teams.wait_for(inside, "Active")
        assert used(inside, 7402) == {"nic1", "nic2", "nic3"}
        events = each_cli.json("events", lab.name, "host1", "--kind", "team-member")["events"]
        assert [(each["object"], each["fields"]["state"]) for each in events][-2:] == [
            ("nic1", "Failed"),
            ("nic1", "Active"),
        ]


@pytest.mark.parametrize("member", ["nic1", "nic2"])
@pytest.mark.parametrize(
    ("how", "limit"), [("carrier", 50.0), ("administrative", 50.0), ("black-hole", 1000.0)]
)
def test_the_network_goes_on_when_a_member_fails(
    team_lab: tuple[Cli, str, Lab], how: str, limit: int, member: str
) -> None:
    """Milliseconds; the time for which the probes were held up is not the network's."""
    _, _, inside = team_lab
    teams.wait_for(inside, "Active", seconds=30.0)
    found = teams.outage(inside, how, member)
    assert found.longest - found.held_up <= limit
    teams.wait_for(inside, "Active", seconds=30.0)


@pytest.mark.parametrize("way", ["to-host", "from-host"])
def test_a_black_hole_of_one_way_is_found_as_well(team_lab: tuple[Cli, str, Lab], way: str) -> None:
    _, _, inside = team_lab
    teams.wait_for(inside, "Active", seconds=30.0)
    with teams.failing(inside, way, "nic1"):
        teams.wait_for(inside, "Failed", "nic1", seconds=3.0)
        assert teams.members(inside)["nic1"]["fault"] == "no-answer"
        assert teams.members(inside)["nic2"]["speaks_for"] == ["nic1", "nic2"]
    teams.wait_for(inside, "Active", seconds=30.0)


def test_a_stream_survives_each_member(team_lab: tuple[Cli, str, Lab]) -> None:
    """A file arrives whole while one member after the other fails."""
    _, _, inside = team_lab
    ends = inside.netns("blue1"), inside.netns("blue2")
    data = bytes(range(256)) * 40_000
    for port, member in enumerate(("nic1", "nic2"), start=7410):
        teams.wait_for(inside, "Active", seconds=30.0)
        with teams.failing(inside, "carrier", member):
            assert streams.copy(*ends, teams.BLUE2, data, port) == data


def test_what_can_not_be_asked_of_a_team(team_lab: tuple[Cli, str, Lab]) -> None:
    cli, name, _ = team_lab
    for words, said in (
        (["host1", "fail"], "take the name of a member"),
        (["host1", "fail", "nic9"], "no member 'nic9': one of nic1, nic2"),
        (["host9"], "no host 'host9': one of host1, host2"),
        (["host1", "show", "nic1"], "take the name of a member"),
    ):
        assert said in cli.refused(2, "team", name, *words)


def test_flapping_keeps_a_member_out(team_lab: tuple[Cli, str, Lab]) -> None:
    cli, name, inside = team_lab
    teams.wait_for(inside, "Active", seconds=30.0)
    for _ in range(4):
        cli.ok("link", name, "host1:nic1", "down")
        cli.ok("link", name, "host1:nic1", "up")
    assert teams.members(inside)["nic1"]["fault"] in ("holding", "no-answer")
    assert cli.json("check", name)["ok"]
    teams.wait_for(inside, "Active", seconds=30.0)


def test_both_cables_of_the_default_topology_carry(
    cli: Cli, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent by both, and received by both: the hosts' addresses are at home at different members."""
    with running(cli, FOUR_HOSTS, may_drop=ALLOWED) as lab, opened(lab, monkeypatch) as inside:
        for vm in ("blue1", "red1"):
            there = inside.netns(vm), inside.netns(vm.replace("1", "2"))
            assert streams.run(*there, "10.0.0.6", list(range(20000, 20008)), port=7420, size=2_000_000)
        for host, keys in (("host1", ("tx_bytes", "flows")), ("host2", ("rx_bytes",))):
            told = teams.members(inside, host)
            for key in keys:
                assert all(each[key] for each in told.values()), (host, key)
        received = [each["rx_bytes"] for each in teams.members(inside, "host2").values()]
        assert min(received) > 1_000_000


def test_static_ports_that_end_on_two_switches_are_refused(cli: Cli, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    team, whole = "team: {algorithm:", FOUR_HOSTS.read_text()
    assert team in whole
    bad.write_text(whole.replace(team, "team: {mode: Lacp, algorithm:"))
    assert "Lacp is with one switch, not with tor1, tor2" in cli.refused(2, "validate", bad)
