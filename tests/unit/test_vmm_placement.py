"""VMs: placing, moving, removing, new addresses; networks and subnets; what each refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.vmm import BLUE, RED, Api, contents


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = Api(tmp_path)
    made.world()
    yield made
    made.close()


def reasons(api: Api, after: int = 0) -> list[tuple[str, str, str]]:
    return [(each["fields"]["reason"], each["fields"]["ca"], each["host"]) for each in api.events(after)]


def types(api: Api, vm: str, vsid: int = 5001) -> dict[str, str]:
    records = api.must("GET", "/v1/lookup-records", virtual_subnet_id=vsid)
    return {each["customer_address"]: each["type"] for each in records if each["vm_name"] == vm}


def routes(api: Api, vsid: int) -> set[tuple[str, str]]:
    found = api.must("GET", "/v1/customer-routes", virtual_subnet_id=vsid)
    return {(each["destination_prefix"], each["next_hop"]) for each in found}


# ---- placing -----------------------------------------------------------------------------------


def test_a_vm_takes_its_addresses_from_the_pools(api: Api) -> None:
    port = api.vm("a", "h1", addresses=["10.0.0.9"], allocate=[6, 4])["ports"][0]
    assert port["addresses"] == ["10.0.0.9", "fd00::2", "10.0.0.2"]
    assert types(api, "a") == {"10.0.0.9": "Static", "fd00::2": "Static", "10.0.0.2": "Static"}
    record = api.record("10.0.0.9")
    assert record is not None
    assert (record["mac_address"], record["provider_address"]) == (port["mac"], api.pa("h1", 5001))
    assert reasons(api) == [("Added", ca, "h1") for ca in port["addresses"]]


def test_a_vm_without_addresses_is_to_learn_them(api: Api) -> None:
    api.vm("a", "h1")
    assert types(api, "a") == {"0.0.0.0": "L2Only", "::": "L2Only"}
    assert reasons(api) == []


def test_a_way_out(api: Api) -> None:
    api.vm("gw", "h1", 5002, addresses=["10.0.1.2"], is_gateway=True)
    assert types(api, "gw", 5002) == {"10.0.1.2": "Static", "0.0.0.0": "GatewayWildcard"}
    assert ("0.0.0.0/0", "10.0.1.2") in routes(api, 5002)
    api.must("PATCH", "/v1/ports/gw:eth0", {"addresses": ["10.0.1.3"]})
    assert types(api, "gw", 5002) == {"10.0.1.3": "Static", "0.0.0.0": "GatewayWildcard"}
    assert routes(api, 5002) == {("10.0.1.0/24", "0.0.0.0"), ("0.0.0.0/0", "10.0.1.3")}
    api.must("DELETE", "/v1/vms/gw")
    assert routes(api, 5002) == {("10.0.1.0/24", "0.0.0.0")}


def test_adapters_of_many_networks_and_of_none(api: Api) -> None:
    order = {"name": "m", "host": "h1", "adapters": [{"vsid": 5001}, {"vsid": 6001}, {"vsid": 0}]}
    ports = api.must("POST", "/v1/vms", order)["ports"]
    assert [(each["port"], each["rdid"]) for each in ports] == [
        ("m:eth0", BLUE),
        ("m:eth1", RED),
        ("m:eth2", ""),
    ]
    assert len({each["mac"] for each in ports}) == 3
    assert api.must("GET", "/v1/hosts/h1")["networks"] == sorted([BLUE, RED])
    api.must("POST", "/v1/vms/m/migrate", {"host": "h2"})
    api.must("DELETE", "/v1/vms/m")
    assert api.must("GET", "/v1/ports") == []


def test_derived_macs_are_unique(api: Api) -> None:
    """Of the names of these two adapters the same MAC is derived."""
    first, second = (api.vm(name, "h1")["ports"][0]["mac"] for name in ("v5-46", "v47-18"))
    assert first == "00:15:5d:52:9d:67"
    assert second.startswith("00:15:5d:")
    assert second != first


def test_each_host_has_one_pa_for_a_vsid(api: Api) -> None:
    for number, host in enumerate(["h1", "h1", "h2"]):
        api.vm(f"v{number}", host)
    found = api.must("GET", "/v1/provider-addresses")
    assert [(each["host"], each["virtual_subnet_id"]) for each in found] == [("h1", 5001), ("h2", 5001)]
    api.must("DELETE", "/v1/vms/v0")
    assert len(api.must("GET", "/v1/provider-addresses")) == 2
    api.must("DELETE", "/v1/vms/v1")
    assert [each["host"] for each in api.must("GET", "/v1/provider-addresses")] == ["h2"]


def test_removing_gives_everything_back(api: Api) -> None:
    def world() -> dict[str, list[Any]]:
        found = contents(api.store)
        for name in ("changes", "events", "meta", "pool_addresses"):
            del found[name]
        return found

    before = world()
    api.vm("a", "h1", addresses=["10.0.0.9"], allocate=[6])
    assert world() != before
    api.must("DELETE", "/v1/vms/a")
    assert world() == before
    assert api.in_pool("10.0.0.9") is None
    assert reasons(api)[-2:] == [("Deleted", "10.0.0.9", "h1"), ("Deleted", "fd00::2", "h1")]


# ---- moving ------------------------------------------------------------------------------------


def test_a_move_changes_the_pas_alone(api: Api) -> None:
    api.vm("a", "h1", addresses=["10.0.0.9", "fd00::9"])
    before, revision = api.record("10.0.0.9"), api.store.revision
    view = api.must("POST", "/v1/vms/a/migrate", {"host": "h2"})
    assert (view["host"], view["ports"][0]["host"]) == ("h2", "h2")
    assert before is not None
    assert api.record("10.0.0.9") == {**before, "provider_address": api.pa("h2", 5001)}
    assert reasons(api, revision) == [("Moved", "10.0.0.9", "h2"), ("Moved", "fd00::9", "h2")]
    assert api.store.revision == revision + 1


def test_a_move_to_where_it_is_changes_nothing(api: Api) -> None:
    api.vm("a", "h1")
    before = contents(api.store)
    api.must("POST", "/v1/vms/a/migrate", {"host": "h1"})
    assert contents(api.store) == before


def test_a_learned_address_moves_with_its_vm(api: Api) -> None:
    api.vm("a", "h1")
    assert api.learn("h1", "a", "10.0.0.50").status == 200
    api.must("POST", "/v1/vms/a/migrate", {"host": "h2"})
    record = api.record("10.0.0.50")
    assert record is not None
    assert (record["type"], record["provider_address"]) == ("Dynamic", api.pa("h2", 5001))
    assert [each["ca"] for each in api.must("GET", "/v1/hosts/h2/learned")] == ["10.0.0.50"]
    assert api.must("GET", "/v1/hosts/h1/learned") == []


# ---- other addresses ---------------------------------------------------------------------------


def test_other_addresses_by_policy(api: Api) -> None:
    api.vm("a", "h1", allocate=[4])
    revision = api.store.revision
    port = api.must("PATCH", "/v1/ports/a:eth0", {"addresses": ["10.0.0.77", "fd00::77"]})
    assert port["addresses"] == ["10.0.0.77", "fd00::77"]
    assert types(api, "a") == {"10.0.0.77": "Static", "fd00::77": "Static"}
    assert api.in_pool("10.0.0.2") is None
    assert api.in_pool("10.0.0.77") == ("allocated", "a:eth0")
    assert reasons(api, revision) == [
        ("Deleted", "10.0.0.2", "h1"),
        ("Added", "10.0.0.77", "h1"),
        ("Added", "fd00::77", "h1"),
    ]


def test_from_no_address_to_one_and_back(api: Api) -> None:
    api.vm("a", "h1")
    api.must("PATCH", "/v1/ports/a:eth0", {"addresses": ["10.0.0.77"]})
    assert types(api, "a") == {"10.0.0.77": "Static"}
    api.must("PATCH", "/v1/ports/a:eth0", {"addresses": []})
    assert types(api, "a") == {"0.0.0.0": "L2Only", "::": "L2Only"}
    before = contents(api.store)
    api.must("PATCH", "/v1/ports/a:eth0", {"addresses": []})
    assert contents(api.store) == before


def test_a_learned_address_can_become_policy(api: Api) -> None:
    api.vm("a", "h1")
    api.learn("h1", "a", "10.0.0.50")
    api.must("PATCH", "/v1/ports/a:eth0", {"addresses": ["10.0.0.50"]})
    assert types(api, "a") == {"10.0.0.50": "Static"}
    assert api.must("GET", "/v1/hosts/h1/learned") == []
    assert api.in_pool("10.0.0.50") == ("allocated", "a:eth0")


# ---- refused -----------------------------------------------------------------------------------


def adapter(**fields: Any) -> dict[str, Any]:
    return {"name": "b", "host": "h1", "adapters": [{"vsid": 5001, **fields}]}


REFUSED: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/v1/vms", {**adapter(), "host": "h9"}, 422, "no host 'h9'"),
    ("POST", "/v1/vms", {**adapter(), "name": "a"}, 409, "placed already"),
    ("POST", "/v1/vms", adapter(vsid=9999), 422, "no subnet with VSID 9999"),
    ("POST", "/v1/vms", adapter(vsid=2**24), 400, "vsid"),
    ("POST", "/v1/vms", adapter(vsid=2**70), 400, "vsid"),
    ("POST", "/v1/vms", adapter(addresses=["10.0.1.9"]), 422, "outside the subnet"),
    ("POST", "/v1/vms", adapter(addresses=["10.0.0.255"]), 422, "stands for all"),
    ("POST", "/v1/vms", adapter(addresses=["10.0.0.1"]), 409, "default gateway"),
    ("POST", "/v1/vms", adapter(addresses=["10.0.0.9"]), 409, "for a:eth0"),
    ("POST", "/v1/vms", adapter(addresses=["10.0.0.9/24"]), 400, "no IP address"),
    ("POST", "/v1/vms", adapter(vsid=5002, allocate=[6]), 422, "no IPv6 prefix"),
    ("POST", "/v1/vms", adapter(allocate=[5]), 400, "5"),
    ("POST", "/v1/vms", adapter(mac="02:00:00:00:00:0a"), 409, "MAC of a:eth0"),
    ("POST", "/v1/vms", adapter(mac="01:00:5e:00:00:01"), 422, "unicast"),
    ("POST", "/v1/vms", adapter(mac="nonsense"), 400, "mac"),
    ("POST", "/v1/vms", adapter(vsid=0, addresses=["10.0.0.5"]), 422, "not virtualised"),
    ("POST", "/v1/vms", adapter(ip="10.0.0.5"), 400, "ip"),
    ("POST", "/v1/vms/x/migrate", {"host": "h1"}, 404, "no VM 'x'"),
    ("POST", "/v1/vms/a/migrate", {"host": "h9"}, 422, "no host 'h9'"),
    ("DELETE", "/v1/vms/x", None, 404, "no VM 'x'"),
    ("GET", "/v1/vms/x", None, 404, "no VM 'x'"),
    ("PATCH", "/v1/ports/x:eth0", {"addresses": []}, 404, "no port"),
    ("PATCH", "/v1/ports/a:eth0", {"addresses": ["10.0.0.8"]}, 409, "for other:eth0"),
    ("PATCH", "/v1/ports/a:eth0", {"dynamic_address_limit": -1}, 400, "dynamic_address_limit"),
    ("POST", "/v1/networks", {"name": "blue"}, 409, "called blue already"),
    ("POST", "/v1/networks", {"name": "new", "rdid": BLUE.strip("{}").upper()}, 409, "already"),
    ("POST", "/v1/networks", {"name": "new", "rdid": "12"}, 400, "rdid"),
    ("DELETE", f"/v1/networks/{BLUE.strip('{}')}", None, 409, "has subnets"),
    ("DELETE", "/v1/networks/12", None, 404, "no network"),
    ("POST", "/v1/subnets", {"rdid": BLUE, "vsid": 5001, "prefixes": ["10.9.0.0/24"]}, 409, "there already"),
    ("POST", "/v1/subnets", {"rdid": BLUE, "vsid": 100, "prefixes": ["10.9.0.0/24"]}, 422, "reserved"),
    ("POST", "/v1/subnets", {"rdid": BLUE, "vsid": 5009, "prefixes": ["10.0.0.128/25"]}, 409, "overlaps"),
    ("POST", "/v1/subnets", {"rdid": BLUE, "vsid": 5009, "prefixes": ["10.9.0.1/24"]}, 400, "host bits"),
    ("POST", "/v1/subnets", {"rdid": BLUE, "vsid": 5009, "prefixes": []}, 400, "prefixes"),
    ("POST", "/v1/subnets", {"rdid": BLUE, "vsid": 5009, "prefixes": ["fe80::/64"]}, 422, "unicast"),
    (
        "POST",
        "/v1/subnets",
        {"rdid": BLUE, "vsid": 5009, "prefixes": ["10.9.0.0/24", "10.8.0.0/24"]},
        422,
        "one family",
    ),
    (
        "POST",
        "/v1/subnets",
        {"rdid": BLUE, "vsid": 5009, "prefixes": ["10.9.0.0/24"], "gateways": ["10.8.0.1"]},
        422,
        "outside",
    ),
    (
        "POST",
        "/v1/subnets",
        {"rdid": BLUE, "vsid": 5009, "prefixes": ["10.9.0.0/24"], "multicast": "10.0.0.1"},
        422,
        "no PA group",
    ),
    (
        "POST",
        "/v1/subnets",
        {"rdid": "{00000000-0000-0000-0000-000000000bad}", "vsid": 5009, "prefixes": ["10.9.0.0/24"]},
        422,
        "no network",
    ),
    ("DELETE", "/v1/subnets/5001", None, 409, "has adapters"),
    ("DELETE", "/v1/subnets/5999", None, 404, "no subnet"),
    ("POST", "/v1/hosts", {"name": "h1"}, 409, "registered already"),
    ("POST", "/v1/hosts", {"name": "../h"}, 400, "name"),
    ("DELETE", "/v1/hosts/h1", None, 409, "has VMs"),
    ("DELETE", "/v1/hosts/h9", None, 404, "no host"),
]


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    made = Api(tmp_path_factory.mktemp("vmm"))
    made.world()
    made.vm("a", "h1", addresses=["10.0.0.9"], mac="02:00:00:00:00:0a")
    made.vm("other", "h1", addresses=["10.0.0.8"])
    yield made
    made.close()


@pytest.mark.parametrize(("method", "path", "body", "status", "why"), REFUSED)
def test_refused(crowded: Api, method: str, path: str, body: Any, status: int, why: str) -> None:
    before = contents(crowded.store)
    answer = crowded.call(method, path, body)
    assert (answer.status, why in answer.error) == (status, True), answer.body
    assert contents(crowded.store) == before


# ---- subnets -----------------------------------------------------------------------------------


def test_a_subnet_comes_and_goes_with_its_policy(api: Api) -> None:
    order = {"rdid": BLUE, "vsid": 5009, "prefixes": ["10.9.0.0/24"], "multicast": "239.1.1.9"}
    subnet = api.must("POST", "/v1/subnets", order)
    assert (subnet["gateways"], api.must("GET", "/v1/subnets/5009")) == (["10.9.0.1"], subnet)
    found = {
        each["customer_address"] for each in api.must("GET", "/v1/lookup-records", virtual_subnet_id=5009)
    }
    assert found == {"10.9.0.1", "255.255.255.255", "ff02::1"}
    assert routes(api, 5009) == {("10.9.0.0/24", "0.0.0.0")}
    api.must("DELETE", "/v1/subnets/5009")
    assert api.must("GET", "/v1/lookup-records", virtual_subnet_id=5009) == []
    assert routes(api, 5009) == set()
    assert api.call("GET", "/v1/pools/5009-ipv4").status == 404


def test_networks_and_hosts_come_and_go(api: Api) -> None:
    rdid = api.must("POST", "/v1/networks", {"name": "green"})["rdid"]
    assert api.must("GET", f"/v1/networks/{rdid.strip('{}').upper()}") == {"rdid": rdid, "name": "green"}
    api.must("DELETE", f"/v1/networks/{rdid}")
    assert [each["name"] for each in api.must("GET", "/v1/networks")] == ["red", "blue"]
    api.must("DELETE", "/v1/hosts/h3")
    assert [each["name"] for each in api.must("GET", "/v1/hosts")] == ["h1", "h2"]
    assert api.call("GET", "/v1/hosts/h2", token=api.tokens["h3"]).status == 401
