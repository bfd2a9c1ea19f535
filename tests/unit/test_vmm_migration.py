"""Moving a VM in two steps: what a prepared host is told and has, and what is left when it is called off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.vmm import BLUE, RED, Api, contents
from testbed.vmm.store.database import Store


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """VM a of blue (5001) is on h1 with b; h2 and h3 have none."""
    made = Api(tmp_path)
    made.world()
    made.vm("a", "h1", addresses=["10.0.0.9"])
    made.vm("b", "h1", addresses=["10.0.0.8"])
    yield made
    made.close()


def migrate(api: Api, phase: str, host: str | None = None, vm: str = "a") -> dict[str, Any]:
    order = {"phase": phase} | ({"host": host} if host else {})
    view: dict[str, Any] = api.must("POST", f"/v1/vms/{vm}/migrate", order)
    return view


def told(api: Api, host: str) -> set[int]:
    """The VSIDs of a host's policy."""
    policy = api.must("GET", f"/v1/hosts/{host}/policy")
    return {each["virtual_subnet_id"] for each in policy["lookup_records"]}


def pas(api: Api, host: str) -> list[int]:
    return [each["virtual_subnet_id"] for each in api.must("GET", "/v1/provider-addresses", host=host)]


def nothing_of(api: Api, host: str) -> bool:
    return (told(api, host), pas(api, host), api.must("GET", f"/v1/hosts/{host}")["networks"]) == (
        set(),
        [],
        [],
    )


def test_a_prepared_host_has_policy_and_pas_and_the_vm_is_where_it_was(api: Api) -> None:
    record = api.record("10.0.0.9")
    view = migrate(api, "prepare", "h2")
    assert (view["host"], view["prepared"], view["ports"][0]["host"]) == ("h1", "h2", "h1")
    assert api.must("GET", "/v1/vms")[0] == {**view, "revision": None}  # which only an answer to a change has
    assert (told(api, "h2"), pas(api, "h2")) == ({5001, 5002}, [5001])
    assert api.must("GET", "/v1/hosts/h2")["networks"] == [BLUE]
    assert api.record("10.0.0.9") == record
    assert api.events(kind="vm")[-1]["fields"] == {"change": "prepared", "source": "h1"}


def test_the_move_itself_is_changes_alone_for_a_prepared_host(api: Api) -> None:
    api.watch("h2")
    migrate(api, "prepare", "h2")
    assert [line["type"] for line in api.watch("h2")] == ["reset"]
    view = migrate(api, "commit", "h2")
    assert (view["host"], view["prepared"]) == ("h2", None)
    (line,) = api.watch("h2")
    assert [
        (each["old"]["provider_address"], each["new"]["provider_address"]) for each in line["changes"]
    ] == [(api.pa("h1", 5001), api.pa("h2", 5001))]
    assert [each["fields"]["reason"] for each in api.events()][-1] == "Moved"


def test_a_move_without_preparation_is_a_reset(api: Api) -> None:
    api.watch("h2")
    migrate(api, "commit", "h2")
    assert [line["type"] for line in api.watch("h2")] == ["reset"]


@pytest.mark.parametrize("host", [None, "h2"])
def test_what_is_called_off_leaves_nothing(api: Api, host: str | None) -> None:
    api.watch("h2")
    migrate(api, "prepare", "h2")
    assert migrate(api, "cancel", host)["prepared"] is None
    assert nothing_of(api, "h2")
    assert [line["policy"]["lookup_records"] for line in api.watch("h2")] == [[]]
    assert api.in_pool("192.168.0.2", "pa") == ("released", "h2/5001")
    before = contents(api.store)
    migrate(api, "cancel", host)
    assert contents(api.store) == before


def test_a_late_cancel_ends_no_other_preparation(api: Api) -> None:
    migrate(api, "prepare", "h2")
    migrate(api, "prepare", "h3")
    assert migrate(api, "cancel", "h2")["prepared"] == "h3"


def test_another_target_ends_the_first_preparation(api: Api) -> None:
    migrate(api, "prepare", "h2")
    migrate(api, "prepare", "h3")
    assert nothing_of(api, "h2")
    assert pas(api, "h3") == [5001]
    migrate(api, "commit", "h2")
    assert nothing_of(api, "h3")
    assert pas(api, "h2") == [5001]


