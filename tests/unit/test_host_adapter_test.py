"""Test-VMNetworkAdapter on two hosts in memory: real agents and workers, and a cable between their NICs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from support.frames import ip, mac
from support.host import MemoryHost, memory_host, plan
from support.switch import VMS, mac_of, nic_mac, pa, policy, v4, v6
from testbed.errors import BadInput
from testbed.host.adapter_test import MAGIC
from testbed.lab import adapter_test
from testbed.lab.adapter_test import Outcome, Query, Stop
from testbed.packets import datagram, icmp_echo
from testbed.packets.icmp_echo import Echo
from testbed.topology.plan import ExtensionPlan, LookupRecord, NicPlan, TeamPlan, VmPlan, VnicPlan

SECONDS = 0.3  # of a test that gets no answer
PLAIN = mac("00:15:5d:aa:00:00"), mac("00:15:5d:aa:00:01")


class Wire:
    """Carries what each NIC sends to the other one. ``cut``: host numbers whose frames are lost."""

    def __init__(self, hosts: dict[int, MemoryHost]) -> None:
        self._hosts = hosts
        self.cut: set[int] = set()
        self._running = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        self._running = False
        self._thread.join(10.0)

    def _run(self) -> None:
        while self._running:
            for number, host in self._hosts.items():
                sent = host.worker.state.uplinks["nic1"].sent  # type: ignore[attr-defined]
                other = self._hosts[3 - number].worker.state.uplinks["nic1"]
                while sent:
                    vnet, frame = sent.pop(0)
                    if number not in self.cut:
                        other.cable.send(vnet + frame)  # type: ignore[attr-defined]
            time.sleep(0.001)


class MemoryLab:
    """What testbed.lab.adapter_test needs of a lab."""

    def __init__(self, hosts: dict[int, MemoryHost], wire: Wire) -> None:
        self.hosts, self.wire = hosts, wire
        self.lock = threading.Lock()
        self.record = SimpleNamespace(name="memory")
        names = {**{name: (host, vsid) for name, (host, vsid, _) in VMS.items() if host < 3}}
        names |= {"plain1": (1, 0), "plain2": (2, 0)}
        self.plan = SimpleNamespace(
            vms=[
                VmPlan(name, f"host{host}", (VnicPlan("eth0", name, vsid, "", 1458),))
                for name, (host, vsid) in names.items()
            ]
        )

    def ask(self, host: str, op: str, **fields: Any) -> Any:
        with self.lock:
            return self.hosts[int(host[-1])].ask(op, **fields)

    def run(self, sender: str, receiver: str, **more: Any) -> Outcome:
        """Both ends, over IPv4 unless told."""
        role = more.pop("role", "both")
        addresses = {
            key: v4(vm) for key, vm in (("sender_ip", sender), ("receiver_ip", receiver)) if vm in VMS
        }
        fields = {**addresses, "timeout": SECONDS, **more}
        return adapter_test.run(self, Query(sender, receiver, **fields), role)  # type: ignore[arg-type]

    def heard(self) -> list[tuple[str, bytes]]:
        """What any guest has got."""
        found = []
        for host in self.hosts.values():
            host.seen_from_vms()
            for name, end in host.vms.items():
                end.setblocking(False)
                while True:
                    try:
                        found.append((name, end.recv(1 << 16)))
                    except BlockingIOError:
                        break
        return found

    def drops(self, number: int) -> dict[tuple[str, str], int]:
        """Of a host, by stage and reason."""
        return {
            (stage, str(reason)): count
            for (stage, _, _, reason), count in self.hosts[number].worker.datapath.drops.items()
        }

    def remove_record(self, number: int, vm: str) -> None:
        self.hosts[number].policy(
            "remove", fields={"customer_address": v4(vm), "virtual_subnet_id": VMS[vm][1]}
        )


@contextmanager
def _hosts(patch: pytest.MonkeyPatch, **changes: Any) -> Iterator[MemoryLab]:
    with ExitStack() as stack:
        hosts = {number: stack.enter_context(memory_host(patch)) for number in (1, 2)}
        for number, host in hosts.items():
            nics = (NicPlan("nic1", nic_mac(number).hex(":"), 1500, wnv_binding=True),)
            made = plan(policy(number), name=f"host{number}", nics=nics, team=TeamPlan("nic1"))
            host.configure(msgspec.structs.replace(made, **changes))
            host.space.settle()
            for vsid in (5001, 5002, 6001):
                host.agent._provider._neighbor(ip(pa(3 - number, vsid)), nic_mac(3 - number))
            for name, (where, vsid, _) in VMS.items():
                if where == number:
                    host.plug(name, mac_of(name), vsid)
            host.plug(f"plain{number}", PLAIN[number - 1], 0)
        wire = Wire(hosts)
        stack.callback(wire.end)
        yield MemoryLab(hosts, wire)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryLab]:
    with _hosts(monkeypatch) as made:
        yield made


PAIRS = [
    ("blue1", "blue2"),  # of two hosts
    ("blue1", "blue4"),  # of one
    ("blue1", "web2"),  # of two subnets
    ("blue1", "web1"),
    ("red1", "red2"),  # with the addresses of blue's
]


@pytest.mark.parametrize("mode", ["in-switch", "below-switch"])
@pytest.mark.parametrize("of", [v4, v6], ids=["v4", "v6"])
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_ports_reach_each_other_and_guests_hear_nothing(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[str, str], of: Any, mode: str
) -> None:
    with _hosts(monkeypatch, wnv=mode) as lab:
        for size in (len(MAGIC), 32, 1400):
            found = lab.run(*pair, sender_ip=of(pair[0]), receiver_ip=of(pair[1]), payload_size=size)
            assert (found.result, found.stopped) == ("Success", None)
            assert found.round_trip is not None
            assert 0 < found.round_trip < SECONDS
        assert lab.heard() == []
        assert lab.drops(1) == lab.drops(2) == {}


def test_without_vsid_the_next_hop_has_to_be_named(lab: MemoryLab) -> None:
    fields = {"sender_ip": "172.16.0.1", "receiver_ip": "172.16.0.2"}
    with pytest.raises(BadInput, match="--next-hop-mac"):
        lab.run("plain1", "plain2", **fields)
    assert lab.run("plain1", "plain2", next_hop_mac=PLAIN[1].hex("-"), **fields).result == "Success"
    assert lab.heard() == []


def test_no_test_leaves_anything_behind(lab: MemoryLab) -> None:
    """The switch looks at nothing before and after, and the flow cache is used again."""
    for host in lab.hosts.values():
        pipeline, watched = host.worker.datapath.pipeline, len(host.worker._ready)
        lab.run("blue1", "blue2")
        lab.run("blue2", "blue1")
        assert host.worker.datapath.pipeline is pipeline
        assert not host.worker.datapath.inspects
        assert len(host.worker._ready) == watched
        assert not host.agent._diagnostics._tests


def test_two_administrators_the_receivers_first(lab: MemoryLab) -> None:
    found: list[Outcome] = []
    receiver = threading.Thread(
        target=lambda: found.append(lab.run("blue1", "blue2", role="receiver", timeout=5.0))
    )
    receiver.start()
    end = time.monotonic() + 5.0
    while not lab.hosts[2].worker.tests.running:
        assert time.monotonic() < end
        time.sleep(0.005)
    sender = lab.run("blue1", "blue2", role="sender", timeout=5.0)
    receiver.join(10.0)
    assert sender.result == "Success"
    assert sender.round_trip
    assert found == [Outcome("Success", None, None)]
    assert lab.heard() == []


def test_a_receiver_of_another_sequence_number_waits_in_vain(lab: MemoryLab) -> None:
    with adapter_test._begun(  # type: ignore[arg-type]
        lab,
        "host2",
        adapter_test.End("blue2", ip(v4("blue2")), ip(v4("blue1")), sends=False, sequence=7),
        Query("", "", "", ""),
    ):
        sender = lab.run("blue1", "blue2", role="sender")
    assert sender.stopped == Stop(
        "request", "fabric", "", "it has left host1 by nic1, and no reply has come back"
    )
    assert {name for name, _ in lab.heard()} == {"blue2"}  # as nobody has intercepted it


def test_a_receiver_alone_hears_nothing(lab: MemoryLab) -> None:
    found = lab.run("", "blue2", sender_ip=v4("blue1"), role="receiver")
    assert found.stopped == Stop("request", "fabric", "", "nothing for this test has reached host2")


# ---- where it stops -----------------------------------------------------------------------


def test_a_record_that_is_missing_is_named_at_the_senders_host(lab: MemoryLab) -> None:
    lab.remove_record(1, "blue2")
    found = lab.run("blue1", "blue2", timeout=30.0)
    assert found.stopped == Stop("request", "host1", "wnv", "no-lookup-record")
    assert lab.heard() == []


def test_a_record_that_is_missing_for_the_reply_is_named_there(lab: MemoryLab) -> None:
    """The receiver's host still knows the sender's PA by another VM's record."""
    lab.remove_record(2, "blue1")
    found = lab.run("blue1", "blue2", timeout=30.0)
    assert found.stopped == Stop("reply", "host2", "wnv", "no-lookup-record")


