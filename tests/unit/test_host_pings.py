"""Ping in the PA space: who pings whom, what is counted, and the search for the path MTU."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from support.host import MemoryHost, MemoryPaSpace, memory_host, plan
from support.switch import pa
from testbed.errors import BadInput
from testbed.host.pa.pings import KEPT, Order, Pings, longest
from testbed.lab import ping as pinging
from testbed.lab.lab import Lab as RealLab
from testbed.lab.ping import Options


class Space:
    """Answers at once, up to a size. ``asked``: what has been sent."""

    def __init__(self, largest: int = 1 << 16, lost: int = 0) -> None:
        self.largest, self.lost = largest, lost
        self.asked: list[tuple[str, str, int, str | None, str]] = []

    async def ping(
        self,
        source: str,
        destination: str,
        size: int,
        timeout: float,
        next_hop: str | None = None,
        member: str = "",
    ) -> float:
        self.asked.append((source, destination, size, next_hop, member))
        await asyncio.sleep(0)
        if size > self.largest:
            raise TimeoutError
        if self.lost:
            self.lost -= 1
            raise TimeoutError
        return 0.001 * len(self.asked)


def run(space: Space, order: Order) -> Any:
    async def wait() -> Any:
        pings = Pings(asyncio.get_running_loop())
        number = pings.start(space, order)
        result = pings.result(number)
        while not result.done:
            await asyncio.sleep(0)
        return result

    return asyncio.run(wait())


@pytest.mark.parametrize("largest", [0, 1, 2, 731, 1471, 1472])
def test_the_search_finds_the_largest_that_passes(largest: int) -> None:
    space = Space(largest)
    assert run(space, Order("a", "b", "b", 0, 1472, 1.0)).largest == largest
    assert len(space.asked) * 1.0 <= longest(Order("a", "b", "b", 0, 1472, 1.0))


def test_the_search_finds_nothing_where_nothing_passes() -> None:
    found = run(Space(-1), Order("a", "b", "b", 0, 1472, 1.0))
    assert (found.largest, found.round_trips) == (None, [None, None])


def test_a_single_loss_is_no_limit() -> None:
    assert run(Space(1000, lost=1), Order("a", "b", "b", 0, 1472, 1.0)).largest == 1000


def test_losses_are_told() -> None:
    assert run(Space(lost=1), Order("a", "b", "c", 3, 8, 1.0, "nic2")).round_trips == [None, 0.002, 0.003]


def test_an_asker_that_leaves_ends_its_ping_and_results_are_not_kept_for_ever() -> None:
    async def all_of_it() -> None:
        pings, space = Pings(asyncio.get_running_loop()), Space()
        order = Order("a", "b", "b", 1000, 8, 1.0)
        numbers = [pings.start(space, order) for _ in range(KEPT)]
        with pytest.raises(BadInput, match="run on this host already"):
            pings.start(space, order)
        pings.end(numbers[0])
        done = pings.start(space, Order("a", "b", "b", 1, 8, 1.0))
        while not pings.result(done).done:
            await asyncio.sleep(0)
        pings.start(space, order)  # in the place of the one that is done
        with pytest.raises(BadInput, match="has been forgotten"):
            pings.result(done)
        pings.stop()
        await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) == 1  # this one

    asyncio.run(all_of_it())


# ---- through an agent ---------------------------------------------------------------------


class Lab:
    """host1 is a real agent; host2 has PAs too, and host3 IPv6 ones."""

    def __init__(self, host: MemoryHost) -> None:
        self.host = host
        self.record = SimpleNamespace(name="memory")
        self.plan = SimpleNamespace(hosts=[SimpleNamespace(name=f"host{number}") for number in (1, 2, 3)])

    check_host = RealLab.check_host

    def ask(self, host: str, op: str, **fields: Any) -> Any:
        if host == "host1":
            loop = self.host.agent._loop
            loop.run_until_complete(asyncio.sleep(0.001))
            return self.host.ask(op, **fields)
        assert op == "status"
        number, version = (2, 4) if host == "host2" else (3, 6)
        length = {4: 16, 6: 64}[version]
        return {
            "provider_addresses": [
                {
                    "address": pa(number, vsid, version),
                    "prefix_length": length,
                    "vsid": vsid,
                    "state": "Preferred",
                }
                for vsid in (5001, 6001)
            ]
        }

    def ping(self, target: str, **options: Any) -> list[dict[str, Any]]:
        made = Options(**options)
        return [*pinging.ping(self, "host1", target, made)]  # type: ignore[arg-type]


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> Space:
    made = Space()
    monkeypatch.setattr(MemoryPaSpace, "ping", lambda _, *words: made.ping(*words), raising=False)
    return made


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, space: Space) -> Iterator[Lab]:
    with memory_host(monkeypatch) as host:
        host.configure(plan())
        host.space.settle()
        yield Lab(host)


def test_each_pa_of_a_host_is_pinged_from_that_of_its_virtual_subnet(lab: Lab, space: Space) -> None:
    found = lab.ping("host2", count=2, size=8)
    pairs = [(pa(1, vsid), pa(2, vsid)) for vsid in (5001, 6001)]
    assert [(each["source"], each["destination"]) for each in found] == pairs
    assert all((each["sent"], each["lost"], len(each["round_trips"])) == (2, 0, 2) for each in found)
    assert found[0]["min"] < found[0]["avg"] < found[0]["max"]
    assert space.asked[0] == (*pairs[0], 8, pairs[0][1], "")  # on-link: it is its own next hop


def test_one_address_is_pinged_from_what_fits_or_is_chosen(lab: Lab) -> None:
    assert [each["source"] for each in lab.ping(pa(2, 6001))] == [pa(1, 6001)]
    assert [each["source"] for each in lab.ping(pa(2, 6001), source=pa(1, 5001))] == [pa(1, 5001)]
    nobodys = str(ipaddress.ip_address("192.168.1.77"))  # on the link of all of them: in turn
    assert [each["source"] for each in lab.ping(nobodys)] == [pa(1, vsid) for vsid in (5001, 5002, 6001)]


def test_silence_and_the_member_are_told(lab: Lab, space: Space) -> None:
    space.largest = -1
    (found,) = lab.ping(pa(2, 5001), member="nic1", count=2, timeout=0.1)
    assert (found["lost"], found["min"], found["member"]) == (2, None, "nic1")
    assert not pinging.is_answered(found)
    assert space.asked[0][4] == "nic1"


def test_a_sweep_tells_the_path_mtu(lab: Lab, space: Space) -> None:
    space.largest = 1372
    (found,) = lab.ping(pa(2, 5001), sweep=True)
    assert (found["largest_payload"], found["path_mtu"]) == (1372, 1400)
    assert pinging.is_answered(found)
    space.largest = 1 << 16
    (found,) = lab.ping(pa(2, 5001), sweep=True)
    assert (found["largest_payload"], found["path_mtu"]) == (1472, 1500)


def test_what_can_not_be_pinged_is_refused(lab: Lab, space: Space) -> None:
    for target, options, said in (
        ("host1", {}, "host1 does not ping itself"),
        (
            "host9",
            {},
            "'host9' is neither an address, such as 192.168.0.2, nor another host: one of host2, host3",
        ),
        ("host3", {}, r"no provider address in use from which to ping host3 \(IPv6\)"),
        (
            pa(2, 5001),
            {"source": "192.168.9.9"},
            "--from 192.168.9.9: no provider address that host1 has in use",
        ),
        (pa(2, 5001), {"member": "nic9"}, "--member nic9: host1 has no such NIC: one of nic1"),
        (pa(2, 5001), {"size": 1473}, "--size 1473: .* at most 1472"),
        (pa(1, 5001), {"source": pa(1, 6001)}, "is this host's own"),
        ("203.0.113.9", {}, "no route of the PA network leads to 203.0.113.9"),
    ):
        with pytest.raises(BadInput, match=said):
            lab.ping(target, **options)
    assert space.asked == []


def test_a_pa_that_is_not_in_use_is_no_source(lab: Lab) -> None:
    lab.host.space._states = dict.fromkeys(lab.host.space._states, "Duplicate")
    with pytest.raises(BadInput, match="no provider address in use"):
        lab.ping("host2")
    with pytest.raises(BadInput, match="is no provider address that is in use here: one of none"):
        lab.host.ask("ping", source=pa(1, 5001), destination=pa(2, 5001), member="")
