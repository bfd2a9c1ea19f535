"""testbed.teaming.lacp: two systems, or more, on cables in memory and a clock that the test turns."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from support.fake_loop import FakeLoop
from support.frames import mac
from testbed.packets import lacp
from testbed.packets.lacp import Lacpdu, Party
from testbed.teaming.lacp import TIMERS, Lacp

HOST, SWITCH, STRANGER = mac("02:00:00:00:00:0a"), mac("02:00:00:00:00:0b"), mac("02:00:00:00:00:0c")
DELAY = 0.001  # of a cable
COMING_UP = 0.1


class End:
    """A system with its ports, and what it has been told."""

    def __init__(self, net: Net, system: bytes, ports: list[str], key: int = 1, **more: Any) -> None:
        self.net, self.changes, self.sent = net, [frozenset[str]()], []
        self.lacp = Lacp(
            net.loop,
            system,
            key,
            ports,
            self._send,
            self.changes.append,
            **more,  # type: ignore[arg-type]
        )

    def _send(self, port: str, frame: bytes) -> bool:
        self.sent.append((self.net.loop.now, port, lacp.parse(frame)))
        return self.net.carry(self, port, frame)

    def port(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.lacp.describe()["ports"][name]
        return found

    @property
    def working(self) -> set[str]:
        return set(self.changes[-1])


class Net:
    """Cables between ports of ends. ``lose``: which frames are lost, by (end, port)."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.cables: dict[tuple[End, str], tuple[End, str]] = {}
        self.lose: Callable[[End, str], bool] = lambda end, port: False

    def plug(self, one: tuple[End, str], other: tuple[End, str]) -> None:
        for end in (one, other):
            self.cables.pop(self.cables.pop(end, end), None)
        self.cables[one], self.cables[other] = other, one

    def carry(self, end: End, port: str, frame: bytes) -> bool:
        if (end, port) in self.cables and not self.lose(end, port):
            other, name = self.cables[end, port]
            self.loop.call_later(DELAY, other.lacp.heard, name, frame)
        return True

    def up(self, *ends: End, ports: str = "ab") -> None:
        for end in ends:
            for port in ports:
                end.lacp.set_up(port, True)

    def pair(self, ports: str = "ab", key: int = 1, **more: Any) -> tuple[End, End]:
        host = End(self, HOST, list(ports), **more)
        switch = End(self, SWITCH, list(ports), key, **more)
        for port in ports:
            self.plug((host, port), (switch, port))
        return host, switch


@pytest.fixture
def net() -> Net:
    return Net()


def working_pair(net: Net, ports: str = "ab", **more: Any) -> tuple[End, End]:
    ends = net.pair(ports, **more)
    net.up(*ends, ports=ports)
    net.loop.run(COMING_UP)
    assert [end.working for end in ends] == [set(ports)] * 2
    return ends


@pytest.mark.parametrize("apart", [0.0, 0.0005, 0.01, 0.7, 2.5, 5.0, 40.0])
def test_it_comes_up_at_once_when_both_ends_are_there(net: Net, apart: float) -> None:
    host, switch = net.pair()
    net.up(host)
    net.loop.run(apart)
    assert host.working == set()
    net.up(switch)
    net.loop.run(COMING_UP)
    assert host.working == switch.working == {"a", "b"}
    net.loop.run(100)
    assert [len(end.changes) - 1 for end in (host, switch)] == [2, 2]  # one port after the other, and no more


def test_it_says_what_it_knows(net: Net) -> None:
    host, _ = working_pair(net)
    net.loop.run(1.0)  # the last bit is told with the next periodic message
    told = host.lacp.describe()
    switch = {"system": SWITCH.hex(":"), "system_priority": 0x8000, "key": 1}
    assert (told["partner"], told["system"], told["key"]) == (switch, HOST.hex(":"), 1)
    port = told["ports"]["b"]
    state = ["activity", "timeout", "aggregation", "synchronization", "collecting", "distributing"]
    assert (port["port"], port["receive"], port["state"], port["selected"]) == (2, "current", state, True)
    assert port["partner"] == {**switch, "port": 2, "state": state}
    assert port["standby"] == ""
    assert port["sent"] == port["received"] == 4


