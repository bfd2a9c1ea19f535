"""testbed.lab.policy: which hosts a change goes to, and that it holds on all of them or on none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from testbed.errors import BadInput, LabError
from testbed.lab import policy
from testbed.lab.lab import Lab as RealLab

RDID = "{11111111-1111-1111-1111-111111111111}"
RECORD = {"customer_address": "10.0.0.9", "virtual_subnet_id": 5001}
CHANGE = {"kind": "lookup-records", "old": None, "new": RECORD}


class Hosts:
    """A lab of hosts that know these VSIDs. ``fails``: host -> what it raises on a change, by ``check``."""

    def __init__(self, **vsids: list[int]) -> None:
        self.record = SimpleNamespace(name="lab")
        self.plan = SimpleNamespace(hosts=[SimpleNamespace(name=name) for name in vsids], vms=[], vmm=None)
        self.asked: list[tuple[str, str, bool]] = []
        self.fails: dict[tuple[str, bool], Exception] = {}
        self._vsids = vsids

    check_host = RealLab.check_host

    def ask(self, host: str, op: str, *, verb: str, check: bool = False, **_: Any) -> dict[str, Any]:
        """A "policy" request."""
        assert op == "policy"
        if verb == "networks":
            return {"vsids": self._vsids[host], "rdids": [RDID] if 5001 in self._vsids[host] else []}
        self.asked.append((host, verb, check))
        if verb != "undo" and (error := self.fails.get((host, check))):
            raise error
        return {"changes": [CHANGE]}

    def change(
        self, fields: dict[str, Any] = RECORD, kind: str = "lookup-records", host: str | None = None
    ) -> Any:
        """Add an object."""
        return policy.change(self, kind, "add", fields, host)  # type: ignore[arg-type]


def test_a_change_goes_to_the_hosts_of_the_network() -> None:
    hosts = Hosts(host1=[5001], host2=[6001], host3=[5001, 6001])
    assert [each["host"] for each in hosts.change()] == ["host1", "host3"]
    checks = [(name, "add", True) for name in ("host1", "host3")]
    assert hosts.asked == [*checks, ("host1", "add", False), ("host3", "add", False)]
    for rdid in (RDID, RDID.strip("{}").upper()):
        done = hosts.change({"routing_domain_id": rdid, "virtual_subnet_id": 9999}, "customer-routes")
        assert [each["host"] for each in done] == ["host1", "host3"]
    assert [each["host"] for each in hosts.change(host="host2")] == ["host2"]


@pytest.mark.parametrize(
    ("fields", "kind", "reason"),
    [
        ({**RECORD, "virtual_subnet_id": 7001}, "lookup-records", "no host has policy of VSID 7001"),
        ({"customer_address": "10.0.0.9"}, "lookup-records", "--virtual-subnet-id, or --host"),
        ({"metric": 3}, "customer-routes", "--routing-domain-id or"),
        (RECORD, "provider-addresses", "--host"),
    ],
)
def test_a_change_for_nobody_is_refused(fields: dict[str, Any], kind: str, reason: str) -> None:
    hosts = Hosts(host1=[5001])
    with pytest.raises(BadInput, match=reason):
        hosts.change(fields, kind)
    assert hosts.asked == []


def test_nothing_is_changed_when_one_host_refuses() -> None:
    hosts = Hosts(host1=[5001], host2=[5001])
    hosts.fails["host2", True] = BadInput("it is there already")
    with pytest.raises(BadInput, match=r"^host2: it is there already$"):
        hosts.change()
    assert all(check for _, _, check in hosts.asked)


@pytest.mark.parametrize("error", [LabError("it has died"), BadInput("somebody was faster")])
def test_what_fails_midway_is_undone(error: Exception) -> None:
    hosts = Hosts(host1=[5001], host2=[5001], host3=[5001], host4=[5001])
    hosts.fails["host3", False] = error
    with pytest.raises(LabError, match=f"{error}; the change was undone"):
        hosts.change()
    assert hosts.asked[4:] == [
        ("host1", "add", False),
        ("host2", "add", False),
        ("host3", "add", False),
        ("host2", "undo", False),
        ("host1", "undo", False),
    ]
