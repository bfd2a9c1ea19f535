"""What `check` asks, whom it expects, and that a foreign answer is a leak."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from testbed.lab import check
from testbed.lab.check import Guest, plan_probes


def guest(name: str, networks: str, *addresses: str) -> Guest:
    return Guest(name, frozenset(networks.split(",")), addresses)


GUESTS = [
    guest("blue1", "blue", "10.0.0.5", "fd00::5"),
    guest("red1", "red", "10.0.0.5", "fd00::5"),
    guest("blue2", "blue", "10.0.0.6"),
    guest("red2", "red", "10.0.0.6"),
    guest("red8", "red", "10.0.0.8"),
]


def expectations(guests: list[Guest]) -> dict[tuple[str, str], str | None]:
    return {(probe.source, probe.address): probe.expected for probe in plan_probes(guests)}


def test_every_vm_asks_every_address_but_its_own() -> None:
    asked = expectations(GUESTS)
    assert len(asked) == len(plan_probes(GUESTS)) == 2 * 2 + 3 * 3
    assert ("blue1", "10.0.0.5") not in asked
    assert ("blue1", "fd00::5") not in asked


def test_the_owner_in_the_own_network_is_expected() -> None:
    asked = expectations(GUESTS)
    assert asked["blue1", "10.0.0.6"] == "blue2"
    assert asked["red1", "10.0.0.6"] == "red2"
    assert asked["blue2", "fd00::5"] == "blue1"
    assert asked["red8", "10.0.0.5"] == "red1"


def test_nobody_is_expected_where_only_another_network_has_the_address() -> None:
    assert expectations(GUESTS)["blue1", "10.0.0.8"] is None


def test_a_vm_in_two_networks_and_vms_outside_of_all() -> None:
    asked = expectations(
        [
            guest("both", "blue,red", "10.0.0.9"),
            guest("blue1", "blue", "10.0.0.5"),
            guest("plain1", "", "172.16.0.1"),
            guest("plain2", "", "172.16.0.2"),
        ]
    )
    assert asked["both", "10.0.0.5"] == "blue1"
    assert asked["blue1", "10.0.0.9"] == "both"
    assert asked["plain1", "172.16.0.2"] == "plain2"
    assert asked["plain1", "10.0.0.5"] is None


@pytest.fixture
def responders() -> Iterator[Any]:
    lab = SimpleNamespace(record=SimpleNamespace(id="aaa"))
    made = check._Responders(lab, GUESTS, plan_probes(GUESTS))  # type: ignore[arg-type]
    yield made
    made._selector.close()


def note(responders: Any, receiver: str, kind: str, probe: int, sender: str) -> None:
    responders._note(receiver, check._Message("aaa", kind, probe, sender))


def number_of(responders: Any, source: str, address: str) -> int:
    for number, probe in enumerate(responders._probes):
        if (probe.source, probe.address) == (source, address):
            return number
    raise AssertionError(address)


def test_the_expected_answer_is_no_leak(responders: Any) -> None:
    number = number_of(responders, "blue1", "10.0.0.6")
    assert not responders._probes[number].ok
    note(responders, "blue2", "?", number, "blue1")
    note(responders, "blue1", "!", number, "blue2")
    assert responders._probes[number].ok
    assert responders.leaks == []


def test_a_foreign_question_is_a_leak(responders: Any) -> None:
    note(responders, "red2", "?", number_of(responders, "blue1", "10.0.0.6"), "blue1")
    assert responders.leaks == [{"from": "blue1", "to": "red2"}]


def test_a_foreign_answer_is_a_leak_and_spoils_the_right_one(responders: Any) -> None:
    number = number_of(responders, "blue1", "10.0.0.6")
    note(responders, "blue1", "!", number, "blue2")
    note(responders, "blue1", "!", number, "red2")
    assert responders.leaks == [{"from": "red2", "to": "blue1"}]
    assert not responders._probes[number].ok


def test_an_answer_where_silence_is_expected_is_a_problem(responders: Any) -> None:
    number = number_of(responders, "blue1", "10.0.0.8")
    assert responders._probes[number].ok
    note(responders, "blue1", "!", number, "red8")
    assert not responders._probes[number].ok


def test_a_datagram_of_another_lab_is_a_leak(responders: Any) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        responders._selector.register(ours, selectors.EVENT_READ, "blue1")
        theirs.send(msgspec.msgpack.encode(check._Message("bbb", "?", 0, "blue1")))
        theirs.send(b"something else")
        responders._serve(0)
        responders._serve(0)
        responders._selector.unregister(ours)
    assert responders.leaks == [{"from": "lab bbb", "to": "blue1"}]
