"""IP pools: lowest free address, reservations, exhaustion, and PAs that are not given out again at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.vmm import BLUE, Api, contents


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = Api(tmp_path)
    made.world()
    yield made
    made.close()


def small(api: Api) -> None:
    api.must("POST", "/v1/subnets", {"rdid": BLUE, "vsid": 5003, "prefixes": ["10.0.3.0/29"]})


def allocate(api: Api, pool: str, owner: str = "somebody") -> str:
    address: str = api.must("POST", f"/v1/pools/{pool}/allocate", {"owner": owner})["address"]
    return address


def test_the_lowest_free_address_comes_first(api: Api) -> None:
    assert [allocate(api, "5001-ipv4") for _ in range(3)] == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    api.must("POST", "/v1/pools/5001-ipv4/release", {"address": "10.0.0.3"})
    assert allocate(api, "5001-ipv4") == "10.0.0.3"
    assert allocate(api, "5001-ipv4") == "10.0.0.5"


def test_families_and_subnets_count_apart(api: Api) -> None:
    assert allocate(api, "5001-ipv6") == "fd00::2"
    assert allocate(api, "6001-ipv4") == "10.0.0.2"
    assert allocate(api, "5001-ipv4") == "10.0.0.2"


def test_what_is_reserved_or_used_is_passed_over(api: Api) -> None:
    api.must("POST", "/v1/pools/5001-ipv4/reserve", {"address": "10.0.0.3", "owner": "printer"})
    api.vm("a", "h1", addresses=["10.0.0.2"])
    hand = {
        "customer_address": "10.0.0.4",
        "virtual_subnet_id": 5001,
        "mac_address": "00:00:00:00:00:09",
        "provider_address": "192.168.0.9",
    }
    api.must("POST", "/v1/lookup-records", hand)
    assert allocate(api, "5001-ipv4") == "10.0.0.5"
    assert api.in_pool("10.0.0.3") == ("reserved", "printer")
    assert api.in_pool("10.0.0.2") == ("allocated", "a:eth0")


def test_an_exhausted_pool_says_so_and_stays(api: Api) -> None:
    small(api)
    assert [allocate(api, "5003-ipv4") for _ in range(5)] == [f"10.0.3.{n}" for n in range(2, 7)]
    before = contents(api.store)
    refused = api.call("POST", "/v1/pools/5003-ipv4/allocate", {"owner": "late"})
    assert refused.status == 409
    assert "5003-ipv4 is exhausted" in refused.error
    assert "release an address" in refused.error
    placed = {"name": "v", "host": "h1", "adapters": [{"vsid": 5003, "allocate": [4]}]}
    assert api.call("POST", "/v1/vms", placed).status == 409
    assert contents(api.store) == before


def test_a_range_limits_what_is_given_out_not_what_is_used(api: Api) -> None:
    ranges = [{"first": "10.0.4.10", "last": "10.0.4.11"}]
    api.must(
        "POST", "/v1/subnets", {"rdid": BLUE, "vsid": 5004, "prefixes": ["10.0.4.0/24"], "ranges": ranges}
    )
    assert [allocate(api, "5004-ipv4") for _ in range(2)] == ["10.0.4.10", "10.0.4.11"]
    assert api.call("POST", "/v1/pools/5004-ipv4/allocate", {"owner": "x"}).status == 409
    assert api.vm("a", "h1", 5004, addresses=["10.0.4.200"])["ports"][0]["addresses"] == ["10.0.4.200"]


def test_a_pa_that_was_in_use_comes_last(api: Api) -> None:
    api.must("POST", "/v1/pools", {"name": "tiny", "prefix": "172.16.0.0/29"})
    first = [allocate(api, "tiny") for _ in range(4)]
    assert first == [f"172.16.0.{n}" for n in range(1, 5)]
    for address in ("172.16.0.2", "172.16.0.1"):
        api.must("POST", "/v1/pools/tiny/release", {"address": address})
    assert [allocate(api, "tiny") for _ in range(4)] == [
        "172.16.0.5",
        "172.16.0.6",
        "172.16.0.2",
        "172.16.0.1",
    ]


def test_hosts_get_other_pas_as_vms_move(api: Api) -> None:
    api.vm("a", "h1")
    first = api.pa("h1", 5001)
    api.must("POST", "/v1/vms/a/migrate", {"host": "h2"})
    second = api.pa("h2", 5001)
    api.must("POST", "/v1/vms/a/migrate", {"host": "h3"})
    assert len({first, second, api.pa("h3", 5001)}) == 3
    assert api.must("GET", "/v1/provider-addresses", host="h1") == []


@pytest.mark.parametrize(
    ("order", "body", "status", "why"),
    [
        ("5001-ipv4/reserve", {"address": "10.0.9.1", "owner": "x"}, 422, "outside the subnet"),
        ("5001-ipv4/reserve", {"address": "fd00::5", "owner": "x"}, 422, "outside the subnet"),
        ("5001-ipv4/reserve", {"address": "10.0.0.255", "owner": "x"}, 422, "stands for all"),
        ("5001-ipv4/reserve", {"address": "10.0.0.0", "owner": "x"}, 422, "10.0.0.1 to 10.0.0.254"),
        ("5001-ipv4/reserve", {"address": "10.0.0.1", "owner": "x"}, 409, "default gateway"),
        ("5001-ipv4/reserve", {"address": "10.0.0.7", "owner": "x"}, 409, "for taken:eth0"),
        ("5001-ipv4/reserve", {"address": "ten", "owner": "x"}, 400, "no IP address"),
        ("5001-ipv4/reserve", {"address": "fe80::1%eth0", "owner": "x"}, 400, "zone"),
        ("5001-ipv4/reserve", {"address": "10.0.0.9", "owner": ""}, 400, "length"),
        ("5001-ipv4/reserve", {"address": "10.0.0.9", "owner": "x", "more": 1}, 400, "more"),
        ("5001-ipv4/release", {"address": "10.0.0.1"}, 409, "default gateway"),
        ("5001-ipv4/release", {"address": "10.0.0.7"}, 409, "in use by taken:eth0"),
        ("5001-ipv4/release", {"address": "10.0.0.8"}, 404, "is free"),
        ("pa/release", {"address": "192.168.0.1"}, 409, "in use by h1/5001"),
        ("nothing/allocate", {"owner": "x"}, 404, "5001-ipv4, 5001-ipv6"),
    ],
)
def test_refused(api: Api, order: str, body: dict[str, str], status: int, why: str) -> None:
    api.vm("taken", "h1", addresses=["10.0.0.7"])
    before = contents(api.store)
    answer = api.call("POST", f"/v1/pools/{order}", body)
    assert (answer.status, why in answer.error) == (status, True), answer.body
    assert contents(api.store) == before


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        ({"name": "pa", "prefix": "172.16.0.0/24"}, 409, "already"),
        ({"name": "pb", "prefix": "192.168.0.128/25"}, 409, "overlaps pa"),
        ({"name": "pb", "prefix": "172.16.0.1/24"}, 400, "host bits"),
        ({"name": "pb", "prefix": "fd01::/64"}, 422, "IPv4"),
        ({"name": "pb", "prefix": "224.0.0.0/24"}, 422, "no addresses of hosts"),
        (
            {"name": "pb", "prefix": "172.16.0.0/24", "range": {"first": "172.16.0.9", "last": "172.16.0.8"}},
            422,
            "ends before",
        ),
        (
            {"name": "pb", "prefix": "172.16.0.0/24", "range": {"first": "172.16.0.9", "last": "172.17.0.8"}},
            422,
            "outside",
        ),
        ({"name": "P B", "prefix": "172.16.0.0/24"}, 400, "name"),
    ],
)
def test_a_pa_pool_is_refused(api: Api, body: dict[str, object], status: int, why: str) -> None:
    before = contents(api.store)
    answer = api.call("POST", "/v1/pools", body)
    assert (answer.status, why in answer.error) == (status, True), answer.body
    assert contents(api.store) == before


def test_removing_a_pool(api: Api) -> None:
    assert api.call("DELETE", "/v1/pools/5001-ipv4").status == 409
    api.vm("a", "h1")
    assert "h1/5001" in api.call("DELETE", "/v1/pools/pa").error
    api.must("DELETE", "/v1/vms/a")
    api.must("DELETE", "/v1/pools/pa")
    refused = api.call("POST", "/v1/vms", {"name": "a", "host": "h1", "adapters": [{"vsid": 5001}]})
    assert (refused.status, "no PA pool" in refused.error) == (409, True)
