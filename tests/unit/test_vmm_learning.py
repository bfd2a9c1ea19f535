"""IP learning: what is taken and refused, who wins a conflict, what pool and events tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.vmm import Api, contents


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = Api(tmp_path)
    made.world()
    made.vm("a", "h1", allocate=[4])  # 10.0.0.2
    made.vm("b", "h2")
    yield made
    made.close()


def reasons(api: Api, after: int) -> list[tuple[str, str, str]]:
    return [
        (each["fields"]["reason"], each["fields"]["ca"], each["fields"]["how"]) for each in api.events(after)
    ]


def owner(api: Api, ca: str, vsid: int = 5001) -> tuple[str, str] | None:
    record = api.record(ca, vsid)
    return record and (record["vm_name"], record["type"])


def test_an_l2only_vm_gets_an_address(api: Api) -> None:
    revision = api.store.revision
    answer = api.learn("h2", "b", "10.0.0.50", how="dhcp")
    assert answer.status == 200
    assert answer.body == {"result": "added", "revision": revision + 1, "record": api.record("10.0.0.50")}
    record = api.record("10.0.0.50")
    assert record is not None
    assert record["mac_address"] == api.port("b")["mac"]
    assert (record["type"], record["vm_name"], record["provider_address"]) == (
        "Dynamic",
        "b",
        api.pa("h2", 5001),
    )
    event = api.events(revision)[0]
    assert event["host"] == "h2"
    assert event["fields"] == {
        "reason": "Added",
        "mac": record["mac_address"],
        "ca": "10.0.0.50",
        "vsid": 5001,
        "pa": record["provider_address"],
        "how": "dhcp",
    }
    assert api.in_pool("10.0.0.50") == ("learned", "b:eth0")
    learned = api.must("GET", "/v1/hosts/h2/learned", token=api.tokens["h2"])
    assert [(each["ca"], each["how"]) for each in learned] == [("10.0.0.50", "dhcp")]
    # It can still be flooded to: it may learn more
    assert any(
        each["type"] == "L2Only" for each in api.must("GET", "/v1/lookup-records", virtual_subnet_id=5001)
    )


def test_the_owner_of_a_vm_changes_the_address_that_came_from_the_pool(api: Api) -> None:
    revision = api.store.revision
    assert api.learn("h1", "a", "10.0.0.50", replaces="10.0.0.2").body["result"] == "added"
    assert owner(api, "10.0.0.50") == ("a", "Dynamic")
    assert api.record("10.0.0.2") is None
    assert (api.in_pool("10.0.0.2"), api.in_pool("10.0.0.50")) == (None, ("learned", "a:eth0"))
    assert api.port("a")["addresses"] == []
    assert reasons(api, revision) == [("Deleted", "10.0.0.2", "arp"), ("Added", "10.0.0.50", "arp")]
    assert api.store.revision == revision + 1


def test_addresses_of_both_families_and_more_than_one(api: Api) -> None:
    for ca in ("10.0.0.50", "10.0.0.51", "fd00::50"):
        assert api.learn("h1", "a", ca).body["result"] == "added"
    assert api.learn("h1", "a", "10.0.0.52", replaces="10.0.0.51").body["result"] == "added"
    assert [api.record(f"10.0.0.{n}") is not None for n in (50, 51, 52)] == [True, False, True]
    assert owner(api, "10.0.0.2") == ("a", "Static")


def test_the_same_again_changes_nothing(api: Api) -> None:
    api.learn("h2", "b", "10.0.0.50", replaces="10.0.0.49")
    before = contents(api.store)
    again = api.learn("h2", "b", "10.0.0.50", replaces="10.0.0.49")
    assert again.body == {
        "result": "known",
        "revision": api.store.revision,
        "record": api.record("10.0.0.50"),
    }
    assert api.learn("h1", "a", "10.0.0.2").body["result"] == "known"  # a Static one
    assert contents(api.store) == before


def test_a_second_report_still_replaces(api: Api) -> None:
    api.learn("h2", "b", "10.0.0.50")
    api.learn("h2", "b", "10.0.0.51")
    assert api.learn("h2", "b", "10.0.0.51", replaces="10.0.0.50").body["result"] == "known"
    assert api.record("10.0.0.50") is None
    assert api.learn("h1", "a", "10.0.0.60").body["result"] == "added"
    assert api.learn("h1", "a", "10.0.0.60", replaces="10.0.0.2").body["result"] == "known"
    assert (api.record("10.0.0.2"), api.port("a")["addresses"]) == (None, [])  # a Static one too


def test_a_record_follows_its_host(api: Api) -> None:
    api.learn("h2", "b", "10.0.0.50")
    mac, ca = api.port("b")["mac"], "10.0.0.50"
    by_hand = {"mac_address": mac, "customer_address": ca, "provider_address": "192.168.0.200"}
    api.must("PATCH", "/v1/lookup-records", by_hand)
    revision = api.store.revision
    assert api.learn("h2", "b", ca).body["result"] == "moved"
    record = api.record(ca)
    assert record is not None
    assert record["provider_address"] == api.pa("h2", 5001)
    assert reasons(api, revision) == [("Moved", ca, "arp")]


# ---- conflicts -----------------------------------------------------------------------------------


def test_static_wins_over_learned(api: Api) -> None:
    answer = api.learn("h2", "b", "10.0.0.2")
    assert answer.status == 409
    assert "Static record" in answer.error
    assert answer.body["error"]["holder"]["mac_address"] == api.port("a")["mac"]
    assert owner(api, "10.0.0.2") == ("a", "Static")


def test_the_gateways_address_is_static_too(api: Api) -> None:
    assert "Static record" in api.learn("h2", "b", "10.0.0.1").error


def test_a_conflict_is_an_event_and_not_a_flood_of_them(api: Api) -> None:
    for _ in range(3):
        assert api.learn("h2", "b", "10.0.0.2").status == 409
    events = api.events(kind="address-conflict")
    assert [(each["host"], each["fields"]["ca"], each["fields"]["holder"]["type"]) for each in events] == [
        ("h2", "10.0.0.2", "Static")
    ]


def test_what_the_pool_has_promised_is_not_learned_by_another(api: Api) -> None:
    api.must("POST", "/v1/pools/5001-ipv4/allocate", {"owner": "b"})  # 10.0.0.3, for VM b
    assert "has given it to b" in api.learn("h1", "a", "10.0.0.3").error
    assert api.learn("h2", "b", "10.0.0.3").body["result"] == "added"
    assert api.in_pool("10.0.0.3") == ("allocated", "b")


def test_a_reserved_address_may_be_used_and_stays_reserved(api: Api) -> None:
    api.must("POST", "/v1/pools/5001-ipv4/reserve", {"address": "10.0.0.60", "owner": "cluster"})
    assert api.learn("h2", "b", "10.0.0.60").body["result"] == "added"
    assert api.in_pool("10.0.0.60") == ("reserved", "cluster")
    age(api, "h2", "b", "10.0.0.60")
    assert api.in_pool("10.0.0.60") == ("reserved", "cluster")


def test_tenants_with_the_same_addresses_do_not_meet(api: Api) -> None:
    api.vm("r", "h2", 6001)
    assert api.learn("h1", "a", "10.0.0.50").body["result"] == "added"
    assert api.learn("h2", "r", "10.0.0.50", 6001).body["result"] == "added"
    assert (owner(api, "10.0.0.50"), owner(api, "10.0.0.50", 6001)) == (("a", "Dynamic"), ("r", "Dynamic"))


# ---- limits --------------------------------------------------------------------------------------


def test_the_limit_of_a_port(api: Api) -> None:
    api.must("PATCH", "/v1/ports/b:eth0", {"dynamic_address_limit": 2})
    for number in (50, 51):
        assert api.learn("h2", "b", f"10.0.0.{number}").status == 200
    answer = api.learn("h2", "b", "10.0.0.52")
    assert (answer.status, "the limit is 2" in answer.error) == (409, True)
    assert api.learn("h2", "b", "10.0.0.52", replaces="10.0.0.50").body["result"] == "added"
    age(api, "h2", "b", "10.0.0.51")
    assert api.learn("h2", "b", "10.0.0.53").body["result"] == "added"


def test_a_limit_of_zero_learns_nothing(api: Api) -> None:
    api.must("PATCH", "/v1/ports/a:eth0", {"dynamic_address_limit": 0})
    before = contents(api.store)
    assert "the limit is 0" in api.learn("h1", "a", "10.0.0.50").error
    assert "learns no addresses" in api.learn("h1", "a", "10.0.0.50", replaces="10.0.0.2").error
    assert contents(api.store) == before


def report(api: Api, host: str, **changes: Any) -> Any:
    good = {
        "mac": api.port("b")["mac"],
        "ca": "10.0.0.50",
        "vsid": 5001,
        "pa": api.pa("h2", 5001),
        "how": "nd",
    }
    return api.call("POST", f"/v1/hosts/{host}/learned", good | changes, api.tokens[host])


@pytest.mark.parametrize(
    ("changes", "status", "why"),
    [
        ({"ca": "10.0.1.50"}, 422, "outside the subnet"),  # in another subnet of the network
        ({"ca": "172.16.0.1"}, 422, "10.0.0.0/24 and fd00::/64"),
        ({"ca": "fe80::1"}, 422, "outside the subnet"),
        ({"ca": "10.0.0.0"}, 422, "stands for all"),
        ({"ca": "10.0.0.255"}, 422, "stands for all"),
        ({"ca": "255.255.255.255"}, 422, "outside"),
        ({"ca": "0.0.0.0"}, 422, "outside"),
        ({"ca": "10.0.0.500"}, 400, "no IP address"),
        ({"mac": "00:00:00:00:00:99"}, 403, "no port with the MAC"),
        ({"mac": "zz"}, 400, "no MAC address"),
        ({"vsid": 5002}, 403, "in VSID 5002"),
        ({"vsid": 0}, 403, "in VSID 0"),
        ({"vsid": 2**80}, 400, "vsid"),
        ({"pa": "192.168.0.77"}, 409, "not the PA of host h2"),
        ({"how": "guess"}, 400, "how"),
        ({"replaces": "fd00::5"}, 422, "other family"),
        ({"probe": "failed"}, 400, "probe"),
    ],
)
def test_refused(api: Api, changes: dict[str, Any], status: int, why: str) -> None:
    before = contents(api.store)
    answer = report(api, "h2", **changes)
    assert (answer.status, why in answer.error) == (status, True), answer.body
    assert contents(api.store) == before


def test_a_host_learns_of_its_own_ports_alone(api: Api) -> None:
    api.vm("c", "h1")
    before = contents(api.store)
    answers = [
        report(api, "h2", mac=api.port("c")["mac"]),  # placed on h1
        report(api, "h2", mac="02:00:00:00:00:77"),  # nobody's
    ]
    assert [each.status for each in answers] == [403, 403]
    texts = [
        each.error.replace(api.port("c")["mac"], "M").replace("02:00:00:00:00:77", "M") for each in answers
    ]
    assert texts[0] == texts[1]  # it is not told which MACs others have
    assert contents(api.store) == before


def test_replaces_takes_only_the_macs_own_records(api: Api) -> None:
    api.learn("h1", "a", "10.0.0.50")
    assert report(api, "h2", ca="10.0.0.51", replaces="10.0.0.50").body["result"] == "added"
    assert owner(api, "10.0.0.50") == ("a", "Dynamic")


def test_the_address_of_a_way_out_is_not_replaced(api: Api) -> None:
    api.vm("gw", "h1", 5002, addresses=["10.0.1.2"], is_gateway=True)
    before = contents(api.store)
    answer = api.learn("h1", "gw", "10.0.1.9", 5002, replaces="10.0.1.2")
    assert (answer.status, "next hop of a customer route" in answer.error) == (409, True)
    assert contents(api.store) == before


# ---- ageing --------------------------------------------------------------------------------------


def age(api: Api, host: str, vm: str, ca: str, vsid: int = 5001) -> Any:
    query = {"mac": api.port(vm)["mac"], "ca": ca, "vsid": vsid}
    return api.call("DELETE", f"/v1/hosts/{host}/learned", token=api.tokens[host], **query)


def test_an_aged_address_is_gone_once(api: Api) -> None:
    api.learn("h2", "b", "10.0.0.50")
    revision = api.store.revision
    assert age(api, "h2", "b", "10.0.0.50").body["result"] == "deleted"
    assert api.record("10.0.0.50") is None
    assert api.in_pool("10.0.0.50") is None
    assert reasons(api, revision) == [("Deleted", "10.0.0.50", "aged")]
    before = contents(api.store)
    assert age(api, "h2", "b", "10.0.0.50").body["result"] == "gone"
    assert contents(api.store) == before


def test_what_is_not_learned_does_not_age(api: Api) -> None:
    before = contents(api.store)
    assert age(api, "h1", "a", "10.0.0.2").status == 409
    assert age(api, "h2", "a", "10.0.0.2").status == 403
    assert age(api, "h2", "b", "10.0.0.2").body["result"] == "gone"  # another MAC's
    assert contents(api.store) == before
