"""testbed.host.worker: orders and their acknowledgement."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from support.host import CONFIGURE
from testbed.channel import Channel, pair
from testbed.errors import BadInput
from testbed.host.worker import Worker
from testbed.topology.plan import NicPlan


class Ends:
    """A worker whose orders are carried out when they are given."""

    def __init__(self, control: Channel, channel: Channel) -> None:
        self.worker = Worker(channel)
        self._control = control

    def order(self, op: str, **fields: Any) -> dict[str, Any]:
        """What the worker answers."""
        self._control.send({"op": op, **fields})
        self.worker._order()
        answer = self._control.receive()
        assert answer is not None
        assert answer[0]["op"] == "done"
        return answer[0]


@pytest.fixture
def ends() -> Iterator[Ends]:
    control, worker = pair()
    with control, worker:
        yield Ends(control, worker)


def test_an_order_that_fails_is_answered_and_the_worker_lives(ends: Ends) -> None:
    nic = NicPlan("nowhere0", "02:00:00:00:00:01", 1500)
    assert ends.order("add-nic", **msgspec.to_builtins(nic))["error"].startswith("add-nic: ")
    counters = ends.order("counters")["result"]
    assert [each["kind"] for each in counters] == ["worker"]


def test_a_refused_order_says_so_and_changes_nothing(ends: Ends) -> None:
    assert ends.order("configure", **CONFIGURE)["result"] is None
    pipeline, wnv = ends.worker.datapath.pipeline, ends.worker.wnv
    bad = {**CONFIGURE, "wnv": "below-switch", "extensions": [{"name": "no-such", "settings": {}}]}
    refused = ends.order("configure", **{**bad, "team": {"primary": "nic2"}})
    assert refused["exit_code"] == BadInput.exit_code
    assert "no-such" in refused["error"]
    assert (ends.worker.datapath.pipeline, ends.worker.wnv) == (pipeline, wnv)
    assert ends.worker.state.roles.plan.primary == "nic1"


def test_another_active_nic_needs_no_other_pipeline(ends: Ends) -> None:
    ends.order("configure", **CONFIGURE)
    pipeline = ends.worker.datapath.pipeline
    ends.order("configure", **{**CONFIGURE, "team": {"primary": "nic2"}})
    assert ends.worker.state.roles.plan.primary == "nic2"
    assert ends.worker.datapath.pipeline is pipeline


def test_the_policy_outlives_a_change_of_mode(ends: Ends) -> None:
    ends.order("configure", **CONFIGURE)
    tables = ends.worker.wnv.tables
    ends.order("configure", **{**CONFIGURE, "wnv": "below-switch"})
    assert ends.worker.wnv.tables is tables


def test_an_unknown_extension_is_no_crash(ends: Ends) -> None:
    assert ends.order("extension", name="nothing")["exit_code"] == BadInput.exit_code
    assert ends.order("events")["result"] == {"events": [], "lost": 0}


def test_a_trace_of_an_unknown_port_is_refused(ends: Ends) -> None:
    refused = ends.order("trace", port="nothing", frame=bytes(60))
    assert refused["exit_code"] == BadInput.exit_code
    assert "no port 'nothing'" in refused["error"]
    assert "no NIC" in ends.order("trace", frame=bytes(60))["error"]
