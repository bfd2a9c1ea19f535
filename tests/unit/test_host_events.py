"""testbed.host.events: numbering, merging and loss of events."""

from __future__ import annotations

from testbed.host.events import EventRing
from testbed.telemetry import EVENTS_KEPT, Event, EventLog


def event(time: float, kind: str = "x") -> Event:
    return Event(time, "host1", kind, "o", {})


def test_events_of_two_processes_are_merged_by_time() -> None:
    ring = EventRing()
    ring.add([event(1, "a"), event(3, "c"), event(2, "b"), event(4, "d")])
    told = ring.since(None)
    assert [(each["sequence"], each["kind"]) for each in told["events"]] == [
        (1, "a"),
        (2, "b"),
        (3, "c"),
        (4, "d"),
    ]
    assert (told["lost"], told["next"]) == (0, 4)


def test_next_is_the_after_of_the_next_question() -> None:
    ring = EventRing()
    ring.add([event(1), event(2)])
    following = ring.since(None)["next"]
    assert ring.since(following) == {"events": [], "lost": 0, "next": following}
    ring.add([event(3, "new")])
    told = ring.since(following)
    assert [each["kind"] for each in told["events"]] == ["new"]
    assert told["next"] == following + 1


def test_what_made_room_is_lost_only_for_who_had_not_seen_it() -> None:
    ring = EventRing(kept=3)
    ring.add([event(number) for number in range(5)])
    assert [each["sequence"] for each in ring.since(None)["events"]] == [3, 4, 5]
    assert ring.since(None)["lost"] == 2
    assert ring.since(1)["lost"] == 1
    assert ring.since(2)["lost"] == ring.since(5)["lost"] == 0


def test_what_a_process_lost_has_numbers_too() -> None:
    ring = EventRing()
    ring.add([event(1)])
    ring.add([event(2)], lost=7)
    told = ring.since(1)
    assert (told["lost"], told["next"]) == (7, 9)
    assert [each["sequence"] for each in told["events"]] == [9]


def test_a_log_counts_what_it_had_to_forget() -> None:
    log = EventLog("host1")
    for number in range(EVENTS_KEPT + 3):
        log.add("k", str(number))
    assert log.lost == 3
    kept = log.take()
    assert (len(kept), kept[0].object, kept[0].host) == (EVENTS_KEPT, "3", "host1")
    assert log.take() == []
