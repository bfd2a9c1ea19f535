"""Who does what in a team: active members, homes, who speaks for whom."""

from __future__ import annotations

import itertools

import pytest

from support.frames import ip, mac
from testbed.switch.roles import Roles
from testbed.topology.plan import TeamPlan
from testbed.topology.schema import LoadBalancing, TeamingMode

MACS = {f"nic{n}": mac(f"00:15:5d:00:00:{n:02x}") for n in (1, 2, 3)}
PAS = [ip(f"192.168.0.{n}") for n in range(1, 10)]
HASHES: tuple[LoadBalancing, ...] = ("TransportPorts", "IPAddresses", "MacAddresses")
PARTNERED: tuple[TeamingMode, ...] = ("Static", "Lacp")


def roles(up: str = "123", **plan: object) -> Roles:
    return Roles(TeamPlan(**{"primary": "nic1", **plan}), MACS, [f"nic{n}" for n in up])  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", ["Dynamic", "HyperVPort"])
def test_addresses_have_homes_by_turns(algorithm: LoadBalancing) -> None:
    found = roles(algorithm=algorithm)
    assert [found.home(pa) for pa in PAS[:6]] == ["nic2", "nic3", "nic1"] * 2
    assert {found.home_mac(pa) for pa in PAS} == {*MACS.values()}
    assert [roles(up, algorithm=algorithm).home(PAS[0]) for up in ("", "1", "3")] == ["nic2"] * 3


@pytest.mark.parametrize("algorithm", HASHES)
def test_under_an_address_hash_everything_is_at_home_at_the_primary(algorithm: LoadBalancing) -> None:
    assert {roles(algorithm=algorithm, primary="nic2").home(pa) for pa in PAS} == {"nic2"}


@pytest.mark.parametrize("mode", PARTNERED)
def test_with_a_partner_all_macs_are_at_all_members(mode: TeamingMode) -> None:
    found = roles(mode=mode)
    assert {found.home(pa) for pa in PAS} == {"nic1"}
    assert all(found.takes(name, own) for name, own in itertools.product(MACS, MACS.values()))
    assert all(found.hears_groups(name) for name in MACS)


def test_without_one_a_mac_is_at_one_member_whichever_work() -> None:
    for size in range(4):
        for up in itertools.combinations("123", size):
            found = roles("".join(up))
            for own in MACS.values():
                takers = [name for name in MACS if found.takes(name, own)]
                assert len(takers) == bool(up)
                assert not takers or takers[0] in found.active
            assert sum(found.hears_groups(name) for name in MACS) == bool(up)


def test_a_member_that_works_speaks_for_itself_and_another_for_one_that_fails() -> None:
    found = roles("23")
    assert found.active == ("nic2", "nic3")
    assert [found.carrier(name) for name in MACS] == ["nic2", "nic2", "nic3"]
    assert found.takes("nic2", MACS["nic1"])
    assert not found.takes("nic1", MACS["nic1"])
    assert roles("").carrier("nic1") is None


def test_the_standby_member_waits_until_no_other_works() -> None:
    found = roles(standby="nic2")
    assert found.active == ("nic1", "nic3")
    assert {found.home(pa) for pa in PAS} == {"nic1", "nic3"}
    assert roles("23", standby="nic2").active == ("nic3",)
    last = roles("2", standby="nic2")
    assert last.active == ("nic2",)
    assert {last.carrier(name) for name in MACS} == {"nic2"}


def test_the_primary_comes_first() -> None:
    assert roles(primary="nic3").active == ("nic3", "nic1", "nic2")
    assert roles("12", primary="nic3").active == ("nic1", "nic2")


@pytest.mark.parametrize(
    ("plan", "queues"),
    [
        ({}, "Sum-of-Queues"),
        ({"algorithm": "HyperVPort"}, "Sum-of-Queues"),
        *(({"algorithm": algorithm}, "Min-Queues") for algorithm in HASHES),
        *(({"mode": mode, "algorithm": "Dynamic"}, "Min-Queues") for mode in PARTNERED),
        *(({"mode": mode, "algorithm": "HyperVPort"}, "Min-Queues") for mode in PARTNERED),
    ],
)
def test_how_queues_add_up(plan: dict[str, object], queues: str) -> None:
    assert roles(**plan).queue_mode == queues


def test_no_nic_is_no_home() -> None:
    none = Roles(TeamPlan(""), {}, ())
    assert (none.home(PAS[0]), none.home_mac(PAS[0]), none.carrier(""), none.active) == ("", b"", None, ())
    assert not none.hears_groups("nic1")