@pytest.mark.parametrize(("fast", "period", "expiry"), [(True, 1.0, 3.0), (False, 30.0, 90.0)])
def test_a_cut_cable_expires(net: Net, fast: bool, period: float, expiry: float) -> None:
    host, switch = working_pair(net, fast=fast)
    net.loop.run(10 * period)
    last = [max(when for when, port, _ in end.sent if port == "a") for end in (host, switch)]
    assert host.port("a")["sent"] in range(11, 15)
    net.lose = lambda end, port: port == "a"
    net.loop.run(min(last) + DELAY + expiry - 0.01 - net.loop.now)
    assert (host.working, switch.working) == ({"a", "b"}, {"a", "b"})
    net.loop.run(max(last) - min(last) + 0.02)
    assert (host.working, switch.working) == ({"b"}, {"b"})
    assert host.port("a")["receive"] == "expired"
    assert "expired" in host.port("a")["state"]
    net.loop.run(TIMERS["rfc"].short_timeout)
    assert (host.port("a")["receive"], host.port("a")["standby"]) == ("defaulted", "no-partner")
    assert "defaulted" in host.port("a")["state"]
    net.lose = lambda end, port: False
    net.loop.run(31.0)  # nobody is asked for fast messages by now
    assert (host.working, switch.working) == ({"a", "b"}, {"a", "b"})


def test_shorter_timers_are_for_labs(net: Net) -> None:
    host, _ = working_pair(net, timers=TIMERS["fast"])
    net.lose = lambda end, port: port == "a"
    net.loop.run(1.0)
    assert host.working == {"b"}


def test_a_cable_that_carries_one_way_only_is_no_member_of_either(net: Net) -> None:
    host, switch = working_pair(net)
    net.lose = lambda end, port: port == "a" and end is host
    net.loop.run(3.0 + 10 * DELAY)
    assert (host.working, switch.working) == ({"b"}, {"b"})
    assert host.port("a")["receive"] == "current"  # it hears that the other one does not


def test_lost_messages_do_not_matter_until_three_of_them(net: Net) -> None:
    host, switch = net.pair("a")
    numbers = itertools.count()
    net.lose = lambda end, port: next(numbers) % 3 == 1
    net.up(host, switch, ports="a")
    net.loop.run(5.0)
    assert host.working == switch.working == {"a"}
    before = len(host.changes)
    dropped: list[int] = []
    net.lose = lambda end, port: end is switch and len(dropped) < 2 and not dropped.append(1)
    net.loop.run(20.0)
    assert len(dropped) == 2
    assert len(host.changes) == before


def test_a_port_without_carrier_goes_at_once_and_there_after_its_silence(net: Net) -> None:
    host, switch = working_pair(net)
    host.lacp.set_up("a", False)
    assert host.working == {"b"}
    assert host.port("a")["standby"] == "down"
    net.loop.run(1.9)
    assert switch.working == {"a", "b"}
    net.loop.run(1.2)
    assert switch.working == {"b"}
    assert switch.port("a")["partner"]["system"] == HOST.hex(":")
    before = switch.port("a")["received"]
    host.lacp.set_up("a", True)
    net.loop.run(COMING_UP)
    assert host.working == switch.working == {"a", "b"}
    assert switch.port("a")["received"] > before


def test_a_partner_that_ends_is_left_at_once(net: Net) -> None:
    host, switch = working_pair(net)
    switch.lacp.close()
    net.loop.run(2 * DELAY)
    assert host.working == set()
    sent = len(switch.sent)
    net.loop.run(10.0)
    assert len(switch.sent) == sent
    switch.lacp.heard("a", b"")
    switch.lacp.set_up("a", False)
    switch.lacp.close()
    assert len(switch.sent) == sent


