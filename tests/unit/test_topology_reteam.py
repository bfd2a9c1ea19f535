"""Another team for hosts of a Plan is what a topology file with that team would give."""

from __future__ import annotations

import msgspec
import pytest

from support.cli import TOPOLOGIES
from testbed.errors import BadInput
from testbed.topology import plan_from_file
from testbed.topology.plan import Plan
from testbed.topology.reteam import name_of, parse, with_team

HOSTS = ("host1", "host2")


def planned(name: str = "team", **settings: object) -> Plan:
    return plan_from_file(TOPOLOGIES / f"{name}.yaml", {key: str(value) for key, value in settings.items()})


PLAN = planned(nics=3)
MODES = ("SwitchIndependent", "Static", "Lacp")


@pytest.mark.parametrize("before", MODES)
@pytest.mark.parametrize("mode", MODES)
def test_it_is_what_a_file_with_that_team_gives(before: str, mode: str) -> None:
    wanted = planned(nics=3, mode=mode, algorithm="TransportPorts")
    assert with_team(planned(nics=3, mode=before), HOSTS, f"{mode}/TransportPorts") == wanted
    assert [name_of(host) for host in wanted.hosts] == [f"{mode}/TransportPorts"] * 2


@pytest.mark.parametrize("before", MODES)
def test_none_is_what_a_file_with_one_nic_gives(before: str) -> None:
    found, wanted = with_team(planned(nics=3, mode=before), HOSTS, "none"), planned(nics=1)
    assert found.hosts == wanted.hosts
    assert [cable.nic for cable in found.fabric.cables] == ["nic1", "nic1"]
    assert found.fabric.aggregates == ()


def test_only_the_hosts_that_are_named_and_only_those_of_several_nics() -> None:
    changed = with_team(PLAN, {"host2"}, "Lacp/Dynamic")
    assert changed.hosts[0] == PLAN.hosts[0]
    assert [each.host for each in changed.fabric.aggregates] == ["host2"]
    both = with_team(changed, {"host1"}, "Static/Dynamic")
    assert [(each.host, each.mode) for each in both.fabric.aggregates] == [
        ("host1", "Static"),
        ("host2", "Lacp"),
    ]
    assert len({each.interface for each in both.fabric.aggregates}) == 2
    alone = planned("2host")
    assert with_team(alone, HOSTS, "Lacp/Dynamic") == alone


def test_without_a_team_the_nic_that_the_filter_below_the_switch_is_on_stays() -> None:
    first = PLAN.hosts[0]
    nics = tuple(msgspec.structs.replace(nic, wnv_binding=nic.name == "nic2") for nic in first.nics)
    plan = msgspec.structs.replace(PLAN, hosts=(msgspec.structs.replace(first, nics=nics), PLAN.hosts[1]))
    (host, _) = with_team(plan, {"host1"}, "none").hosts
    assert ([nic.name for nic in host.nics], host.team.primary) == (["nic2"], "nic2")


def test_what_a_host_can_not_have() -> None:
    with pytest.raises(BadInput, match="host1 can't have Lacp: it is with one switch, not with tor1, tor2"):
        with_team(planned("4host"), {"host1"}, "Lacp/Dynamic")
    with pytest.raises(BadInput, match="host1 can't have Static: it has no standby members, and nic2 is one"):
        with_team(planned(standby="nic2"), {"host1"}, "Static/Dynamic")


@pytest.mark.parametrize("text", ["", "Lacp", "lacp/Dynamic", "Lacp/Dynamic/x", "None"])
def test_a_word_that_is_no_team(text: str) -> None:
    with pytest.raises(BadInput, match=f"team '{text}': write none, or MODE/ALGORITHM"):
        parse(text)