def test_what_the_receivers_host_drops_is_named_with_the_nic(lab: MemoryLab) -> None:
    lab.hosts[2].ask("set-port", name="blue2", vsid=5002)
    found = lab.run("blue1", "blue2", timeout=30.0)
    assert found.stopped == Stop("request", "host2", "port", "no-port (from nic1)")


def test_an_extension_that_denies_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    shut = ExtensionPlan("acl", {"rules": [{"action": "deny", "protocol": "icmp"}]})
    with _hosts(monkeypatch, extensions=(shut,)) as lab:
        found = lab.run("blue1", "blue2", timeout=30.0)
        assert found.stopped == Stop("request", "host1", "port-extensions", "acl:rule-0")
        assert lab.run("blue1", "blue2", sender_ip=v6("blue1"), receiver_ip=v6("blue2")).result == "Success"


@pytest.mark.parametrize(
    ("cut", "message", "way"),
    [(1, "request", ("host1", "host2")), (2, "reply", ("host2", "host1"))],
)
def test_a_cable_that_loses_all_is_named(
    lab: MemoryLab, cut: int, message: Any, way: tuple[str, str]
) -> None:
    lab.wire.cut = {cut}
    reason = f"it has left {way[0]} by nic1, and has not reached {way[1]}"
    assert lab.run("blue1", "blue2").stopped == Stop(message, "fabric", "", reason)


