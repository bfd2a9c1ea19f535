"""Whether a member of a team works, by its carrier, its answers and the administrator."""

from __future__ import annotations

import pytest

from testbed.host.team.health import LOST_IN_SILENCE, LOST_IN_TRAFFIC, TIMERS, Health

HOLD = TIMERS["fast"].hold


@pytest.fixture
def member() -> Health:
    return Health(TIMERS["fast"])


def lose(member: Health, count: int) -> None:
    for _ in range(count):
        member.unanswered()


def test_a_member_works_at_first_and_without_carrier_not(member: Health) -> None:
    assert member.look(0.0)
    member.set_carrier(False)
    assert not member.look(1.0)
    assert member.fault() == "no-carrier"


def test_it_is_used_again_only_after_it_was_good_for_a_while(member: Health) -> None:
    member.set_carrier(False)
    member.look(1.0)
    member.set_carrier(True)
    assert not member.look(1.0 + HOLD * 0.9)
    assert member.look(1.0 + HOLD)


def test_flapping_makes_the_wait_longer_up_to_a_limit(member: Health) -> None:
    now, waits = 0.0, []
    for _ in range(7):
        member.set_carrier(False)
        member.look(now)
        member.set_carrier(True)
        waits.append(member.hold())
        now += 0.01
        member.look(now)
        assert not member.usable
        now += member.hold() + 0.001 if len(waits) < 3 else 0.0
        member.look(now)
    assert waits[:4] == [HOLD, 2 * HOLD, 4 * HOLD, 4 * HOLD]  # one that is out already fails no more
    quiet = now + 100.0
    member.look(quiet)
    assert member.usable
    member.set_carrier(False)
    member.look(quiet + 1)
    assert member.hold() == HOLD  # what was long ago is forgotten


def test_silence_counts_only_where_there_was_an_answer(member: Health) -> None:
    lose(member, 100)
    assert member.look(1.0)
    member.answered(0.001)
    lose(member, LOST_IN_SILENCE)
    assert member.suspicious()
    assert member.look(2.0)  # frames may come in still
    member.silent()
    assert not member.look(2.1)
    assert member.fault() == "no-answer"
    member.answered(0.001)
    assert not member.fault()


def test_in_traffic_it_takes_more_lost_answers(member: Health) -> None:
    member.answered(0.001)
    lose(member, LOST_IN_TRAFFIC - 1)
    assert member.look(1.0)
    lose(member, 1)
    assert not member.look(1.1)
    assert not member.suspicious()


def test_a_carrier_that_comes_back_has_to_answer_first(member: Health) -> None:
    member.answered(0.001)
    member.set_carrier(False)
    member.look(1.0)
    member.set_carrier(True)
    assert member.fault() == "no-answer"
    assert not member.look(1.0 + 2 * HOLD)
    member.answered(0.001)
    member.look(3.0)
    assert member.look(3.0 + HOLD)


def test_an_order_holds_until_it_is_taken_back(member: Health) -> None:
    member.administrative = True
    assert not member.look(1.0)
    assert not member.look(100.0)
    assert member.fault() == "administrative"
    member.administrative = False
    assert member.look(100.0 + HOLD)


def test_without_a_partner_it_is_no_use(member: Health) -> None:
    member.partnered = False
    assert not member.look(1.0)
    assert (member.fault(), member.fault_but_partner()) == ("no-partner", False)
    member.set_carrier(False)
    assert member.fault_but_partner()


def test_round_trips_are_smoothed_and_begin_anew_after_a_loss(member: Health) -> None:
    member.answered(0.010)
    assert member.round_trip == pytest.approx(0.010)
    member.answered(0.020)
    assert 0.010 < member.round_trip < 0.020
    member.unanswered()
    member.answered(0.001)
    assert member.round_trip == pytest.approx(0.001)
