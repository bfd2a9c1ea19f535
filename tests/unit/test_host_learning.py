"""Control learns: from what a VM sends to the record, the report and the events. The worker is a real one."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from support import dhcp
from support.frames import arp
from support.host import memory_host, plan
from support.learning import LearningHost
from support.switch import mac_of, pa, v4, v6
from testbed.host import learned, pursuit
from testbed.host.prober import ProbeTimers
from testbed.host.reporter import Outcome
from testbed.topology.plan import LookupRecord
from testbed.wnv.policy import Change

MAC = mac_of("blue1").hex(":")
NEW, NEW_V6 = "10.0.0.77", "fd00::77"
REPORT = {"mac": MAC, "ca": NEW, "vsid": 5001, "pa": pa(1, 5001), "how": "arp"}


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[LearningHost]:
    monkeypatch.setattr(pursuit, "_AGAIN", 0.05)
    with memory_host(monkeypatch) as host:
        host.configure(plan())
        host.space.settle()
        made = LearningHost(host)
        for name, guest in made.guests.items():
            guest.addresses = {v4(name), v6(name)}
        yield made
        made.close()


# ---- new addresses ------------------------------------------------------------------------


def test_an_announced_address_holds_here_at_once_and_is_reported(lab: LearningHost) -> None:
    lab.reporter.delay = 0.1
    lab.guests["blue1"].take(NEW)
    lab.until(lambda: lab.owner(NEW) == ("Dynamic", "blue1"))
    assert [*lab.reporter.reports] in ([], [REPORT])
    assert lab.told() == [("Added", NEW, "arp")]
    assert (5001, b"\n\0\0\x4d") in lab.host.worker.wnv.tables.records
    lab.rest()
    assert lab.reporter.reports == [REPORT]
    assert lab.owner(v4("blue1")) == ("Static", "blue1")  # it still answers for the old one


def test_in_ipv6(lab: LearningHost) -> None:
    lab.guests["blue1"].take(NEW_V6)
    lab.until(lambda: lab.owner(NEW_V6))
    lab.rest()
    assert lab.reporter.reports == [{**REPORT, "ca": NEW_V6, "how": "nd"}]
    assert lab.owner(v6("blue1")) == ("Static", "blue1")
    assert set(lab.guests["blue1"].asked) == {v6("blue1")}


def test_a_lease_of_a_server_on_the_same_host(lab: LearningHost) -> None:
    client, server = lab.guests["blue1"], lab.guests["blue4"]
    client.send(dhcp.asked(client.mac, b"\1\2\3\4"))
    lab.host.seen_from_vms()
    message = dhcp.v4(dhcp.ACK, client.mac, b"\1\2\3\4", NEW)
    server.send(dhcp.told(message, (server.mac, v4("blue4")), client.mac, v4("blue1")))
    lab.until(lambda: lab.owner(NEW))
    assert lab.told() == [("Added", NEW, "dhcp")]


def test_a_probe_claims_nothing(lab: LearningHost) -> None:
    lab.guests["blue1"].send(arp(1, (mac_of("blue1"), "0.0.0.0"), (bytes(6), NEW), b"\xff" * 6))
    lab.rest()
    assert lab.owner(NEW) is None
    assert lab.reporter.reports == []


def test_an_address_of_no_prefix_is_refused_without_a_report(lab: LearningHost) -> None:
    lab.guests["blue1"].take("172.16.0.1")
    lab.until(lambda: lab.told("address-refused") == [("172.16.0.1",)])
    assert lab.reporter.reports == []


def test_another_vms_learner_is_not_confused_by_a_port_that_left(lab: LearningHost) -> None:
    lab.learner.detached("blue1")
    lab.guests["blue1"].take(NEW)
    lab.rest()
    assert lab.owner(NEW) is None


# ---- the old address ----------------------------------------------------------------------


def test_an_address_that_took_the_place_of_the_pools_is_the_only_one(lab: LearningHost) -> None:
    guest = lab.guests["blue1"]
    guest.addresses.discard(v4("blue1"))
    guest.take(NEW)
    lab.until(lambda: lab.owner(v4("blue1")) is None)
    lab.rest()
    assert lab.reporter.reports == [REPORT, {**REPORT, "replaces": v4("blue1")}]
    assert lab.told() == [("Added", NEW, "arp"), ("Deleted", v4("blue1"), "arp")]
    assert lab.owner(v6("blue1")) == ("Static", "blue1")  # of the other family: not even asked
    assert guest.asked.count(v4("blue1")) == 3


def test_when_the_limit_is_reached_it_is_reported_once_more_as_a_replacement(lab: LearningHost) -> None:
    lab.guests["blue1"].addresses.discard(v4("blue1"))
    lab.reporter.answers = [Outcome("refused", "the limit is 0", 409)]
    lab.guests["blue1"].take(NEW)
    lab.until(lambda: len(lab.reporter.reports) == 2)
    lab.rest()
    assert lab.reporter.reports == [REPORT, {**REPORT, "replaces": v4("blue1")}]
    assert lab.owner(NEW) == ("Dynamic", "blue1")
    assert lab.owner(v4("blue1")) is None


def test_an_old_address_that_has_to_stay_stays(lab: LearningHost) -> None:
    lab.guests["blue1"].addresses.discard(v4("blue1"))
    lab.reporter.answers = [Outcome("added"), Outcome("refused", "the next hop of a route", 409)]
    lab.guests["blue1"].take(NEW)
    lab.until(lambda: len(lab.reporter.reports) == 2)
    lab.rest()
    assert lab.owner(NEW) == ("Dynamic", "blue1")
    assert lab.owner(v4("blue1")) == ("Static", "blue1")


# ---- what the VMM says --------------------------------------------------------------------


def test_a_refusal_takes_everything_back(lab: LearningHost) -> None:
    lab.guests["blue1"].addresses.discard(v4("blue1"))
    lab.reporter.otherwise = Outcome("refused", "the limit is 0", 409)
    lab.guests["blue1"].take(NEW)
    lab.until(lambda: lab.told("address-refused") == [(NEW,)])
    lab.rest()
    assert lab.owner(NEW) is None
    assert lab.owner(v4("blue1")) == ("Static", "blue1")
    assert lab.policy.assumed == {}


def test_after_a_refusal_nothing_is_assumed_for_a_while(
    lab: LearningHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(learned, "monotonic", lambda: now[0])
    lab.reporter.otherwise = Outcome("refused", "no", 422)
    lab.guests["blue1"].take(NEW)
    lab.until(lambda: lab.told("address-refused"))
    lab.reporter.answers, lab.reporter.delay = [Outcome("away")], 0.1
    lab.guests["blue1"].take("10.0.0.78")
    lab.until(lambda: len(lab.reporter.reports) == 2)
    assert lab.owner("10.0.0.78") is None
    now[0] += 1.0
    lab.guests["blue1"].take("10.0.0.79")
    lab.until(lambda: lab.owner("10.0.0.79"))


def test_while_the_vmm_is_away_the_address_holds_and_is_reported_again(lab: LearningHost) -> None:
    lab.guests["blue1"].addresses.discard(v4("blue1"))
    lab.reporter.otherwise = Outcome("away")
    lab.guests["blue1"].take(NEW)
    lab.until(lambda: lab.owner(v4("blue1")) is None)
    lab.rest()
    assert lab.owner(NEW) == ("Dynamic", "blue1")
    lab.reporter.otherwise = Outcome("added")
    lab.reporter.reports.clear()
    lab.learner.resynced()
    lab.rest()
    assert lab.reporter.reports == [REPORT, {**REPORT, "replaces": v4("blue1")}]
    lab.reporter.reports.clear()
    lab.learner.resynced()
    lab.rest()
    assert lab.reporter.reports == []


def test_what_the_vmms_whole_policy_has_ended_is_assumed_anew(lab: LearningHost) -> None:
    lab.reporter.otherwise = Outcome("away")
    lab.guests["blue1"].take(NEW)
    lab.until(lambda: lab.owner(NEW))
    lab.rest()
    lab.policy.retract([*lab.policy.assumed])
    lab.reporter.otherwise = Outcome("added")
    lab.learner.resynced()
    lab.rest()
    assert lab.owner(NEW) == ("Dynamic", "blue1")


def test_before_the_host_has_a_pa_nothing_can_be_reported(lab: LearningHost) -> None:
    lab.policy.pa = None
    lab.guests["blue1"].take(NEW)
    lab.until(lambda: lab.learner._retry)
    assert lab.reporter.reports == []
    lab.policy.pa = pa(1, 5001)
    lab.learner.resynced()
    lab.until(lambda: lab.reporter.reports == [REPORT])


def test_an_unanswered_report_is_made_again_by_itself(
    lab: LearningHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("testbed.host.learning._RETRY", 0.05)
    lab.reporter.answers = [Outcome("away")]
    lab.guests["blue1"].take(NEW)
    lab.until(lambda: len(lab.reporter.reports) == 2)


def test_a_vm_that_leaves_takes_its_open_claims_with_it(lab: LearningHost) -> None:
    lab.reporter.otherwise = Outcome("away")
    lab.guests["blue1"].take(NEW)
    lab.until(lambda: lab.owner(NEW))
    lab.learner.detached("blue1")
    assert lab.owner(NEW) is None
    lab.reporter.reports.clear()
    lab.learner.resynced()
    lab.rest()
    assert lab.reporter.reports == []


# ---- conflicts ----------------------------------------------------------------------------


def test_an_address_of_a_static_record_is_a_conflict(lab: LearningHost) -> None:
    lab.reporter.otherwise = Outcome("refused", "it is blue2's", 409)
    lab.guests["blue1"].take(v4("blue2"))
    lab.until(lambda: lab.told("address-conflict") == [(v4("blue2"),)])
    assert lab.owner(v4("blue2")) == ("Static", "blue2")


def held_by(name: str) -> LookupRecord:
    host = 1 if name == "blue4" else 2
    return LookupRecord(NEW, 5001, mac_of(name).hex(":"), pa(host, 5001), name, type="Dynamic")


def test_a_contested_address_is_reported_again_until_it_is_the_claimants(lab: LearningHost) -> None:
    lab.policy.say([Change("lookup-records", None, held_by("blue2"))])
    lab.reporter.answers = [Outcome("contested")] * 3
    lab.guests["blue1"].take(NEW)
    lab.until(lambda: len(lab.reporter.reports) == 2)
    assert lab.owner(NEW) == ("Dynamic", "blue2")
    mine = msgspec.structs.replace(held_by("blue4"), mac_address=MAC, vm_name="blue1")
    lab.policy.say([Change("lookup-records", held_by("blue2"), None), Change("lookup-records", None, mine)])
    lab.until(lambda: lab.told() == [("Added", NEW, "arp")])
    lab.rest()


def test_one_that_is_answered_for_stays_the_holders(lab: LearningHost) -> None:
    lab.policy.say([Change("lookup-records", None, held_by("blue2"))])
    lab.reporter.answers = [Outcome("contested"), Outcome("refused", "it answers", 409)]
    lab.guests["blue1"].take(NEW)
    lab.until(lambda: lab.told("address-conflict") == [(NEW,)])
    assert lab.owner(NEW) == ("Dynamic", "blue2")


def test_a_contest_that_nobody_decides_ends(lab: LearningHost) -> None:
    lab.policy.say([Change("lookup-records", None, held_by("blue2"))])
    lab.reporter.otherwise = Outcome("contested")
    lab.guests["blue1"].take(NEW)
    lab.until(lambda: lab.told("address-conflict") == [(NEW,)])
    assert len(lab.reporter.reports) == 6


def test_a_contest_that_this_host_did_not_foresee_takes_the_assumption_back(lab: LearningHost) -> None:
    lab.reporter.otherwise = Outcome("contested")
    lab.guests["blue1"].take(NEW)
    lab.until(lambda: lab.owner(NEW))
    lab.until(lambda: lab.owner(NEW) is None)
    lab.rest()


@pytest.mark.parametrize("answers", [True, False])
def test_the_vmms_question_is_put_to_the_vm(lab: LearningHost, answers: bool) -> None:
    lab.guests["blue1"].refuses = not answers
    lab.learner.answer_probe(5001, MAC, v4("blue1"))
    lab.until(lambda: lab.reporter.probes == [(5001, MAC, v4("blue1"), answers)])
    assert lab.guests["blue1"].asked


def test_a_vm_that_is_not_here_does_not_answer(lab: LearningHost) -> None:
    lab.learner.answer_probe(5001, mac_of("blue2").hex(":"), v4("blue2"))
    lab.until(lambda: [each[3] for each in lab.reporter.probes] == [False])


def test_with_long_timers_who_is_there_is_found_at_once(lab: LearningHost) -> None:
    lab.learner._prober.timers = ProbeTimers(3, 60.0)
    assert lab.loop.run_until_complete(lab.learner.probe(5001, MAC, v4("blue1")))


# ---- ageing -------------------------------------------------------------------------------


def _ageing(lab: LearningHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.host.learning.AGEING", {"fast": 0.05, "rfc": 0.06})
    lab.policy.say([Change("lookup-records", None, held_by("blue4"))])
    lab.learner.configure("fast", learning=True)


def test_a_learned_address_that_nobody_answers_for_is_withdrawn(
    lab: LearningHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = lab.guests["blue4"]
    guest.addresses.add(NEW)
    _ageing(lab, monkeypatch)
    lab.until(lambda: guest.asked.count(NEW) >= 2)
    assert lab.owner(NEW) == ("Dynamic", "blue4")
    guest.addresses.discard(NEW)
    lab.until(lambda: lab.reporter.withdrawn == [(5001, guest.mac.hex(":"), NEW)])
    assert lab.owner(NEW) is None
    assert lab.told() == [("Deleted", NEW, "aged")]
    assert v4("blue4") not in guest.asked  # Static ones don't age


def test_a_withdrawal_is_made_again_when_the_vmm_is_back(
    lab: LearningHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.reporter.ageing = Outcome("away")
    _ageing(lab, monkeypatch)
    lab.until(lambda: lab.reporter.withdrawn)
    lab.reporter.ageing = Outcome("deleted")
    lab.learner.resynced()
    lab.until(lambda: len(lab.reporter.withdrawn) == 2)
    lab.until(lambda: not lab.learner._withdrawn)


def test_a_withdrawal_that_is_refused_is_taken_back(
    lab: LearningHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.reporter.ageing = Outcome("refused", "it is Static", 409)
    _ageing(lab, monkeypatch)
    lab.until(lambda: lab.reporter.withdrawn)
    lab.until(lambda: lab.owner(NEW))


def test_nothing_ages_while_learning_is_off(lab: LearningHost, monkeypatch: pytest.MonkeyPatch) -> None:
    _ageing(lab, monkeypatch)
    lab.learner.configure("fast", learning=False)
    lab.loop.run_until_complete(lab.learner.probe(5001, MAC, v4("blue1")))
    assert lab.guests["blue4"].asked == []


# ---- without a VMM ------------------------------------------------------------------------


def test_without_a_vmm_learning_stays_on_this_host(lab: LearningHost) -> None:
    lab.learner.reporter = None
    lab.guests["blue1"].addresses.discard(v4("blue1"))
    lab.guests["blue1"].take(NEW)
    lab.until(lambda: lab.owner(v4("blue1")) is None)
    assert lab.owner(NEW) == ("Dynamic", "blue1")


@pytest.mark.parametrize("answers", [True, False])
def test_without_a_vmm_the_holder_on_this_host_is_asked_by_itself(lab: LearningHost, answers: bool) -> None:
    lab.learner.reporter = None
    lab.policy.say([Change("lookup-records", None, held_by("blue4"))])
    if answers:
        lab.guests["blue4"].addresses.add(NEW)
    lab.guests["blue1"].take(NEW)
    if answers:
        lab.until(lambda: lab.told("address-conflict") == [(NEW,)])
    lab.until(lambda: lab.owner(NEW) == ("Dynamic", "blue4" if answers else "blue1"))
    lab.rest()


def test_without_a_vmm_others_are_right(lab: LearningHost) -> None:
    lab.learner.reporter = None
    lab.policy.say([Change("lookup-records", None, held_by("blue2"))])
    lab.guests["blue1"].take(NEW)
    lab.until(lambda: lab.told("address-conflict") == [(NEW,)])
    assert lab.owner(NEW) == ("Dynamic", "blue2")
