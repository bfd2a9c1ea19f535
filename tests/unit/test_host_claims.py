"""What of learning a worker tells control: bounded, by orders, and only while it is to learn."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from support import dhcp
from support.frames import BROADCAST, arp, ip, mac
from support.host import CONFIGURE, MemoryHost, memory_host, plan
from support.switch import PLAIN, gateway_mac, mac_of, v4
from testbed.host import claims as claims_module
from testbed.host.claims import AGAIN, BURST, RATE, ClaimBox
from testbed.switch.port import Port
from testbed.wnv import exchanges
from testbed.wnv.learning import Claim

BLUE1 = mac_of("blue1")


# ---- the box ------------------------------------------------------------------------------


class Clock:
    """The time as the box sees it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(claims_module, "monotonic", made)
    return made


@pytest.fixture
def port() -> Iterator[Port]:
    made = Port("blue1", BLUE1, 5001, os.open("/dev/null", os.O_RDWR))
    yield made
    made.close()


class Box:
    """A box and how often it has rung."""

    def __init__(self) -> None:
        self.rings = 0
        self.box = ClaimBox(self._ring)

    def _ring(self) -> None:
        self.rings += 1

    def put(self, port: Port, number: int) -> None:
        """A claim of one of many addresses."""
        self.box.put(Claim(port, bytes((10, 0, number >> 8, number & 255)), "arp"))

    def taken(self) -> list[str]:
        """The addresses that control gets."""
        return [each["ca"] for each in self.box.take()]


def test_it_rings_once_until_control_has_fetched(clock: Clock, port: Port) -> None:
    box = Box()
    for number in (1, 2):
        box.put(port, number)
    assert box.rings == 1
    assert box.box.take() == [
        {
            "op": "claim",
            "port": "blue1",
            "vsid": 5001,
            "mac": BLUE1.hex(":"),
            "ca": f"10.0.0.{last}",
            "how": "arp",
        }
        for last in (1, 2)
    ]
    assert box.taken() == []
    box.put(port, 3)
    assert box.rings == 2


def test_a_claim_is_told_once_a_second_unless_the_policy_changes(clock: Clock, port: Port) -> None:
    box = Box()
    for _ in range(3):
        box.put(port, 1)
    assert box.taken() == ["10.0.0.1"]
    clock.now += AGAIN - 0.1
    box.put(port, 1)
    assert box.taken() == []
    box.box.policy_changed()
    box.put(port, 1)
    assert box.taken() == ["10.0.0.1"]
    clock.now += AGAIN
    box.put(port, 1)
    assert box.taken() == ["10.0.0.1"]


def test_a_storm_is_cut_and_counted_at_its_port(clock: Clock, port: Port) -> None:
    box = Box()
    for number in range(5000):
        box.put(port, number)
        box.box.policy_changed()
    assert len(box.taken()) == BURST
    assert port.counters()["suppressed_claims"] == 5000 - BURST
    clock.now += 1.0
    for number in range(5000, 6000):
        box.put(port, number)
    assert len(box.taken()) == RATE
    other = Port("blue4", mac_of("blue4"), 5001, os.dup(port.descriptor))
    box.put(other, 1)
    assert box.taken() == ["10.0.0.1"]  # others have their own allowance
    other.close()


def test_what_is_remembered_is_bounded(clock: Clock, port: Port) -> None:
    box = Box()
    for number in range(3 * claims_module._REMEMBERED):
        clock.now += 1.0
        box.put(port, number)
        box.box.take()
    assert len(box.box._told) <= claims_module._REMEMBERED


def test_so_is_what_control_does_not_fetch(clock: Clock, port: Port) -> None:
    box = Box()
    for number in range(2 * claims_module._WAITING):
        clock.now += 1.0
        box.put(port, number)
    assert len(box.taken()) == claims_module._WAITING
    assert port.suppressed_claims == claims_module._WAITING


def test_a_port_that_leaves_takes_its_claims_with_it(clock: Clock, port: Port) -> None:
    box = Box()
    box.put(port, 1)
    box.box.forget("blue1")
    assert box.taken() == []
    box.put(port, 1)
    assert box.taken() == ["10.0.0.1"]


# ---- the worker ---------------------------------------------------------------------------


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryHost]:
    with memory_host(monkeypatch) as made:
        made.configure(plan())
        made.space.settle()
        made.plug("blue1", BLUE1, 5001)
        yield made


def order(memory: MemoryHost, op: str, **fields: Any) -> Any:
    return memory.agent._link.order(op, **fields)


def configure(host: MemoryHost, **more: Any) -> None:
    order(host, "configure", **{**CONFIGURE, **more})


