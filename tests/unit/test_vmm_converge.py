"""A changed Plan, followed in one transaction: what stays as it is is left alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.vmm import Api, Store, contents, plan_4host
from testbed.topology.diff import diff
from testbed.topology.plan import Plan
from testbed.vmm.rules.load import load


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = Api(tmp_path)
    made.tokens |= {host.name: f"{host.name}.{'s' * 40}" for host in plan_4host().hosts}
    fill(made.store, plan_4host(), **made.tokens)
    yield made
    made.close()


def fill(store: Store, plan: Plan, **tokens: str) -> None:
    with store.change(bulk=True) as tx:
        load(tx, plan, tokens=tokens)


def order(plan: Plan, **more: Any) -> dict[str, Any]:
    return {"plan": json.loads(msgspec.json.encode(plan)), **more}


def follow(api: Api, plan: Plan, **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = api.must("PUT", "/v1/plan", order(plan, **more))
    return told


def objects(store: Store) -> dict[str, set[bytes]]:
    """What does not depend on how the store came to it: all but PAs, tokens and the log."""
    found = contents(store)
    records = {
        msgspec.json.encode({**json.loads(row[-1]), "provider_address": None})
        for row in found["lookup_records"]
    }
    return {
        "lookup_records": records,
        **{name: {row[-1] for row in found[name]} for name in ("networks", "subnets", "customer_routes")},
        "ports": {row[-1] for row in found["ports"]},
        "vms": {row[0] for row in found["vms"]},
        "hosts": {row[0] for row in found["hosts"]},
    }


def test_the_same_plan_changes_nothing(api: Api) -> None:
    before = contents(api.store)
    assert follow(api, plan_4host()) == {"placed": [], "removed": [], "hosts_removed": []}
    assert contents(api.store) == before


def test_hosts_and_vms_come_and_go(api: Api) -> None:
    five = plan_4host(hosts=5, vms_per_host=3)
    token = "host5." + "x" * 40
    told = follow(api, five, tokens={"host5": token})
    assert sorted(told["placed"]) == sorted(
        {vm.name for vm in five.vms} - {vm.name for vm in plan_4host().vms}
    )
    assert told["removed"] == []
    assert api.call("GET", "/v1/hosts/host5/policy", token=token).status == 200
    told = follow(api, plan_4host())
    assert (told["placed"], told["hosts_removed"]) == ([], ["host5"])
    assert len(told["removed"]) == len(five.vms) - len(plan_4host().vms)
    assert api.call("GET", "/v1/hosts/host5/policy", token=token).status == 401


@pytest.mark.parametrize("change", [{"hosts": 5}, {"hosts": 3}, {"vms_per_host": 1}, {"vms_per_host": 4}])
def test_what_was_followed_is_what_would_be_loaded(api: Api, tmp_path: Path, change: dict[str, int]) -> None:
    wanted = plan_4host(**change)
    follow(api, wanted, rebuilt=[*diff(plan_4host(), wanted).vms.changed])
    fresh = Store(tmp_path / "fresh.sqlite")
    try:
        fill(fresh, wanted)
        assert objects(api.store) == objects(fresh)
    finally:
        fresh.close()


def test_what_was_learned_stays_unless_the_vm_is_made_anew(api: Api) -> None:
    port = api.port("blue1")
    report = {"mac": port["mac"], "ca": "10.0.0.99", "vsid": 5001, "pa": api.pa("host1", 5001), "how": "arp"}
    api.must("POST", "/v1/hosts/host1/learned", report, api.tokens["host1"])
    follow(api, plan_4host(hosts=5))
    assert api.record("10.0.0.99") is not None
    told = follow(api, plan_4host(hosts=5), rebuilt=["blue1"])
    assert (told["placed"], told["removed"]) == (["blue1"], ["blue1"])
    assert api.record("10.0.0.99") is None
    assert api.record("10.0.0.5") is not None


def test_another_subnet_takes_its_vms_with_it(api: Api) -> None:
    plan = plan_4host()
    networks = [
        msgspec.structs.replace(
            network,
            subnets=tuple(
                msgspec.structs.replace(subnet, gateway_mac="00:15:5d:00:00:01")
                if subnet.vsid == 5002
                else subnet
                for subnet in network.subnets
            ),
        )
        for network in plan.networks
    ]
    other = msgspec.structs.replace(plan, networks=tuple(networks))
    told = follow(api, other)
    assert told["placed"] == told["removed"] == ["blue4"]
    assert api.must("GET", "/v1/subnets/5002")["gateway_mac"] == "00:15:5d:00:00:01"


def test_what_is_refused_has_changed_nothing(api: Api) -> None:
    api.must("POST", "/v1/pools/5001-ipv4/allocate", {"owner": "somebody"})
    taken = next(
        each["address"]
        for each in api.must("GET", "/v1/pools/5001-ipv4")["addresses"]
        if each["owner"] == "somebody"
    )
    plan = plan_4host()
    vm = next(vm for vm in plan.vms if vm.name == "blue2")
    vnic = msgspec.structs.replace(vm.vnics[0], addresses=(f"{taken}/24",))
    moved = msgspec.structs.replace(vm, vnics=(vnic, *vm.vnics[1:]))
    other = msgspec.structs.replace(plan, vms=tuple(moved if each is vm else each for each in plan.vms))
    before = contents(api.store)
    answer = api.call("PUT", "/v1/plan", order(other, rebuilt=["blue2"]))
    assert answer.status == 409, answer.body
    assert taken in answer.error
    assert contents(api.store) == before
