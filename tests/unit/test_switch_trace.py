"""A trace says what the switch then does, byte for byte, and changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.accounting import CONFIGS, Config
from support.extensions import Probe
from support.frames import BROADCAST, TCP, arp, encapsulated, ethernet, ip, ipv4, ports, vnet
from support.random_frames import broken, tenant_frames, wire_frames
from support.switch import PLAIN, MemorySwitch, MemoryUplink, gateway_mac, mac_of, nic_mac, pa, policy, v4
from support.vm_packets import from_ipv4, from_ipv6
from testbed.host.team.worker import WorkerTeam
from testbed.nic.offloads import Offloads
from testbed.switch.pipeline import Pipeline
from testbed.switch.trace import trace
from testbed.switch.uplink import Uplink
from testbed.teaming import flowlets
from testbed.topology.plan import TeamPlan

TRACED = [config for config in CONFIGS if config.extensions == "none"]  # a dry run asks no extension


@pytest.fixture(scope="module", params=TRACED, ids=str)
def config(request: pytest.FixtureRequest) -> Config:
    found: Config = request.param
    return found


def traced(switch: MemorySwitch, source: str, frame: bytes, header: bytes = PLAIN) -> dict[str, Any]:
    """A trace of a packet from a port or from a NIC."""
    state = switch.state
    at = state.ports.get(source) or state.uplinks[source]
    pipeline = switch.datapath.pipeline
    assert isinstance(pipeline, Pipeline)
    return trace(switch.datapath, pipeline, switch.wnv, switch.stack, at, frame, header)


def everything(switch: MemorySwitch) -> list[Any]:
    """All that a packet may change in a switch."""
    state, flows = switch.state, switch.flowlets
    return [
        dict(switch.datapath.drops),
        [port.counters() for port in state.ports.values()],
        [uplink.counters() for uplink in state.uplinks.values()],
        [dict(each.flows) for each in state.ports.values()],
        [dict(each.flows) for each in state.uplinks.values()],
        list(state.events._events),
        state.events,
        list(switch.claims),
        dict(switch.learning.exchanges.open),
        getattr(switch.wnv, "learning", None),
        {key: list(held) for key, held in switch.datapath.held.items()},
        list(switch.unresolved),
        dict(state.neighbors),
        switch.wnv.tables,
        bytes(switch.datapath._buffer.data[:2048]),
        [(bucket.uplink, bucket.last, bucket.bytes) for bucket in flows._buckets],
        [(load.uplink, load._sent, load._seen, load._when) for load in flows._loads],
        (flows.moved, flows.rebalanced),
        [list(uplink.sent) for uplink in state.uplinks.values() if isinstance(uplink, MemoryUplink)],
    ]


def foretold(found: dict[str, Any], source: str) -> tuple[Any, ...]:
    """What a trace says that will leave: frames to the wire, to ports, drops."""
    wire: list[bytes] = []
    to_ports: dict[str, list[bytes]] = {}
    lost: Counter[str] = Counter()
    for copy in found["copies"]:
        if copy["to"] == "wire":
            wire.append(copy["frame"])
        elif copy["to"] == "port":
            to_ports.setdefault(copy["port"], []).append(copy["frame"])
        elif copy["to"] == "sender":
            to_ports.setdefault(source, []).append(copy["frame"])
        elif copy["to"] == "nobody":
            lost[copy["reason"]] += 1
    return sorted(wire), {name: sorted(frames) for name, frames in to_ports.items()}, lost


def done(switch: MemorySwitch, source: str, frame: bytes, header: bytes = PLAIN) -> tuple[Any, ...]:
    """What the switch does with the packet."""
    from_vm = source in switch.state.ports
    seen = switch.from_vm(source, frame, header) if from_vm else switch.from_wire(frame, header)
    lost: Counter[str] = Counter()
    for (_, reason), count in seen.drops.items():
        lost[str(reason)] += count
    to_ports = {name: sorted(data for _, data in packets) for name, packets in seen.ports.items()}
    return sorted(data for _, data in seen.wire), to_ports, lost


def same(switch: MemorySwitch, source: str, frame: bytes, header: bytes = PLAIN) -> dict[str, Any]:
    """Trace a packet, then send it: nothing has changed between, and it comes out as foretold."""
    before = everything(switch)
    found = traced(switch, source, frame, header)
    assert everything(switch) == before
    waiting = [copy["next_hop"] for copy in found["copies"] if copy["to"] == "waiting"]
    held = sum(copies for each in switch.datapath.held.values() for _, copies, _, _ in each)
    assert foretold(found, source) == done(switch, source, frame, header)
    now = sum(copies for each in switch.datapath.held.values() for _, copies, _, _ in each)
    assert now - held == len(waiting)
    return found


# ---- it says what the switch does -----------------------------------------------------------


@pytest.fixture(scope="module")
def made(config: Config) -> Iterator[MemorySwitch]:
    with config.made() as switch:
        yield switch


@settings(max_examples=80, deadline=None)
@given(source=st.sampled_from(["blue1", "web1", "red1", "blue4"]), data=st.data())
def test_of_what_vms_send(made: MemorySwitch, source: str, data: st.DataObject) -> None:
    frames = tenant_frames(source)
    frame = data.draw(frames | broken(frames).filter(lambda each: len(each) >= 14))
    same(made, source, frame)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_of_what_comes_from_the_wire(made: MemorySwitch, config: Config, data: st.DataObject) -> None:
    frames = wire_frames(config.version)
    frame = data.draw(frames | broken(frames).filter(lambda each: len(each) >= 14))
    same(made, "nic1", frame)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_while_a_neighbor_is_unresolved_and_another_has_no_route(data: st.DataObject) -> None:
    with MemorySwitch() as switch:
        switch.state.neighbors.clear()
        for _ in range(4):
            same(switch, "blue1", data.draw(tenant_frames("blue1")))


@settings(max_examples=60, deadline=None)
@given(source=st.sampled_from(["plain1", "plain2"]), data=st.data())
def test_outside_virtual_subnets(source: str, data: st.DataObject) -> None:
    with MemorySwitch(plain_ports=("plain1", "plain2")) as switch:
        own = switch.state.ports[source].mac
        frame = data.draw(tenant_frames("blue1"))
        same(switch, source, frame[:6] + own + frame[12:])
        same(switch, "nic1", own + frame[6:])


def test_of_super_packets_and_of_nics_that_cut_them_not() -> None:
    payload = ports(1000, 80) + b"\0" * 8 + b"\x50\x10" + bytes(6) + bytes(4000)
    frame = ethernet(mac_of("blue2"), mac_of("blue1"), 0x0800, ipv4(v4("blue1"), v4("blue2"), TCP, payload))
    for off in ({}, {"nvgre": False}):
        for size in (1400, 1500):
            with MemorySwitch() as switch:
                switch.nic.offloads = Offloads().changed({"rx-checksum": False, **off})
                found = traced(switch, "blue1", frame, vnet(34, 16, gso_type=1, gso_size=size, header=54))
                nic = [each for each in found["stages"] if each["stage"] == "nic"]
                if size == 1500:
                    assert found["stages"][-1]["reason"] == "oversize"
                    assert found["stages"][-1]["details"]["sender_is_told"]
                    assert nic == []
                    continue
                who = "the switch" if off else "the NIC"
                assert nic[0]["details"]["segmentation"] == f"by {who}, into 3 frames"
                assert nic[0]["details"]["frames"] == (3 if off else 1)


@pytest.mark.parametrize("algorithm", ["Dynamic", "HyperVPort", "TransportPorts"])
def test_which_member_of_a_team(monkeypatch: pytest.MonkeyPatch, algorithm: str) -> None:
    monkeypatch.setattr(flowlets, "_monotonic", lambda: 100.0)
    with MemorySwitch(bound=False) as switch:
        other = MemoryUplink("nic2", nic_mac(9))
        switch.state.uplinks["nic2"] = other
        team = WorkerTeam(switch.state, switch.flowlets)
        team.configure(TeamPlan("nic1", algorithm=algorithm))  # type: ignore[arg-type]
        members = set()
        for failed in ((), ("nic1",), ("nic2",)):
            team.set_state(failed, None)
            for number in range(40):
                frame = from_ipv4("blue1", v4("blue2"), mac_of("blue2"), TCP, ports(number, 80) + bytes(300))
                before = everything(switch)
                found = traced(switch, "blue1", frame)
                assert everything(switch) == before
                stage = next(each for each in found["stages"] if each["stage"] == "team")
                copy = next(each for each in found["copies"] if each["to"] == "wire")
                sent = [("nic1", data) for _, data in switch.from_vm("blue1", frame).wire]
                sent += [("nic2", data) for _, data in other.sent]
                other.sent = []
                assert sent == [(copy["nic"], copy["frame"])]
                assert stage["details"]["member"] == copy["nic"]
                assert stage["details"]["source_mac"] == copy["frame"][6:12].hex(":")
                members.add(copy["nic"])
        assert members == {"nic1", "nic2"}
        other.close()


# ---- it says why ------------------------------------------------------------------------------


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    with MemorySwitch() as found:
        yield found


def wnv_of(found: dict[str, Any]) -> dict[str, Any]:
    stage: dict[str, Any] = next(each for each in found["stages"] if each["stage"] == "wnv")
    return stage


def test_the_route_and_the_record_that_match(switch: MemorySwitch) -> None:
    found = same(switch, "blue1", from_ipv4("blue1", v4("web2"), gateway_mac(5001)))
    details = wnv_of(found)["details"]
    assert details["route"] == {
        "prefix": "10.0.1.0/24",
        "metric": 255,
        "next_hop": "on-link",
        "vsid": 5002,
    }
    assert details["record"]["customer_address"] == v4("web2")
    (tunnel,) = details["tunnels"]
    assert (tunnel["source_pa"], tunnel["destination_pa"]) == (pa(1, 5001), pa(2, 5002))
    assert (tunnel["next_hop_mac"], tunnel["vsid"]) == (nic_mac(2).hex(":"), 5002)
    assert details["rewrite"] == {
        "destination_mac": mac_of("web2").hex(":"),
        "source_mac": gateway_mac(5002).hex(":"),
    }
    outer = next(each["outer"] for each in found["copies"] if each["to"] == "wire")
    assert (outer["source_pa"], outer["destination_mac"]) == (pa(1, 5001), nic_mac(2).hex(":"))


def test_an_answer_says_for_whom_and_with_which_mac(switch: MemorySwitch) -> None:
    for target, who, mac in (
        (v4("blue2"), "the record's VM", mac_of("blue2")),
        ("10.0.0.1", "the default gateway", gateway_mac(5001)),
    ):
        frame = arp(1, (mac_of("blue1"), v4("blue1")), (bytes(6), target), BROADCAST)
        stage = wnv_of(same(switch, "blue1", frame))
        assert stage["verdict"] == "reply"
        assert stage["details"]["answered_for"] == who
        assert stage["details"]["answered_with"] == mac.hex(":")


def test_what_is_unresolved_would_wait(switch: MemorySwitch) -> None:
    del switch.state.neighbors[ip(pa(2, 5001))]
    found = same(switch, "blue1", from_ipv4("blue1", v4("blue2"), mac_of("blue2")))
    stage = wnv_of(found)
    assert (stage["verdict"], stage["details"]["would_wait_for"][0]["next_hop_mac"]) == ("hold", "unresolved")
    assert found["copies"] == [{"to": "waiting", "next_hop": pa(2, 5001)}]


def test_drops_are_named(switch: MemorySwitch) -> None:
    for destination, reason in (
        ("10.0.0.99", "no-lookup-record"),
        ("172.16.0.1", "no-customer-route"),
        ("10.0.0.1", "gateway-address"),
    ):
        stage = wnv_of(same(switch, "blue1", from_ipv4("blue1", destination, gateway_mac(5001))))
        assert (stage["verdict"], stage["reason"]) == ("drop", reason)
    assert same(switch, "blue1", b"\xff" * 12 + b"\x81\0")["copies"] == [
        {"to": "nobody", "stage": "port", "reason": "malformed"}
    ]


def test_too_long_a_packet_is_told_of(switch: MemorySwitch) -> None:
    frame = from_ipv4("blue1", v4("blue2"), mac_of("blue2"), payload=ports(1, 2) + bytes(1480))
    found = same(switch, "blue1", frame)
    last = found["stages"][-1]
    assert (last["stage"], last["reason"]) == ("wnv", "oversize")
    assert last["details"] == {
        "object": "blue1",
        "vsid": 5001,
        "length": len(frame) - 14 + 42,
        "mtu": 1500,
        "sender_is_told": True,
    }


def test_a_flood_is_a_copy_to_each_host(switch: MemorySwitch) -> None:
    frame = from_ipv6("blue1", "ff02::1:3", b"\x33\x33\0\1\0\3")
    found = same(switch, "blue1", frame)
    assert wnv_of(found)["details"]["flooded"].startswith("source replication")
    assert [each["port"] for each in found["copies"] if each["to"] == "port"] == ["blue4"]
    assert len([each for each in found["copies"] if each["to"] == "wire"]) == 2


def test_an_unknown_sender_is_a_policy_mismatch_and_no_event(switch: MemorySwitch) -> None:
    inner = from_ipv4("blue2", v4("blue1"), mac_of("blue1"))
    frame = encapsulated(inner, 5001, "192.168.9.9", pa(1, 5001), nic_mac(1))
    before = everything(switch)
    stage = wnv_of(traced(switch, "nic1", frame))
    assert (stage["reason"], stage["details"]["sender_is_known"]) == ("policy-mismatch", False)
    assert everything(switch) == before


def test_what_a_vm_claims_is_not_learned(switch: MemorySwitch) -> None:
    switch.apply(policy(lookup_records=()))
    before = everything(switch)
    traced(switch, "blue1", arp(1, (mac_of("blue1"), "10.0.0.77"), (bytes(6), "10.0.0.77"), BROADCAST))
    assert everything(switch) == before
    assert switch.claims == []


def test_extensions_are_not_asked_and_this_is_said() -> None:
    spy = Probe("spy")
    with MemorySwitch(extensions=[spy]) as switch:
        found = traced(switch, "blue1", from_ipv4("blue1", v4("blue2"), mac_of("blue2")))
        said = [each["reason"] for each in found["stages"] if each["stage"] == "port-extensions"]
        assert said == ["extension spy: not asked in a dry run"]
        assert spy.seen == []


def test_a_nic_of_the_real_switch_is_not_touched(switch: MemorySwitch) -> None:
    assert isinstance(switch.nic, Uplink)
    traced(switch, "blue1", from_ipv4("blue1", v4("blue2"), mac_of("blue2")))
    assert switch.nic.sent == []