def test_a_flag_taken_back_takes_the_port_out(net: Net) -> None:
    host, switch = working_pair(net)
    *_, (_, _, last) = [each for each in switch.sent if each[1] == "a"]
    for flag in (lacp.SYNCHRONIZATION, lacp.COLLECTING):
        actor = last.actor._replace(state=last.actor.state & ~flag)
        host.lacp.heard("a", lacp.build(last._replace(actor=actor, partner=_now(host, "a")), SWITCH))
        assert host.working == {"b"}
        host.lacp.heard("a", lacp.build(last._replace(partner=_now(host, "a")), SWITCH))
        assert host.working == {"a", "b"}


def _now(end: End, port: str) -> Party:
    told = end.port(port)
    state = sum(lacp.STATE_NAMES[name] for name in told["state"])
    return Party(0x8000, HOST, 1, 0x8000, told["port"], state)


@pytest.mark.parametrize("key", [1, 2])
def test_another_partner_stands_by(net: Net, key: int) -> None:
    """Another system, or the same with another key."""
    host = End(net, HOST, ["a", "b", "c"])
    switch = End(net, SWITCH, ["a", "b"])
    other = End(net, STRANGER if key == 1 else SWITCH, ["a"], key)
    for port, (end, theirs) in {"a": (other, "a"), "b": (switch, "a"), "c": (switch, "b")}.items():
        net.plug((host, port), (end, theirs))
    net.up(host, ports="abc")
    net.up(other, ports="a")
    net.loop.run(COMING_UP)
    assert host.working == {"a"}
    net.up(switch)
    net.loop.run(2.0)
    assert host.working == {"b", "c"}
    assert host.port("a")["standby"] == "other-partner"
    assert not host.port("a")["selected"]
    assert (other.working, switch.working) == (set(), {"a", "b"})
    for port in "ab":
        switch.lacp.set_up(port, False)
    net.loop.run(7.0)
    assert host.working == {"a"}


def test_of_equal_partners_the_one_in_use_stays(net: Net) -> None:
    host = End(net, HOST, ["a", "b"])
    ends = [End(net, SWITCH, ["a"]), End(net, STRANGER, ["a"])]
    for port, end in zip("ab", ends, strict=True):
        net.plug((host, port), (end, "a"))
    net.up(host)
    net.up(ends[1], ports="a")
    net.loop.run(COMING_UP)
    net.up(ends[0], ports="a")
    net.loop.run(10)
    assert host.working == {"b"}
    host.lacp.set_up("b", False)
    net.loop.run(COMING_UP)
    assert host.working == {"a"}


def test_ports_that_lead_to_ourselves_stand_by(net: Net) -> None:
    host = End(net, HOST, ["a", "b", "c", "d"])
    switch = End(net, SWITCH, ["a"])
    net.plug((host, "a"), (host, "b"))
    net.plug((host, "c"), (host, "c"))
    net.plug((host, "d"), (switch, "a"))
    net.up(host, ports="abcd")
    net.up(switch, ports="a")
    net.loop.run(10.0)
    assert host.working == {"d"}
    assert [host.port(port)["standby"] for port in "abc"] == ["looped-back"] * 3


def test_a_partner_that_does_not_aggregate_stands_by(net: Net) -> None:
    host = End(net, HOST, ["a"])
    net.up(host, ports="a")
    actor = Party(1, SWITCH, 1, 1, 1, lacp.ACTIVITY | lacp.SYNCHRONIZATION | lacp.COLLECTING)
    host.lacp.heard("a", lacp.build(Lacpdu(actor, _now(host, "a")), SWITCH))
    assert host.working == set()
    assert host.port("a")["standby"] == "individual"


