"""The API: who may do what, what malformed requests get, and that its description is accurate."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import validate

from support.vmm import ADMIN, BLUE, ROOT, Api, contents

OWN = {
    ("get", "/v1/hosts/{host}"),
    ("get", "/v1/hosts/{host}/policy"),
    ("get", "/v1/hosts/{host}/watch"),
    ("post", "/v1/hosts/{host}/report"),
    ("get", "/v1/hosts/{host}/learned"),
    ("post", "/v1/hosts/{host}/learned"),
    ("delete", "/v1/hosts/{host}/learned"),
    ("post", "/v1/hosts/{host}/probed"),
}
OPEN = {("get", "/v1/status")}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    made = Api(tmp_path_factory.mktemp("vmm"))
    made.world()
    made.vm("a", "h1", addresses=["10.0.0.9"], mac="02:00:00:00:00:0a")
    yield made
    made.close()


def routes(api: Api) -> list[tuple[str, str]]:
    return [(method, path) for path, item in api.document["paths"].items() for method in item]


def example(path: str, host: str = "h1") -> str:
    return re.sub(r"\{\w+\}", "5001", path.replace("{host}", host))


def ask(api: Api, method: str, path: str, token: str) -> int:
    content = b"{}" if method in ("post", "patch") else None
    return api.raw(method.upper(), path, token, content=content).status_code


# ---- who may do what -------------------------------------------------------------------------


def test_every_route_wants_a_token_but_the_open_ones(api: Api) -> None:
    before = contents(api.store)
    for method, path in routes(api):
        expected = 200 if (method, path) in OPEN else 401
        for token in ("", "nonsense", f"h1.{'x' * 43}", ADMIN[:-1], api.tokens["h1"][:-1], "h1."):
            assert ask(api, method, example(path), token) == expected, (method, path, token)
    assert contents(api.store) == before


def test_a_host_may_use_its_own_routes_and_no_others(api: Api) -> None:
    before = contents(api.store)
    for method, path in routes(api):
        if (method, path) in OPEN:
            continue
        if path.endswith("/watch"):  # never ends; its process tests are elsewhere
            assert ask(api, method, example(path, "h2") + "?revision=999999", api.tokens["h1"]) == 403
            assert ask(api, method, example(path, "h1") + "?revision=999999", api.tokens["h1"]) == 410
            continue
        assert ask(api, method, example(path, "h2"), api.tokens["h1"]) == 403, (method, path)
        mine = ask(api, method, example(path, "h1"), api.tokens["h1"])
        allowed = (200, 400) if (method, path) in OWN else (403,)
        assert mine in allowed, (method, path, mine)
    assert contents(api.store) == before


def test_the_routes_of_hosts_are_there(api: Api) -> None:
    assert set(routes(api)) >= OWN | OPEN


def test_other_schemes_and_forms_are_no_token(api: Api) -> None:
    for header in ("", "Bearer", "Bearer ", f"Basic {ADMIN}", ADMIN, "Bearer \xe4"):
        response = api.raw("GET", "/v1/vms", "", headers={"Authorization": header.encode("latin-1")})
        assert response.status_code == 401, header
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert api.raw("GET", "/v1/vms", "", headers={"Authorization": f"bearer {ADMIN}"}).status_code == 200


def test_tokens_are_stored_as_hashes_and_never_shown(api: Api) -> None:
    everything = repr(contents(api.store))
    for token in (ADMIN, *api.tokens.values()):
        assert token not in everything
        assert token.partition(".")[2][:20] not in everything or token == ADMIN
    assert "token" not in json.dumps(api.must("GET", "/v1/hosts"))


# ---- malformed requests ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"null", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 100_000, 400),
        (b'{"name": "\\ud800"}', 400),
        (b'{"name": 5, "host": "h1", "adapters": []}', 400),
        (b'{"name": "b\\u0000", "host": "h1", "adapters": []}', 400),
        (b'{"name": "b\\n", "host": "h1", "adapters": []}', 400),
        (b'{"name": "b", "host": "h1", "adapters": [' + b'{"vsid":5001},' * 8 + b'{"vsid":5001}]}', 400),
        (b'{"name": "b", "host": "h1", "adapters": [{"vsid": 5001.5}]}', 400),
        (b'{"name": "b", "host": "h1", "adapters": [{"vsid": 1e400}]}', 400),
        (b" " * (1024 * 1024 + 1), 413),
        (b'{"name": "' + b"b" * 1024 * 1024 + b'"}', 413),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else str(value),
)
def test_malformed_bodies(api: Api, body: bytes, status: int) -> None:
    before = contents(api.store)
    answer = api.call("POST", "/v1/vms", body)
    assert answer.status == status, answer.body
    assert answer.body["error"]["what"]
    assert answer.body["error"]["remedy"]
    assert contents(api.store) == before


def test_a_body_without_a_length_is_limited_too(api: Api) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while True:
            sent += 65536
            yield b" " * 65536

    assert api.raw("POST", "/v1/vms", content=endless()).status_code == 413
    assert sent < 2 * 1024 * 1024


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/ports?vsid=x", 400),
        (f"/v1/ports?vsid={2**80}", 400),
        ("/v1/subnets/1e9", 404),
        (f"/v1/subnets/{2**80}", 400),
        ("/v1/events?after=-1", 400),
        (f"/v1/events?after={2**63}", 400),
        ("/v1/events?limit=0", 400),
        ("/v1/events?limit=100000", 400),
        ("/v1/events?after=999999", 410),
        ("/v1/events/stream?after=999999", 410),
        ("/v1/hosts/h1/watch?revision=999999", 410),
        ("/v1/hosts/h1/watch?revision=-1", 400),
        ("/v1/hosts/h1/watch?revision=x", 400),
        ("/v1/hosts/h9/watch", 404),
        ("/v1/hosts/h9/policy", 404),
        ("/v1/nothing", 404),
        ("/v2/vms", 404),
        ("/v1/vms/../../etc/passwd", 404),
        ("/v1/hosts/%00", 404),
    ],
)
def test_malformed_queries(api: Api, path: str, status: int) -> None:
    response = api.raw("GET", path)
    assert response.status_code == status, response.text
    assert set(response.json()["error"]) == {"what", "remedy"}


def test_a_resync_is_shown_where_a_revision_is_unknown(api: Api) -> None:
    error = api.call("GET", "/v1/hosts/h1/watch", revision=10**6).error
    assert "ask without a revision" in error
    report = {"revision": 10**6}
    answer = api.call("POST", "/v1/hosts/h1/report", report, api.tokens["h1"])
    assert (answer.status, "watch without a revision" in answer.error) == (410, True)


def test_methods_that_are_not_there(api: Api) -> None:
    assert api.raw("PUT", "/v1/vms").status_code == 405
    assert "error" in api.raw("PUT", "/v1/vms").json()


def test_a_defect_tells_nothing_of_itself(api: Api, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a secret of the code")

    monkeypatch.setattr("testbed.vmm.api.vms.placement.place", broken)
    response = api.raw("POST", "/v1/vms", content=b'{"name": "b", "host": "h1", "adapters": []}')
    assert (response.status_code, "secret" in response.text) == (500, False)
    assert "a secret of the code" in capsys.readouterr().err


def test_a_full_disk_is_told_and_changes_nothing(api: Api) -> None:
    before = contents(api.store)
    pages = api.store.connection.execute("PRAGMA page_count").fetchone()[0]
    api.store.connection.execute(f"PRAGMA max_page_count = {pages}")
    try:
        statuses = [api.call("POST", "/v1/networks", {"name": f"n{number}"}).status for number in range(300)]
    finally:
        api.store.connection.execute("PRAGMA max_page_count = 1000000")
    assert set(statuses) == {201, 503}
    made = statuses.count(201)
    assert statuses[made:] == [503] * (300 - made)
    assert len(contents(api.store)["networks"]) == len(before["networks"]) + made
    api.must("POST", "/v1/networks", {"name": "afterwards"})


# ---- policy objects, reports, events -----------------------------------------------------------


def test_policy_objects_are_added_set_and_removed(api: Api) -> None:
    record = {
        "customer_address": "10.0.0.99",
        "virtual_subnet_id": 5001,
        "mac_address": "02-00-00-00-00-99",
        "provider_address": "192.168.0.99",
    }
    added = api.must("POST", "/v1/lookup-records", record)
    assert (added["mac_address"], added["type"]) == ("02:00:00:00:00:99", "Static")
    changed = api.must("PATCH", "/v1/lookup-records", {"mac_address": "02:00:00:00:00:99", "context": "new"})
    assert [each["context"] for each in changed] == ["new"]
    assert len(api.must("DELETE", "/v1/lookup-records", customer_address="10.0.0.99")) == 1
    route = {"routing_domain_id": BLUE, "virtual_subnet_id": 5002, "destination_prefix": "172.16.0.0/12"}
    api.must("POST", "/v1/customer-routes", {**route, "next_hop": "10.0.1.9"})
    assert api.must("PATCH", "/v1/customer-routes", {"next_hop": "10.0.1.9", "metric": 3})[0]["metric"] == 3
    assert api.must("DELETE", "/v1/customer-routes", next_hop="10.0.1.9")[0]["metric"] == 3
    pa = {"host": "h3", "provider_address": "192.168.0.200", "prefix_length": 24, "virtual_subnet_id": 5001}
    api.must("POST", "/v1/provider-addresses", pa)
    assert api.in_pool("192.168.0.200", "pa") == ("allocated", "h3/5001")
    longer = {"host": "h3", "virtual_subnet_id": 5001, "prefix_length": 25}
    assert api.must("PATCH", "/v1/provider-addresses", longer)[0]["prefix_length"] == 25
    api.must("DELETE", "/v1/provider-addresses", host="h3", virtual_subnet_id=5001)
    way = {"host": "h3", "destination_prefix": "0.0.0.0/0", "next_hop": "192.168.0.254"}
    api.must("POST", "/v1/provider-routes", way)
    assert api.must("PATCH", "/v1/provider-routes", {**way, "metric": 7})[0]["metric"] == 7
    assert api.must("GET", "/v1/provider-routes", host="h3")[0]["metric"] == 7
    assert len(api.must("DELETE", "/v1/provider-routes", host="h3", next_hop="192.168.0.254")) == 1


PA = {"host": "h1", "prefix_length": 24, "virtual_subnet_id": 5002}
RECORD = {"customer_address": "10.0.0.9", "virtual_subnet_id": 5001, "mac_address": "02:00:00:00:00:0a"}
ROUTE = {"routing_domain_id": BLUE, "virtual_subnet_id": 5001, "destination_prefix": "10.0.0.0/24"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "why"),
    [
        ("POST", "/v1/lookup-records", {**RECORD, "provider_address": "192.168.0.9"}, 409, "there already"),
        (
            "POST",
            "/v1/lookup-records",
            {**RECORD, "mac_address": "02:00:00:00:00:0b", "provider_address": "192.168.0.9"},
            409,
            "with the MAC 02:00:00:00:00:0a",
        ),
        ("POST", "/v1/lookup-records", {**RECORD, "provider_address": "239.0.0.1"}, 422, "unicast address"),
        ("POST", "/v1/lookup-records", {**RECORD, "provider_address": "1.1.1.1", "metric": 1}, 400, "metric"),
        (
            "POST",
            "/v1/lookup-records",
            {**RECORD, "virtual_subnet_id": 5999, "provider_address": "1.1.1.1"},
            422,
            "no subnet",
        ),
        ("PATCH", "/v1/lookup-records", {"context": "x"}, 400, "not said which"),
        ("PATCH", "/v1/lookup-records", {"customer_address": "10.0.0.9"}, 400, "nothing to set"),
        (
            "PATCH",
            "/v1/lookup-records",
            {"customer_address": "1.2.3.4", "context": "x"},
            404,
            "there is none",
        ),
        ("PATCH", "/v1/lookup-records", {"customer_address": "10.0.0.9", "rule": "Magic"}, 400, "rule"),
        ("POST", "/v1/customer-routes", {**ROUTE, "next_hop": "0.0.0.0"}, 409, "there already"),
        ("POST", "/v1/customer-routes", {**ROUTE, "next_hop": "::"}, 422, "address family"),
        (
            "POST",
            "/v1/customer-routes",
            {**ROUTE, "virtual_subnet_id": 6001, "next_hop": "10.0.0.7"},
            409,
            "belongs to the routing domain",
        ),
        (
            "POST",
            "/v1/provider-addresses",
            {**PA, "host": "h9", "provider_address": "1.1.1.1"},
            422,
            "no host",
        ),
        ("POST", "/v1/provider-addresses", {**PA, "provider_address": "224.0.0.1"}, 422, "unicast"),
        (
            "POST",
            "/v1/provider-addresses",
            {**PA, "host": "h2", "provider_address": "192.168.0.1"},
            409,
            "PA of host h1",
        ),
        (
            "POST",
            "/v1/provider-addresses",
            {**PA, "virtual_subnet_id": 5001, "provider_address": "192.168.0.9"},
            409,
            "has the PA 192.168.0.1",
        ),
        (
            "DELETE",
            "/v1/provider-addresses?host=h1&virtual_subnet_id=5001",
            None,
            409,
            "has VMs of VSID 5001",
        ),
        ("DELETE", "/v1/provider-addresses?host=h1", None, 400, "not said which"),
        ("DELETE", "/v1/customer-routes?metric=1", None, 400, "not said which"),
    ],
)
def test_policy_orders_are_refused(
    api: Api, method: str, path: str, body: Any, status: int, why: str
) -> None:
    before = contents(api.store)
    response = api.raw(method, path, content=None if body is None else json.dumps(body).encode())
    error = response.json()["error"]
    told = f"{error['what']}: {error['remedy']}"
    assert (response.status_code, why in told) == (status, True), told
    assert contents(api.store) == before


def test_what_a_host_reports_is_shown_and_changes_are_events(api: Api) -> None:
    pa = {"provider_address": "192.168.0.1", "virtual_subnet_id": 5001, "state": "Tentative"}
    revision = api.store.revision
    for state in ("Tentative", "Preferred", "Preferred"):
        report = {"revision": revision, "provider_addresses": [{**pa, "state": state}]}
        api.must("POST", "/v1/hosts/h1/report", report, api.tokens["h1"])
    shown = api.must("GET", "/v1/hosts/h1", token=api.tokens["h1"])
    assert shown["report"] == report
    states = [each["fields"]["state"] for each in api.events(revision, "provider-address")]
    assert states == ["Tentative", "Preferred"]


def test_events_go_on_where_they_ended(api: Api) -> None:
    whole = api.must("GET", "/v1/events", limit=1000)["events"]
    parts: list[Any] = []
    after = 0
    while after < api.store.revision:
        page = api.must("GET", "/v1/events", after=after, limit=3)
        assert page["revision"] > after
        parts += page["events"]
        after = page["revision"]
    assert parts == whole
    assert len(whole) > 3


# ---- the description -----------------------------------------------------------------------------


def test_the_description_is_valid_openapi_and_served(api: Api) -> None:
    response = api.raw("GET", "/schema/openapi.json", "")
    assert response.status_code == 200
    served = response.json()
    validate(served)
    assert served == api.document


def test_every_route_is_described_and_every_described_route_exists(api: Api) -> None:
    served = {
        (method.lower(), re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path))
        for route in api.app.routes
        if route.path.startswith("/v1")
        for method in getattr(route, "methods", [])
        if method not in ("OPTIONS", "HEAD")
    }
    assert served == set(routes(api))
    assert len(served) > 40


def test_every_operation_is_fit_for_use(api: Api) -> None:
    seen = set()
    for method, path in routes(api):
        operation = api.document["paths"][path][method]
        assert operation["operationId"] not in seen
        seen.add(operation["operationId"])
        assert operation["description"], (method, path)
        if (method, path) not in OPEN:
            assert {"401", "403"} <= set(operation["responses"])
            assert "security" not in operation  # that of the whole document
        if method in ("post", "patch"):
            assert "413" in operation["responses"]
    assert api.document["security"] == [{"token": []}]


def test_what_the_description_forbids_is_refused(api: Api) -> None:
    schemas = api.document["components"]["schemas"]
    assert schemas["NewVm"]["additionalProperties"] is False
    assert schemas["NewVm"]["properties"]["name"]["pattern"].startswith("^")
    parameters = api.document["paths"]["/v1/events"]["get"]["parameters"]
    assert {each["name"] for each in parameters} == {"after", "limit"}  # and no store, no hub


def test_the_table_of_the_document_has_every_route(api: Api) -> None:
    text = (ROOT / "docs" / "vmm.md").read_text()
    rows = re.findall(r"^\| `([A-Z]+) (/v1/\S+)` \|", text, re.MULTILINE)
    assert sorted((method.lower(), path) for method, path in rows) == sorted(routes(api))
