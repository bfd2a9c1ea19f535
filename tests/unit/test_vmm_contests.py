"""Two VMs use one learned address: who is asked, who keeps it, and what befalls a claim that waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.vmm import Answer, Api, contents
from testbed.vmm import contests

CA = "10.0.0.50"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """10.0.0.50 is learned of VM a on h1, and h1 watches; b on h2 and c on h3 are to claim it."""
    made = Api(tmp_path)
    made.world()
    for vm, host in (("a", "h1"), ("b", "h2"), ("c", "h3")):
        made.vm(vm, host)
    made.learn("h1", "a", CA)
    made.watch("h1")
    yield made
    made.close()


def claim(api: Api, host: str = "h2", vm: str = "b", **more: Any) -> str:
    """The result, or what was refused."""
    answer = api.learn(host, vm, CA, **more)
    return answer.body["result"] if answer.status == 200 else f"{answer.status} {answer.error}"


def probed(api: Api, answered: bool, host: str = "h1", vm: str = "a", ca: str = CA) -> Answer:
    body = {"vsid": 5001, "mac": api.port(vm)["mac"], "ca": ca, "answered": answered}
    return api.call("POST", f"/v1/hosts/{host}/probed", body, api.tokens[host])


def owner(api: Api) -> str | None:
    record = api.record(CA)
    return record and record["vm_name"]


def reasons(api: Api, after: int) -> list[tuple[str, str]]:
    return [(each["fields"]["reason"], each["fields"]["ca"]) for each in api.events(after)]


def test_the_holders_host_is_asked_once(api: Api) -> None:
    before = contents(api.store)
    assert claim(api) == "contested"
    probe = {"type": "probe", "vsid": 5001, "mac": api.port("a")["mac"], "ca": CA}
    assert api.watch("h1") == [probe]
    assert claim(api) == "contested"
    assert api.watch("h1") == []
    assert contents(api.store) == before


def test_a_silent_holder_loses_the_address_in_one_revision(api: Api) -> None:
    claim(api)
    revision = api.store.revision
    assert probed(api, answered=False).status == 204
    assert owner(api) == "b"
    assert api.in_pool(CA) == ("learned", "b:eth0")
    assert reasons(api, revision) == [("Deleted", CA), ("Added", CA)]
    assert api.store.revision == revision + 1
    assert claim(api) == "known"
    lines = [line for line in api.watch("h1") if line["type"] == "changes"]
    assert len(lines) == 1  # no host ever has both, nor none


def test_a_holder_that_answers_keeps_it(api: Api) -> None:
    claim(api)
    probed(api, answered=True)
    assert (owner(api), "409" in claim(api), "answers for it" in claim(api)) == ("a", True, True)
    assert "409" in claim(api, "h3", "c")  # the answer holds for every claimant
    assert api.watch("h1")[-1]["type"] == "probe"  # that of the first claim
    assert api.watch("h1") == []
    events = api.events(kind="address-conflict")
    assert [(each["host"], each["fields"]["holder"]["type"]) for each in events] == [
        ("h2", "Dynamic"),
        ("h3", "Dynamic"),
    ]
    error = api.learn("h2", "b", CA).body["error"]
    assert error["holder"]["mac_address"] == api.port("a")["mac"]


def test_an_answer_does_not_hold_for_ever(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contests, "REMEMBERED", 0.0)
    claim(api)
    probed(api, answered=True)
    api.watch("h1")
    assert claim(api) == "contested"
    assert [line["type"] for line in api.watch("h1")] == ["probe"]


def test_a_host_that_does_not_answer_in_time_loses(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contests, "DEADLINE", 0.2)
    assert claim(api) == "contested"
    api.wait(0.3)
    assert (owner(api), claim(api)) == ("b", "known")
    assert probed(api, answered=True).status == 204  # late
    assert owner(api) == "b"


def test_a_host_that_does_not_watch_can_not_vouch(api: Api) -> None:
    api.unwatch("h1")
    revision = api.store.revision
    assert claim(api) == "added"
    assert reasons(api, revision) == [("Deleted", CA), ("Added", CA)]


def test_the_first_claimant_keeps_its_turn(api: Api) -> None:
    assert claim(api) == "contested"
    assert claim(api, "h3", "c") == "contested"
    probed(api, answered=False)
    assert owner(api) == "b"
    api.watch("h2")
    assert claim(api, "h3", "c") == "contested"  # its own turn, against the new holder
    assert [line["type"] for line in api.watch("h2")] == ["probe"]
    probed(api, answered=False, host="h2", vm="b")
    assert owner(api) == "c"


def test_only_the_holders_host_has_a_say(api: Api) -> None:
    claim(api)
    assert probed(api, answered=False, host="h2", vm="a").status == 403
    assert probed(api, answered=False, host="h2", vm="b").status == 204  # its own VM, but not the holder
    assert probed(api, answered=False, ca="10.0.0.51").status == 204
    assert probed(api, answered=False, ca="nonsense").status == 400
    assert (owner(api), claim(api)) == ("a", "contested")


def test_what_the_claimant_reported_last_is_decided(api: Api) -> None:
    api.learn("h2", "b", "10.0.0.60")
    claim(api)
    claim(api, replaces="10.0.0.60", how="dhcp")
    probed(api, answered=False)
    assert api.record("10.0.0.60") is None
    assert api.events()[-1]["fields"]["how"] == "dhcp"


# ---- the world changes while a claim waits -------------------------------------------------------


def test_a_holder_that_moves_is_asked_where_it_is(api: Api) -> None:
    claim(api)
    api.must("POST", "/v1/vms/a/migrate", {"host": "h3"})
    api.watch("h3")
    assert probed(api, answered=False).status == 403  # it has left h1
    assert claim(api) == "contested"
    assert [line["type"] for line in api.watch("h3")] == ["probe"]
    probed(api, answered=True, host="h3")
    assert owner(api) == "a"


def test_silence_of_where_it_was_is_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contests, "DEADLINE", 0.2)
    claim(api)
    api.must("POST", "/v1/vms/a/migrate", {"host": "h3"})
    api.wait(0.3)
    assert owner(api) == "a"


def test_a_claimant_that_is_gone_gets_nothing(api: Api) -> None:
    claim(api)
    api.must("DELETE", "/v1/vms/b")
    assert probed(api, answered=False).status == 204
    assert owner(api) == "a"


def test_a_holder_that_is_gone_leaves_it_free(api: Api) -> None:
    claim(api)
    api.must("DELETE", "/v1/vms/a")
    assert claim(api) == "added"


def test_policy_that_comes_meanwhile_wins(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contests, "DEADLINE", 0.2)
    claim(api)
    api.must("PATCH", "/v1/ports/a:eth0", {"addresses": [CA]})
    api.wait(0.3)
    assert owner(api) == "a"
    assert "Static record" in claim(api)


def test_one_vm_has_few_contests_at_a_time(api: Api) -> None:
    api.must("PATCH", "/v1/ports/a:eth0", {"dynamic_address_limit": 100})
    for number in range(100, 120):
        api.learn("h1", "a", f"10.0.0.{number}")
    api.watch("h1")
    for number in range(100, 120):
        assert api.learn("h2", "b", f"10.0.0.{number}").body["result"] == "contested"
    assert len(api.watch("h1")) == contests.MOST
