"""What a picture shows of a Plan and of a running lab."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from support import graphs
from testbed.graph import text
from testbed.graph.build import build
from testbed.graph.model import CableState, Graph, Thing, worst
from testbed.nic.faults import Faults


def thing(graph: Graph, kind: str, name: str) -> Thing:
    (found,) = [each for each in graph.things() if (each.kind, each.name) == (kind, name)]
    return found


def test_everything_of_a_plan_is_there_once() -> None:
    plan = graphs.plan("4host")
    graph = build(plan)
    kinds = [each.kind for each in graph.things()]
    counts = {kind: kinds.count(kind) for kind in set(kinds)}
    assert counts == {
        "switch": 2,
        "VMM": 1,
        "host": 4,
        "NIC": 8,
        "team": 4,
        "VM": 8,
        "cable": 8,
        "trunk": 1,
    }
    assert [subnet.vsid for subnet in graph.subnets] == [5001, 5002, 6001]
    assert {each.state for each in graph.things()} == {"plain"}
    assert graph.engine == ""


@pytest.mark.parametrize("name", ["2host", "4host", "team", "dhcp", "cluster"])
def test_references_lead_somewhere(name: str) -> None:
    graph = build(graphs.plan(name))
    ids = [each.id for each in graph.things()]
    assert len(set(ids)) == len(ids)
    assert {other for each in graph.things() for other in each.related} <= {*ids}
    nics = {nic.id: nic for host in graph.hosts for nic in host.nics}
    for cable in graph.cables:
        assert cable.id in nics[cable.nic].related
        assert cable.name.startswith(nics[cable.nic].name)


def test_the_faults_of_a_file_are_shown() -> None:
    graph = build(graphs.plan("team", rate="200mbit"))
    assert {cable.state for cable in graph.cables} == {"warn"}
    assert thing(graph, "NIC", "host1:nic1").notes == ("\N{UPWARDS ARROW} rate=200mbit",)
    assert build(graphs.plan("team", standby="nic2")).hosts[0].nics[1].notes == ("standby",)


def test_a_lab_without_faults_is_good() -> None:
    plan = graphs.plan("team")
    graph = build(plan, graphs.live(plan))
    states = {each.kind: each.state for each in graph.things()}
    assert {kind for kind, state in states.items() if state == "good"} == {*states} - {"switch"}
    assert "running, engine namespaces, ready" in graph.summary


def test_a_cable_without_carrier() -> None:
    plan = graphs.plan("team")
    down = CableState(False, {"to-host": Faults(), "from-host": Faults(rate=10**8)})
    members = [
        {"name": "nic1", "state": "Failed", "fault": "no-carrier"},
        {"name": "nic2", "state": "Active", "fault": ""},
    ]
    graph = build(plan, graphs.live(plan, cables={"host1:nic1": down}, members={"host1": members}))
    cable = thing(graph, "cable", "host1:nic1 - tor1")
    assert cable.state == "bad"
    assert cable.notes == ("link down", "\N{UPWARDS ARROW} rate=100mbit")
    assert ("carrier", "down") in cable.details
    nic = thing(graph, "NIC", "host1:nic1")
    assert (nic.state, nic.notes[0]) == ("bad", "failed: no-carrier")
    assert thing(graph, "team", "team of host1").state == "warn"
    assert thing(graph, "team", "team of host2").state == "good"


@pytest.mark.parametrize(
    ("faults", "state", "notes"),
    [
        ((Faults(), Faults()), "good", ()),
        ((Faults(loss=0.01), Faults(loss=0.01)), "warn", ("\N{UP DOWN ARROW} loss=1%",)),
        (
            (Faults(loss=0.01), Faults(delay=0.005)),
            "warn",
            ("\N{DOWNWARDS ARROW} loss=1%", "\N{UPWARDS ARROW} delay=5ms"),
        ),
        ((Faults(black_hole=True), Faults()), "bad", ("\N{DOWNWARDS ARROW} black-hole=on",)),
    ],
)
def test_what_a_cable_does_to_frames(
    faults: tuple[Faults, Faults], state: str, notes: tuple[str, ...]
) -> None:
    plan = graphs.plan("2host")
    now = CableState(True, dict(zip(("to-host", "from-host"), faults, strict=True)))
    cable = build(plan, graphs.live(plan, cables={"host1:nic1": now})).cables[0]
    assert (cable.state, cable.notes) == (state, notes)


@pytest.mark.parametrize(
    ("told", "state", "note"),
    [
        ({"error": "host1 has ended"}, "bad", "not running"),
        ({"vmm": {"connected": False, "revision": 1}}, "warn", "VMM away"),
        (
            {"provider_address_states": [{"address": "192.168.0.1", "vsid": 5001, "state": "Duplicate"}]},
            "warn",
            "PA duplicate",
        ),
    ],
)
def test_what_ails_a_host(told: dict[str, Any], state: str, note: str) -> None:
    plan = graphs.plan("2host")
    host = build(plan, graphs.live(plan, hosts={"host1": told})).hosts[0]
    assert (host.state, host.notes) == (state, (note,))


def test_a_host_that_does_not_answer_says_nothing_of_its_cables() -> None:
    plan = graphs.plan("2host")
    graph = build(
        plan,
        graphs.live(plan, cables={"host1:nic1": CableState(False, {})}, members={"host1": []}),
    )
    assert dict(graph.cables[0].details)["to-host"] == "unknown: the host does not answer"
    assert graph.hosts[0].nics[0].notes == ("link down",)


def test_a_vm_shows_its_addresses_of_now() -> None:
    plan = graphs.plan("2host")
    now = [{"interface": "eth0", "vsid": 6001, "addresses": ["10.9.9.9"]}]
    vms = {"blue1": now, "blue2": [{"error": "gone"}]}
    graph = build(plan, graphs.live(plan, vms=vms))
    moved, gone = (vm for host in graph.hosts for vm in host.vms if vm.name in vms)
    assert [(each.vsid, each.address, each.more) for each in moved.adapters] == [(6001, "10.9.9.9", 0)]
    assert moved.vsids == (6001,)
    assert (gone.state, gone.notes) == ("bad", ("not running",))
    assert ("error", "gone") in gone.details


def test_the_worst_state_counts() -> None:
    assert worst([]) == "plain"
    assert worst(["good", "bad", "warn"]) == "bad"


def test_the_model_is_plain_data() -> None:
    graph = build(graphs.plan("4host"))
    assert msgspec.json.decode(msgspec.json.encode(graph), type=Graph).hosts[3].name == "host4"


def test_text_tells_the_same() -> None:
    plan = graphs.plan("team")
    down = CableState(False, {})
    found = [*text.lines(build(plan, graphs.live(plan, cables={"host2:nic2": down})))]
    assert ("  nic2 -- tor1:p4 (active, link down)", "bad") in found
    assert ("  VM blue1: VSID 5001, 10.0.0.5 and 1 more", "good") in found
    assert sum(state == "bad" for _, state in found) == 1
