"""Control and worker of one host together: policy changes, ports, plans, questions."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest

from support.frames import UDP, ethernet, ip, ipv4, ports
from support.host import MemoryHost, memory_host, plan
from support.switch import BLUE, PLAIN, gateway_mac, mac_of, nic_mac, pa, policy, v4
from testbed.errors import BadInput
from testbed.switch.pipeline import PIPELINES
from testbed.topology.plan import ExtensionPlan, HostPolicy, LookupRecord

BLUE2 = {"customer_address": v4("blue2"), "virtual_subnet_id": 5001}
NEW = {
    "customer_address": "10.0.0.77",
    "virtual_subnet_id": 5001,
    "mac_address": "00-15-5D-00-00-77",
    "provider_address": pa(2, 5001),
}


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryHost]:
    """A host without a plan."""
    with memory_host(monkeypatch) as host:
        yield host


@pytest.fixture
def host(empty: MemoryHost) -> MemoryHost:
    """Host 1 with its plan, its PAs preferred, and the VM blue1."""
    empty.configure(plan())
    empty.space.settle()
    empty.plug("blue1", mac_of("blue1"), 5001)
    for other in (2, 3):
        empty.agent._link.order("neighbor", next_hop=ip(pa(other, 5001)), mac=nic_mac(other))
    return empty


def datagram(destination: str) -> bytes:
    payload = ipv4(v4("blue1"), destination, UDP, ports(1000, 2000) + b"\0\x08\0\0")
    return ethernet(gateway_mac(5001), mac_of("blue1"), 0x0800, payload)


def sent_to(host: MemoryHost, destination: str) -> list[str]:
    """PAs to which a datagram of blue1 goes."""
    nic = host.worker.state.uplinks["nic1"]
    before = len(nic.sent)  # type: ignore[attr-defined]
    host.vms["blue1"].send(PLAIN + datagram(destination))
    host.seen_from_vms()
    frames = [frame for _, frame in nic.sent[before:]]  # type: ignore[attr-defined]
    return [".".join(map(str, frame[30:34])) for frame in frames]


# ---- changes ------------------------------------------------------------------------------


def test_a_removed_record_stops_a_cached_flow_at_once_and_an_added_one_starts_it(host: MemoryHost) -> None:
    assert sent_to(host, v4("blue2")) == sent_to(host, v4("blue2")) == [pa(2, 5001)]
    done = host.policy("remove", fields=BLUE2)["changes"]
    assert [(each["old"]["customer_address"], each["new"]) for each in done] == [(v4("blue2"), None)]
    assert sent_to(host, v4("blue2")) == []
    host.policy("add", fields=done[0]["old"])
    assert sent_to(host, v4("blue2")) == [pa(2, 5001)]


def test_a_set_record_moves_a_cached_flow(host: MemoryHost) -> None:
    assert sent_to(host, v4("blue2")) == [pa(2, 5001)]
    host.policy("set", fields={**BLUE2, "provider_address": pa(3, 5001)})
    assert sent_to(host, v4("blue2")) == [pa(3, 5001)]


def test_the_same_worker_tables_take_the_difference_only(host: MemoryHost) -> None:
    before = host.worker.wnv.tables
    host.policy("add", fields=NEW)
    assert host.worker.wnv.tables is before


def test_a_check_changes_nothing(host: MemoryHost) -> None:
    before = host.policy("list")
    assert len(host.policy("add", fields=NEW, check=True)["changes"]) == 1
    assert host.policy("list") == before
    assert sent_to(host, "10.0.0.77") == []


@pytest.mark.parametrize(
    "fields",
    [
        {**NEW, "virtual_subnet_id": 4095},
        {**NEW, "virtual_subnet_id": 0xFFFFFF},
        {**NEW, "mac_address": "nonsense"},
        {**NEW, "customer_address": v4("blue2")},  # there is one, with another MAC
        {key: value for key, value in NEW.items() if key != "provider_address"},
    ],
)
def test_what_is_refused_changes_nothing(host: MemoryHost, fields: dict[str, object]) -> None:
    before = host.policy("list")
    with pytest.raises(BadInput):
        host.policy("add", fields=fields)
    assert host.policy("list") == before
    assert sent_to(host, v4("blue2")) == [pa(2, 5001)]


def test_undo_takes_back_several_changes(host: MemoryHost) -> None:
    before = host.policy("list")["objects"]
    done = host.policy("remove", fields={"virtual_subnet_id": 5001})["changes"]
    assert len(done) > 2
    assert sent_to(host, v4("blue2")) == []
    host.ask("policy", verb="undo", changes=done)
    after = host.policy("list")["objects"]
    key = lambda each: (each["virtual_subnet_id"], each["customer_address"])  # noqa: E731
    assert sorted(after, key=key) == sorted(before, key=key)
    assert sent_to(host, v4("blue2")) == [pa(2, 5001)]


def test_an_unknown_verb_or_kind_is_refused(host: MemoryHost) -> None:
    with pytest.raises(BadInput, match="unknown verb 'grow'"):
        host.policy("grow")
    with pytest.raises(BadInput, match="lookup-records"):
        host.policy("list", "lookups")
    with pytest.raises(BadInput, match="unknown request 'nothing'"):
        host.ask("nothing")


def test_a_change_among_ten_thousand_records_takes_few_milliseconds(empty: MemoryHost) -> None:
    many = tuple(
        LookupRecord(f"10.1.{n >> 8}.{n & 255}", 5001, f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}", pa(2, 5001))
        for n in range(10_000)
    )
    empty.configure(plan(policy(1, lookup_records=many)))
    empty.space.settle()
    taken = []
    for n in range(20):
        fields = {"customer_address": f"10.1.0.{n}", "virtual_subnet_id": 5001}
        began = time.perf_counter()
        empty.policy("set", fields={**fields, "provider_address": pa(3, 5001)})
        taken.append(time.perf_counter() - began)
    assert sorted(taken)[10] < 0.005, taken


# ---- lists --------------------------------------------------------------------------------


def test_provider_addresses_tell_their_state(empty: MemoryHost) -> None:
    empty.configure(plan())

    def states() -> set[str]:
        return {each["address_state"] for each in empty.policy("list", "provider-addresses")["objects"]}

    assert states() == {"Tentative"}
    empty.space.settle()
    assert states() == {"Preferred"}


def test_a_new_provider_address_is_tentative_and_not_used_before_it_is_preferred(host: MemoryHost) -> None:
    host.policy("remove", "provider-addresses", fields={"virtual_subnet_id": 5001})
    assert sent_to(host, v4("blue2")) == []
    fields = {"provider_address": "192.168.1.50", "prefix_length": 16, "virtual_subnet_id": 5001}
    host.policy("add", "provider-addresses", fields=fields)
    assert host.space.states()["192.168.1.50"] == "Tentative"
    assert sent_to(host, v4("blue2")) == []
    host.space.settle()
    assert sent_to(host, v4("blue2")) == [pa(2, 5001)]
    host.policy("remove", "provider-addresses", fields={"provider_address": "192.168.1.50"})
    host.policy("add", "provider-addresses", fields=fields)  # the same one is to be probed for again
    assert sent_to(host, v4("blue2")) == []


def test_records_tell_whether_they_are_unusable_and_unsynchronized(host: MemoryHost) -> None:
    def told() -> dict[str, tuple[bool, bool]]:
        return {
            each["customer_address"]: (each["unusable"], each["unsynchronized"])
            for each in host.policy("list")["objects"]
            if each["virtual_subnet_id"] == 5001
        }

    assert set(told().values()) == {(False, False)}
    host.policy("add", fields={**NEW, "provider_address": "172.16.0.1"})
    assert told()["10.0.0.77"] == (True, True)  # no provider route leads there
    host.policy(
        "add", "provider-routes", fields={"destination_prefix": "172.16.0.0/12", "next_hop": pa(2, 5001)}
    )
    assert told()["10.0.0.77"] == (False, True)
    host.policy("remove", fields={"customer_address": "10.0.0.77"})
    host.policy("set", fields={**BLUE2, "provider_address": pa(3, 5001)})
    assert told()[v4("blue2")] == (False, True)
    host.policy("set", fields={**BLUE2, "provider_address": pa(2, 5001)})
    assert told()[v4("blue2")] == (False, False)
    host.policy(
        "add",
        "provider-addresses",
        fields={"provider_address": "192.168.9.9", "prefix_length": 16, "virtual_subnet_id": 5002},
    )
    host.policy("add", fields={**NEW, "provider_address": "192.168.9.9"})
    assert told()["10.0.0.77"] == (True, True)  # this host's own, and tentative


def test_a_plan_takes_back_what_was_changed_by_hand(host: MemoryHost) -> None:
    before = host.policy("list")
    assert host.ask("policy", verb="networks")["planned"] is True
    host.policy("remove", fields=BLUE2)
    host.policy("add", fields=NEW)
    known = host.ask("policy", verb="networks")
    assert known["planned"] is False
    assert known["vsids"] == [5001, 5002, 6001]
    assert BLUE in known["rdids"]
    host.configure(plan())
    assert host.policy("list") == before
    assert sent_to(host, v4("blue2")) == [pa(2, 5001)]


# ---- groups -------------------------------------------------------------------------------


def test_groups_of_the_vsids_with_ports_are_joined(host: MemoryHost) -> None:
    group = {"mac_address": "ff:ff:ff:ff:ff:ff", "customer_address": "255.255.255.255"}
    assert host.space.groups == set()
    host.policy("add", fields={**group, "virtual_subnet_id": 5001, "provider_address": "239.0.0.1"})
    host.policy("add", fields={**group, "virtual_subnet_id": 5002, "provider_address": "239.0.0.2"})
    assert host.space.groups == {"239.0.0.1"}
    host.ask("set-port", name="blue1", vsid=5002)
    assert host.space.groups == {"239.0.0.2"}
    host.ask("detach-port", name="blue1")
    assert host.space.groups == set()
    host.plug("blue1", mac_of("blue1"), 5001)
    assert host.space.groups == {"239.0.0.1"}
    host.policy("remove", fields={"customer_address": "255.255.255.255"})
    assert host.space.groups == set()


# ---- ports --------------------------------------------------------------------------------


def test_a_port_in_another_virtual_subnet(host: MemoryHost) -> None:
    assert sent_to(host, v4("blue2")) == [pa(2, 5001)]
    answer = host.ask("set-port", name="blue1", vsid=6001)
    assert (answer["before"], answer["port"]["vsid"]) == (5001, 6001)
    host.agent._link.order("neighbor", next_hop=ip(pa(2, 6001)), mac=nic_mac(2))
    assert sent_to(host, v4("red2")) == [pa(2, 6001)]  # the same address as blue2's, red's network
    assert host.worker.state.port_with_mac(5001, mac_of("blue1")) is None
    assert host.ask("status")["ports"][0]["vsid"] == 6001
    vsids = {
        each["object"]: each["fields"] for each in host.ask("counters")["counters"] if each["kind"] == "vsid"
    }
    assert (vsids["5001"]["from_vm_packets"], vsids["6001"]["from_vm_packets"]) == (1, 1)
    assert host.ask("set-port", name="blue1", vsid=0)["before"] == 6001


@pytest.mark.parametrize(
    ("name", "vsid"), [("blue9", 5001), ("blue1", 4095), ("blue1", 0xFFFFFF), ("blue1", -1)]
)
def test_a_port_is_not_put_anywhere(host: MemoryHost, name: str, vsid: int) -> None:
    with pytest.raises(BadInput, match=r"blue1|4096 to 16777214"):
        host.ask("set-port", name=name, vsid=vsid)
    assert host.ask("status")["ports"][0]["vsid"] == 5001


# ---- questions ----------------------------------------------------------------------------


def test_the_next_hop_is_what_the_tables_say(host: MemoryHost) -> None:
    found = host.ask("select-next-hop", destination_ca=v4("blue2"), vsid=5001)["next_hop"]
    assert found["next_hop_mac_address"] == mac_of("blue2").hex(":")
    host.policy("remove", fields=BLUE2)
    with pytest.raises(BadInput, match="no-lookup-record"):
        host.ask("select-next-hop", destination_ca=v4("blue2"), vsid=5001)


def test_events_of_control_and_worker_in_one_sequence(host: MemoryHost) -> None:
    following = host.ask("events", after=None)["next"]
    host.policy("remove", fields=BLUE2)
    host.worker.state.events.add("policy-mismatch", "nic1", vsid=9999)
    host.ask("set-port", name="blue1", vsid=5002)
    told = host.ask("events", after=following)
    assert [each["kind"] for each in told["events"]] == ["policy-change", "policy-mismatch", "port-change"]
    assert {each["host"] for each in told["events"]} == {"host1"}
    removed = told["events"][0]["fields"]
    assert (removed["removed"], removed["old"]["customer_address"], removed["new"]) == (1, v4("blue2"), None)
    numbers = [each["sequence"] for each in told["events"]]
    assert numbers == [following + 1, following + 2, following + 3]
    assert host.ask("events", after=told["next"])["events"] == []
    assert host.ask("events")["lost"] == 0


def test_events_that_the_worker_had_to_forget_are_told_as_lost(host: MemoryHost) -> None:
    following = host.ask("events")["next"]
    for _ in range(1030):
        host.worker.state.events.add("policy-mismatch", "nic1")
    told = host.ask("events", after=following)
    assert (told["lost"], len(told["events"])) == (6, 1024)


# ---- plans --------------------------------------------------------------------------------


def test_mode_and_extensions_are_taken_over_by_a_running_host(host: MemoryHost) -> None:
    worker = host.worker
    first = worker.datapath.pipeline
    host.configure(plan())
    assert worker.datapath.pipeline is first  # nothing of it has changed
    assert worker.datapath.inspects is False
    host.configure(plan(wnv="below-switch", extensions=(ExtensionPlan("acl"),), flow_entropy=False))
    assert [stage.name for stage in worker.datapath.pipeline.stages] == [*PIPELINES["below-switch"]]
    assert worker.datapath.inspects is True
    assert [each.name for each in worker.stack.extensions] == ["acl"]
    assert worker.stack.extensions[0].ports.keys() == {"blue1"}
    status = host.ask("status")
    assert (status["wnv"], status["flow_entropy"], status["extensions"]) == ("below-switch", False, ["acl"])
    host.configure(plan())
    assert sent_to(host, v4("blue2")) == [pa(2, 5001)]


def test_a_plan_with_an_extension_that_cannot_be_made_changes_nothing(host: MemoryHost) -> None:
    first = host.worker.datapath.pipeline
    bad = plan(HostPolicy(), extensions=(ExtensionPlan("acl", {"no": "such"}),), wnv="below-switch")
    with pytest.raises(BadInput, match="acl"):
        host.configure(bad)
    assert host.worker.datapath.pipeline is first
    assert host.ask("status")["wnv"] == "in-switch"
    assert sent_to(host, v4("blue2")) == [pa(2, 5001)]


def test_a_nic_with_another_binding_is_opened_anew(host: MemoryHost) -> None:
    assert host.worker.state.uplinks["nic1"].wnv_binding is False
    space = host.space
    nic = msgspec.structs.replace(plan().nics[0], wnv_binding=True, mtu=9000)
    host.configure(plan(nics=(nic,)))
    uplink = host.worker.state.uplinks["nic1"]
    assert (uplink.wnv_binding, uplink.mtu) == (True, 9000)
    assert space.closed
    assert host.space is not space


def test_an_extension_is_asked(host: MemoryHost) -> None:
    host.configure(plan(extensions=(ExtensionPlan("acl"),)))
    assert host.ask("extension", name="acl")["result"] is not None
    with pytest.raises(BadInput, match="acl"):
        host.ask("extension", name="nothing")
    assert "acl" in [
        each["object"] for each in host.ask("counters")["counters"] if each["kind"] == "extension"
    ]