def test_another_cable_in_a_port_begins_anew(net: Net) -> None:
    host, switch = working_pair(net)
    stranger = End(net, STRANGER, ["a"])
    net.plug((host, "a"), (stranger, "a"))
    net.up(stranger, ports="a")
    net.loop.run(COMING_UP)
    assert (host.working, stranger.working) == ({"b"}, set())
    assert host.port("a")["standby"] == "other-partner"
    net.plug((host, "a"), (switch, "a"))
    net.loop.run(1.5)
    assert host.working == {"a", "b"}


def test_what_is_malformed_is_counted_and_nothing_else(net: Net) -> None:
    host, _ = working_pair(net)
    before = host.port("a")
    for frame in (b"", bytes(124), lacp.build(Lacpdu(_now(host, "a"), _now(host, "a")), HOST)[:-1]):
        host.lacp.heard("a", frame)
    assert host.port("a") == {**before, "malformed": 3}
    host.lacp.set_up("a", False)
    host.lacp.heard("a", b"")
    assert host.port("a")["disabled"] == 1


def test_at_most_three_messages_in_a_fast_period(net: Net) -> None:
    host, switch = working_pair(net, "a")
    for turn in range(200):  # each of these is to be answered at once
        partner = _now(host, "a")._replace(key=turn)
        actor = Party(0x8000, SWITCH, 1, 0x8000, 1, 0x3D)
        host.lacp.heard("a", lacp.build(Lacpdu(actor, partner), SWITCH))
        net.loop.run(0.05)
    net.loop.run(2.0)
    times = [when for when, _, _ in host.sent]
    assert all(later - first >= 1.0 - 1e-9 for first, later in zip(times, times[3:], strict=False))
    assert len(times) > 20
    assert switch.working == {"a"}


def test_what_cannot_leave_is_counted(net: Net) -> None:
    host = Lacp(net.loop, HOST, 1, ["a"], lambda port, frame: False, lambda ports: None)  # type: ignore[arg-type]
    host.set_up("a", True)
    told = host.describe()["ports"]["a"]
    assert (told["sent"], told["refused"]) == (0, 1)


def test_what_a_partner_says_holds_only_if_it_knows_us(net: Net) -> None:
    host = End(net, HOST, ["a"])
    net.up(host, ports="a")
    actor = Party(0x8000, SWITCH, 1, 0x8000, 1, 0x3D)
    ours = _now(host, "a")
    others = {"system": STRANGER, "key": 2, "port": 2, "system_priority": 1, "port_priority": 1}
    wrong = [ours._replace(**{name: value}) for name, value in others.items()]  # type: ignore[arg-type]
    for partner in (*wrong, ours._replace(state=ours.state & ~lacp.AGGREGATION)):
        host.lacp.heard("a", lacp.build(Lacpdu(actor, partner), SWITCH))
        assert host.working == set(), partner
    host.lacp.heard("a", lacp.build(Lacpdu(actor, ours), SWITCH))
    assert host.working == {"a"}


def test_who_asks_for_fast_messages_gets_one_at_once(net: Net) -> None:
    host, _ = working_pair(net, "a", fast=False)
    net.loop.run(5.0)
    sent = len(host.sent)
    host.lacp.heard(
        "a", lacp.build(Lacpdu(Party(0x8000, SWITCH, 1, 0x8000, 1, 0x3F), _now(host, "a")), SWITCH)
    )
    assert len(host.sent) == sent + 1
    net.loop.run(0.5)
    assert len(host.sent) == sent + 1


def test_another_partner_is_told_even_if_it_knows_us(net: Net) -> None:
    host, _ = working_pair(net, "a")
    net.loop.run(5.5)
    sent = len(host.sent)
    for port in (7, 7, 8):
        actor = Party(0x8000, SWITCH, 1, 0x8000, port, 0x3F)
        host.lacp.heard("a", lacp.build(Lacpdu(actor, _now(host, "a")), SWITCH))
    assert len(host.sent) == sent + 2
