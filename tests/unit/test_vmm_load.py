"""A store that was filled from a Plan gives each host just the policy that the Plan gives it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from support.vmm import contents, plan_4host
from testbed.topology.plan import HostPolicy, Plan, ProviderRoute
from testbed.topology.planner import build
from testbed.topology.schema import Topology
from testbed.vmm.distribution import policy_json
from testbed.vmm.model import NewVm
from testbed.vmm.refusals import Conflict, Refused
from testbed.vmm.rules import placement
from testbed.vmm.rules.load import load
from testbed.vmm.store.database import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "vmm.sqlite")
    yield made
    made.close()


def rich() -> Plan:
    """Gateway VM, L2Only, PA groups, a network without VMs, VSID 0, a PA route."""
    topology = {
        "name": "rich",
        "networks": [
            {
                "name": "blue",
                "subnets": [
                    {"vsid": 5001, "prefixes": ["10.0.0.0/24", "fd00::/64"], "multicast": "239.1.1.1"},
                    {"vsid": 5002, "prefixes": ["10.0.1.0/24"], "gateways": ["10.0.1.254"]},
                ],
            },
            {"name": "empty", "subnets": [{"vsid": 7001, "prefixes": ["10.0.0.0/24"]}]},
        ],
        "hosts": [{"name": f"h{n}", "nics": [{"name": "nic1"}]} for n in (1, 2, 3)],
        "vms": [
            {
                "name": "gw",
                "host": "h1",
                "vnics": [{"vsid": 5002, "addresses": ["10.0.1.2"], "gateway": True}],
            },
            {
                "name": "quiet",
                "host": "h2",
                "vnics": [{"vsid": 5001}, {"vsid": 0, "addresses": ["172.16.0.1/24"]}],
            },
            {"name": "known", "host": "h2", "vnics": [{"vsid": 5001, "addresses": ["fd00::5", "10.0.0.5"]}]},
        ],
        "fabric": {"switches": ["tor"]},
        "links": [{"endpoints": [f"h{n}:nic1", "tor"]} for n in (1, 2, 3)],
    }
    plan = build(msgspec.convert(topology, Topology))
    route = (ProviderRoute("0.0.0.0/0", "192.168.0.254"),)
    hosts = tuple(
        msgspec.structs.replace(host, policy=msgspec.structs.replace(host.policy, provider_routes=route))
        if host.name == "h1"
        else host
        for host in plan.hosts
    )
    return msgspec.structs.replace(plan, hosts=hosts)


def as_sets(policy: HostPolicy) -> dict[str, set[object]]:
    found = {name: getattr(policy, name) for name in policy.__struct_fields__}
    assert all(len(set(items)) == len(items) for items in found.values())
    return {name: set(items) for name, items in found.items()}


@pytest.mark.parametrize(
    "plan",
    [plan_4host(), plan_4host(hosts=8, vms_per_host=3), rich()],
    ids=["4host", "8 hosts", "rich"],
)
def test_each_host_gets_the_policy_of_the_plan(store: Store, plan: Plan) -> None:
    with store.change(bulk=True) as tx:
        tokens = load(tx, plan)
    assert [each.name for each in tokens] == [host.name for host in plan.hosts]
    for host in plan.hosts:
        policy = msgspec.json.decode(policy_json(store, host.name), type=HostPolicy)
        assert as_sets(policy) == as_sets(plan.host(host.name).policy)
    assert any(plan.hosts[0].policy.lookup_records)  # or the above says nothing


def test_ports_are_those_of_the_plan(store: Store) -> None:
    plan = rich()
    with store.change(bulk=True) as tx:
        load(tx, plan)
    for vm in plan.vms:
        ports = placement.view(store, placement.existing(store, vm.name)).ports
        assert [(port.port, port.mac, port.vsid) for port in ports] == [
            (vnic.port, vnic.mac, vnic.vsid) for vnic in vm.vnics
        ]


def test_only_an_empty_store_is_filled(store: Store) -> None:
    with store.change(bulk=True) as tx:
        load(tx, plan_4host())
    before = contents(store)
    with pytest.raises(Conflict, match="not empty"), store.change(bulk=True) as tx:
        load(tx, plan_4host())
    assert contents(store) == before


def test_a_plan_that_is_refused_leaves_nothing(store: Store) -> None:
    plan = plan_4host()
    broken = msgspec.structs.replace(plan, vms=(*plan.vms, plan.vms[0]))
    before = contents(store)
    with pytest.raises(Refused, match="placed already"), store.change(bulk=True) as tx:
        load(tx, broken)
    assert contents(store) == before


def test_placing_goes_on_where_the_plan_ended(store: Store) -> None:
    with store.change(bulk=True) as tx:
        load(tx, plan_4host())
    order = msgspec.convert(
        {"name": "new", "host": "host4", "adapters": [{"vsid": 5001, "allocate": [4, 6]}]}, NewVm
    )
    with store.change() as tx:
        placed = placement.place(tx, order)
    assert placed.ports[0].addresses == ("10.0.0.2", "fd00::2")