def announce(host: MemoryHost, address: str) -> None:
    host.vms["blue1"].send(PLAIN + arp(1, (BLUE1, address), (BLUE1, address), BROADCAST))
    host.seen_from_vms()


def told(host: MemoryHost) -> list[str]:
    return [each["ca"] for each in order(host, "claims")]


def test_control_is_rung_and_fetches(host: MemoryHost) -> None:
    rung = []
    host.agent._link.on_claims = lambda: rung.append(told(host))
    announce(host, "10.0.0.77")
    host.agent._link._pass_on()
    assert rung == [["10.0.0.77"]]


def test_learning_can_be_switched_off_and_on(host: MemoryHost) -> None:
    host.vms["blue1"].send(PLAIN + dhcp.asked(BLUE1, b"\1\2\3\4"))
    announce(host, "10.0.0.77")
    assert host.worker.datapath.inspects
    configure(host, learning=False)
    assert told(host) == []
    assert not host.worker.datapath.inspects
    announce(host, "10.0.0.77")
    assert told(host) == []
    configure(host)
    announce(host, "10.0.0.77")
    assert told(host) == ["10.0.0.77"]
    configure(host, wnv="below-switch")
    announce(host, "10.0.0.78")
    assert told(host) == []
    configure(host)
    announce(host, "10.0.0.78")
    assert told(host) == ["10.0.0.78"]


def test_another_virtual_subnet_begins_anew(host: MemoryHost) -> None:
    announce(host, "10.0.0.77")
    host.ask("set-port", name="blue1", vsid=5002)
    assert told(host) == []


def test_a_port_of_the_same_name_is_another_vm(host: MemoryHost) -> None:
    announce(host, "10.0.0.77")
    host.plug("blue1", BLUE1, 5001)
    assert told(host) == []


def test_an_exchange_without_an_answer_ends_by_itself(
    host: MemoryHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(exchanges, "monotonic", lambda: now[0])
    host.vms["blue1"].send(PLAIN + dhcp.asked(BLUE1, b"\1\2\3\4"))
    host.seen_from_vms()
    assert host.worker.datapath.inspects
    now[0] += exchanges.SECONDS
    host.seen_from_vms()  # any wake-up will do; without one the worker looks once a second
    assert not host.worker.datapath.inspects


def probe(host: MemoryHost, address: str, *answers: bytes) -> bool:
    where = {"port": "blue1", "address": ip(address)}
    order(host, "probe", **where)
    assert host.vms["blue1"].recv(200)
    for frame in answers:
        host.vms["blue1"].send(PLAIN + frame)
    found = order(host, "probe-result", **where)
    order(host, "probe-end", **where)
    assert host.worker.learning.probes._awaited == {}
    return bool(found)


def answer(address: str) -> bytes:
    return arp(2, (BLUE1, address), (gateway_mac(5001), "0.0.0.0"), gateway_mac(5001))


def test_an_answer_that_is_in_the_queue_counts(host: MemoryHost) -> None:
    noise = [arp(1, (BLUE1, v4("blue1")), (bytes(6), "10.0.0.9"), BROADCAST)] * 100
    assert probe(host, "10.0.0.77", *noise, answer("10.0.0.77"))
    assert not probe(host, "10.0.0.77", *noise)
    assert not probe(host, "10.0.0.77", answer("10.0.0.78"))


def test_a_port_that_is_not_there_answers_nothing(host: MemoryHost) -> None:
    where = {"port": "nobody", "address": ip("10.0.0.77")}
    assert order(host, "probe", **where) is None
    assert order(host, "probe-result", **where) is False
    assert order(host, "probe-end", **where) is None


def test_a_vm_whose_nic_is_down_is_silent(host: MemoryHost) -> None:
    host.vms.pop("blue1").close()
    where = {"port": "blue1", "address": ip("10.0.0.77")}
    order(host, "probe", **where)
    assert order(host, "probe-result", **where) is False


def test_a_storm_of_arp_leaves_the_switch_at_work(host: MemoryHost) -> None:
    """Each of many addresses is news; control gets a few of them, and orders go on being carried out."""
    for number in range(2000):
        address = f"10.0.{number >> 8}.{number & 255}"
        host.vms["blue1"].send(
            PLAIN + arp(1, (BLUE1, address), (mac("00:15:5d:0f:0f:0f"), address), BROADCAST)
        )
    host.seen_from_vms()
    assert len(told(host)) < 2 * BURST
    port = next(each for each in host.ask("counters")["counters"] if each["object"] == "blue1")
    assert port["fields"]["suppressed_claims"] > 1000