def test_a_host_that_does_not_answer_for_its_pa_is_named(lab: MemoryLab) -> None:
    lab.hosts[1].agent._provider._neighbor(ip(pa(2, 5001)), None)
    found = lab.run("blue1", "blue2")
    reason = f"pa-unreachable: {pa(2, 5001)} does not answer"
    assert found.stopped == Stop("request", "host1", "wnv", reason)


def test_a_request_that_waits_for_its_next_hop_arrives(lab: MemoryLab) -> None:
    neighbor = lab.hosts[1].agent._provider._neighbor
    neighbor(ip(pa(2, 5001)), None)

    def resolve() -> None:
        with lab.lock:
            neighbor(ip(pa(2, 5001)), nic_mac(2))

    resolved = threading.Timer(0.05, resolve)
    resolved.start()
    found = lab.run("blue1", "blue2", timeout=5.0)
    resolved.join()
    assert found.result == "Success"
    assert found.round_trip is not None
    assert found.round_trip > 0.02


# ---- what belongs to others ---------------------------------------------------------------


def test_guests_own_pings_pass_while_a_test_runs(lab: MemoryLab) -> None:
    """One with the test's addresses and number, one with its payload too but of another number."""
    end = adapter_test.End("blue2", ip(v4("blue2")), ip(v4("blue1")), sends=False, sequence=100)
    with adapter_test._begun(lab, "host2", end, Query("", "", "", "")):  # type: ignore[arg-type]
        assert lab.hosts[2].worker.datapath.inspects
        for sequence, payload in ((100, b"an ordinary ping"), (101, MAGIC)):
            echo = Echo(ip(v4("blue1")), ip(v4("blue2")), False, 1, sequence, payload)
            frame = datagram.build(icmp_echo.build(echo), mac_of("blue2"), mac_of("blue1"))
            lab.hosts[1].vms["blue1"].send(bytes(10) + frame)
        end_of_waiting = time.monotonic() + 5.0
        heard: list[tuple[str, bytes]] = []
        while len(heard) < 2:
            heard += lab.heard()
            assert time.monotonic() < end_of_waiting
    assert [name for name, _ in heard] == ["blue2", "blue2"]