def test_the_same_again_changes_nothing(api: Api) -> None:
    migrate(api, "prepare", "h2")
    before = contents(api.store)
    migrate(api, "prepare", "h2")
    assert contents(api.store) == before
    migrate(api, "commit", "h2")
    before = contents(api.store)
    migrate(api, "commit", "h2")
    assert contents(api.store) == before


def test_a_commit_to_where_it_is_calls_the_preparation_off(api: Api) -> None:
    migrate(api, "prepare", "h2")
    assert migrate(api, "commit", "h1")["host"] == "h1"
    assert nothing_of(api, "h2")


def test_what_other_vms_need_is_kept(api: Api) -> None:
    migrate(api, "prepare", "h2")
    migrate(api, "prepare", "h2", "b")
    migrate(api, "cancel", vm="a")
    assert pas(api, "h2") == [5001]
    migrate(api, "cancel", vm="b")
    assert nothing_of(api, "h2")


def test_the_source_keeps_nothing_after_the_last_vm(api: Api) -> None:
    migrate(api, "prepare", "h2")
    migrate(api, "commit", "h2")
    assert pas(api, "h1") == [5001]  # b is there
    migrate(api, "commit", "h2", "b")
    assert nothing_of(api, "h1")


def test_adapters_of_many_networks_are_prepared(api: Api) -> None:
    order = {"name": "m", "host": "h1", "adapters": [{"vsid": 5002}, {"vsid": 6001}, {"vsid": 0}]}
    api.must("POST", "/v1/vms", order)
    migrate(api, "prepare", "h3", "m")
    assert sorted(pas(api, "h3")) == [5002, 6001]
    assert api.must("GET", "/v1/hosts/h3")["networks"] == sorted([BLUE, RED])
    api.must("DELETE", "/v1/vms/m")
    assert nothing_of(api, "h3")


def test_the_pa_of_a_prepared_host_is_not_taken_from_it(api: Api) -> None:
    migrate(api, "prepare", "h2")
    answer = api.call("DELETE", "/v1/provider-addresses", host="h2", virtual_subnet_id=5001)
    assert (answer.status, "VSID 5001" in answer.error) == (409, True)


def test_a_preparation_outlives_the_vmm(api: Api, tmp_path: Path) -> None:
    migrate(api, "prepare", "h2")
    before = contents(api.store)
    api.store.close()
    again = Store(tmp_path / "vmm.sqlite")
    assert contents(again) == before
    assert before["preparations"]
    again.close()


@pytest.mark.parametrize(
    ("order", "status", "why"),
    [
        ({"phase": "prepare"}, 400, "give host"),
        ({}, 400, "give host"),
        ({"phase": "prepare", "host": "h1"}, 409, "on host h1 already"),
        ({"phase": "prepare", "host": "h9"}, 422, "no host 'h9'"),
        ({"phase": "later", "host": "h2"}, 400, "phase"),
    ],
)
def test_refused(api: Api, order: dict[str, Any], status: int, why: str) -> None:
    before = contents(api.store)
    answer = api.call("POST", "/v1/vms/a/migrate", order)
    assert (answer.status, why in answer.error) == (status, True), answer.body
    assert contents(api.store) == before


def test_a_prepared_host_is_not_removed(api: Api) -> None:
    migrate(api, "prepare", "h2")
    answer = api.call("DELETE", "/v1/hosts/h2")
    assert (answer.status, "prepared for VM a" in answer.error) == (409, True)
    migrate(api, "cancel")
    api.must("DELETE", "/v1/hosts/h2")


def test_an_exhausted_pa_pool_leaves_no_half_preparation(api: Api) -> None:
    for number in range(2, 255):
        api.store.connection.execute(
            "INSERT INTO pool_addresses VALUES ('pa', ?, 'reserved', 'x', 1, ?, ?)",
            [
                f"192.168.0.{number}",
                (0xC0A80000 + number).to_bytes(16, "big"),
                b'{"pool":"pa","address":"192.168.0.%d","state":"reserved","owner":"x","revision":1}'
                % number,
            ],
        )
    before = contents(api.store)
    assert api.call("POST", "/v1/vms/a/migrate", {"host": "h2", "phase": "prepare"}).status == 409
    assert contents(api.store) == before
