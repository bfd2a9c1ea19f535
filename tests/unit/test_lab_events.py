"""testbed.lab.events: one order of time over all hosts; what is wanted; what is lost; who is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from support.event_hosts import EventHost
from support.waiting import until
from testbed.cli.events import moment
from testbed.errors import BadInput
from testbed.lab import event_text
from testbed.lab.event_sources import HostSource, LabEvent, number_events
from testbed.lab.events import Timeline, Wanted


@contextmanager
def timeline(*hosts: EventHost, wanted: Wanted = Wanted()) -> Iterator[Timeline]:  # noqa: B008
    line = Timeline(wanted)
    try:
        for host in hosts:
            line.join(HostSource(host.name, host.path, line.notify, wanted.since))
        yield line
    finally:
        line.close()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[EventHost, EventHost]]:
    with EventHost(tmp_path, "host1") as one, EventHost(tmp_path, "host2") as two:
        yield one, two


def ids(events: list[LabEvent]) -> list[str]:
    return [event.id for event in events]


def rounds(line: Timeline, wanted: Callable[[list[LabEvent]], bool]) -> list[LabEvent]:
    """What rounds bring, until it is enough."""
    found: list[LabEvent] = []

    def enough() -> bool:
        found.extend(line.round())
        return wanted(found)

    until(enough, f"not what was wanted: {found}")
    return found


def test_the_order_is_that_of_time_over_all_hosts(hosts: tuple[EventHost, EventHost]) -> None:
    one, two = hosts
    for number in range(6):
        hosts[number % 2].note(100.0 + number)
    with timeline(one, two) as line:
        assert ids(line.round()) == ["host1/1", "host2/1", "host1/2", "host2/2", "host1/3", "host2/3"]
        assert line.round() == []
        two.note(200.0)
        one.note(199.0)
        assert ids(line.round()) == ["host1/4", "host2/4"]


def test_an_event_waits_until_all_have_told_what_came_before_it(
    hosts: tuple[EventHost, EventHost],
) -> None:
    one, two = hosts
    with timeline(one, two) as line:
        line.round()
        later = time.time() + 0.3
        one.note(later)  # ahead of the others, as if they had been asked before it
        assert line.round() == []
        two.note(later - 0.1)
        assert ids(rounds(line, lambda found: len(found) == 2)) == ["host2/1", "host1/1"]


def test_only_what_is_wanted(hosts: tuple[EventHost, EventHost]) -> None:
    one, two = hosts
    one.note(1.0, "link")
    one.note(2.0, "policy-change")
    two.note(3.0, "policy-mismatch")
    two.note(4.0, "vm", host="host1")
    for wanted, expected in (
        (Wanted(kinds=("link", "vm")), ["host1/1", "host2/2"]),
        (Wanted(kinds=("policy-*",)), ["host1/2", "host2/1"]),
        (Wanted(hosts=("host1",)), ["host1/1", "host1/2", "host2/2"]),  # of it, or about it
        (Wanted(hosts=("host2",)), ["host2/1", "host2/2"]),
        (Wanted(since=2.0), ["host1/2", "host2/1", "host2/2"]),
        (Wanted(kinds=("policy-*",), hosts=("host1",), since=1.5), ["host1/2"]),
    ):
        with timeline(one, two, wanted=wanted) as line:
            assert ids(line.round()) == expected, wanted


def test_what_is_lost_is_told_with_its_number(tmp_path: Path) -> None:
    with EventHost(tmp_path, "host1", kept=3) as host, timeline(host) as line:
        for number in range(5):
            host.note(float(number))
        found = [*line.round(), *line.rest()]
        assert ids(found) == ["host1/3", "host1/4", "host1/5", "notice/1"]
        assert (found[-1].kind, found[-1].object, found[-1].fields) == ("events-lost", "host1", {"count": 2})
        host.note(6.0, lost=7)
        assert [each.fields.get("count") for each in [*line.round(), *line.rest()]] == [None, 7]
        assert line.lost == 9


def test_what_was_lost_before_the_time_that_is_wanted_concerns_nobody(tmp_path: Path) -> None:
    with EventHost(tmp_path, "host1", kept=3) as host:
        for number in range(5):
            host.note(float(number))
        for since, lost in ((2.5, 0), (1.5, 2)):
            with timeline(host, wanted=Wanted(since=since)) as line:
                line.round()
                assert line.lost == lost, since


def test_a_host_that_ends_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    with EventHost(tmp_path, "host1") as one, EventHost(tmp_path, "host2") as two, timeline(one, two) as line:
        one.note(1.0)
        two.note(2.0)
        assert len(line.round()) == 2
        two.close()
        one.note(3.0)
        found = rounds(line, lambda found: len(found) >= 2)
        assert [(each.kind, each.object) for each in found if each.source == "notice"] == [("away", "host2")]
        assert "host1/2" in ids(found)
        one.note(4.0)
        assert ids(line.round()) == ["host1/3"]  # and it is told once
        assert not line.is_deserted
        with EventHost(tmp_path, "host2", began=2.0) as again:
            again.note(5.0, "host")
            found = rounds(line, lambda found: len(found) >= 2)
            back = [each.fields for each in found if each.kind == "back"]
            assert back == [{"restarted": True}]
            assert [each.id for each in found if each.source == "host2"] == ["host2/1"]  # of the new host


def test_a_host_that_hangs_holds_up_nobody(hosts: tuple[EventHost, EventHost]) -> None:
    one, two = hosts
    with timeline(one, two) as line:
        line.round()
        two.answering.clear()
        one.note(1.0)
        began = time.monotonic()
        found = [*line.round(0.2), *line.round(0.2)]
        assert time.monotonic() - began < 0.5  # waited for once
        assert sorted(each.kind for each in found) == ["away", "link"]
        two.note(2.0)
        two.answering.set()
        found = rounds(line, lambda found: len(found) >= 2)
        assert ids(found)[0] == "host2/1"
        assert [each.object for each in found if each.kind == "back"] == ["host2"]


def test_one_that_is_not_there_at_all_is_told(tmp_path: Path) -> None:
    with EventHost(tmp_path, "host1") as host:
        host.note(1.0)
    with timeline(host) as line:
        found = [*line.round(), *line.rest()]
        assert [each.kind for each in found] == ["away"]
        assert line.is_deserted


def test_the_vmms_events_are_numbered_by_revision_and_place() -> None:
    plain = [
        {"revision": revision, "time": 1.0, "host": "", "kind": "vm", "object": "blue1", "fields": {}}
        for revision in (4, 4, 7, 9, 9)
    ]
    found = number_events(plain)
    assert ids(found) == ["vmm/4.1", "vmm/4.2", "vmm/7.1", "vmm/9.1", "vmm/9.2"]
    assert [each.sequence for each in found] == [4, 4, 7, 9, 9]


def test_times_that_people_write() -> None:
    now = datetime.fromisoformat("2026-01-31T12:30:00").astimezone().timestamp()
    assert moment("now", now) == now
    assert moment("90s", now) == now - 90
    assert moment("1.5m", now) == now - 90
    assert moment("2h", now) == now - 7200
    assert moment("12:29", now) == now - 60
    assert moment("12:29:59.5", now) == now - 0.5
    assert moment("2026-01-31T12:29:00", now) == now - 60
    for wrong in ("yesterday", "5", "", "25:00", "-5m", "5 m"):
        with pytest.raises(BadInput, match="12:30:00"):
            moment(wrong, now)


def test_a_line_says_the_most_telling_first() -> None:
    fields = {"vsid": 5001, "state": "began", "reason": "no-port", "error": "", "old": {"a": "x", "b": ""}}
    event = LabEvent("host1/7", 0.0, "host1", "host1", "drops", "nic1", fields, 7)
    assert event_text.short(event) == "host1 drops nic1 began no-port vsid=5001 old=(x)"
    assert event_text.line(event).split()[2:6] == ["host1/7", "host1", "drops", "nic1"]