def test_what_is_cached_is_looked_into_while_a_test_runs(lab: MemoryLab) -> None:
    """The flow from host to host is known from a guest's own ping before the test begins."""
    echo = Echo(ip(v4("blue1")), ip(v4("blue2")), False, 1, 1, b"an ordinary ping")
    frame = datagram.build(icmp_echo.build(echo), mac_of("blue2"), mac_of("blue1"))
    lab.hosts[1].vms["blue1"].send(bytes(10) + frame)
    flows, end = lab.hosts[2].worker.state.uplinks["nic1"].flows, time.monotonic() + 5.0
    while not flows:
        assert time.monotonic() < end
        time.sleep(0.005)
    assert [name for name, _ in lab.heard()] == ["blue2"]
    assert lab.run("blue1", "blue2").result == "Success"
    assert lab.heard() == []


def test_a_test_claims_no_address_for_the_vm(lab: MemoryLab) -> None:
    """From an address that is nobody's: the answer has nowhere to go, and nothing is learned.

    Any packet of a VM with an L2Only record claims the address that it comes from, so a test's might.
    """
    learner = LookupRecord("0.0.0.0", 5001, mac_of("blue1").hex(":"), pa(1, 5001), type="L2Only")
    lab.hosts[1].policy("add", fields=msgspec.to_builtins(learner))
    found = lab.run("blue1", "blue2", sender_ip="10.0.0.99", timeout=30.0)
    assert found.stopped == Stop("reply", "host2", "wnv", "no-lookup-record")
    assert lab.hosts[1].worker.claims.take() == []


def test_what_is_asked_wrongly_is_refused(lab: MemoryLab) -> None:
    for fields, said in (
        ({"sender_ip": "10.0.0"}, "--sender-ip '10.0.0' is no IP address"),
        ({"receiver_ip": "fd00::6"}, "of different families"),
        ({"receiver_ip": "224.0.0.1"}, "--receiver-ip 224.0.0.1 is no address of one VM"),
        ({"payload_size": 7}, "--payload-size 7: from 8 to 1430"),
        ({"payload_size": 1431}, "--payload-size 1431: from 8 to 1430"),
        ({"next_hop_mac": "00:15"}, "--next-hop-mac '00:15' is no MAC address"),
        ({"next_hop_mac": "ff-ff-ff-ff-ff-ff"}, "is a group's"),
    ):
        with pytest.raises(BadInput, match=said):
            lab.run("blue1", "blue2", **fields)
    with pytest.raises(BadInput, match="--receiver 'blue9': memory has no such VM: one of blue1"):
        lab.run("blue1", "blue9", receiver_ip="10.0.0.9")
    for host in lab.hosts.values():
        assert not host.worker.tests.running


def test_a_test_that_nobody_ends_ends_by_itself(lab: MemoryLab) -> None:
    host = lab.hosts[2]
    end = {
        "port": "blue2",
        "local": ip(v4("blue2")),
        "remote": ip(v4("blue1")),
        "sends": False,
        "sequence": 1,
    }
    number = host.ask("test-adapter", end=end, size=0, timeout=0.05)["test"]
    assert host.worker.tests.running
    loop = host.agent._loop
    loop.call_later(0.1, loop.stop)
    loop.run_forever()
    assert not host.worker.tests.running
    with pytest.raises(BadInput, match="its time is over"):
        host.ask("test-adapter-state", test=number)
