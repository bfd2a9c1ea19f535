"""testbed.lab.rates and testbed.lab.activity: counters become rates, whatever happens to who counts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from support.samples import PLAN, RECORD, counter, everything, reading, sample, worker
from testbed.lab.activity import Row, activity
from testbed.lab.rates import Rate, between
from testbed.lab.sample import Member, Sample
from testbed.lab.watch import device_counts


def port(packets: int, name: str = "blue1:eth0", host: str = "host1") -> Any:
    return counter("port", name, host, vsid=5001, from_vm_packets=packets, from_vm_bytes=100 * packets)


def rates(found: list[Rate], kind: str) -> dict[str, dict[str, float]]:
    return {each.object: each.per_second for each in found if each.kind == kind}


def test_a_rate_is_a_difference_by_the_readings_own_time() -> None:
    before = {"host1": reading(10.0, port(5)), "host2": reading(10.5, port(0, "blue2:eth0", "host2"))}
    now = {"host1": reading(12.0, port(25)), "host2": reading(11.0, port(2, "blue2:eth0", "host2"))}
    found = rates(between(before, now), "port")
    assert found == {
        "blue1:eth0": {"from_vm_packets": 10.0, "from_vm_bytes": 1000.0},
        "blue2:eth0": {"from_vm_packets": 4.0, "from_vm_bytes": 400.0},
    }


def test_a_host_that_was_not_read_before_has_no_rates() -> None:
    assert rates(between({}, {"host1": reading(2.0, port(25))}), "port") == {"blue1:eth0": {}}
    same = {"host1": reading(2.0, port(25))}
    assert rates(between(same, same), "port") == {"blue1:eth0": {}}


def test_what_came_up_on_a_known_host_began_at_zero() -> None:
    before = {"host1": reading(1.0, worker(1.0))}
    now = {"host1": reading(3.0, worker(1.5), port(8))}
    assert rates(between(before, now), "port")["blue1:eth0"]["from_vm_packets"] == 4.0


def test_a_counter_that_went_down_began_anew() -> None:
    before = {"host1": reading(1.0, worker(1.0), port(100))}
    now = {"host1": reading(2.0, worker(1.5), port(7))}
    found = between(before, now)
    assert rates(found, "port")["blue1:eth0"] == {"from_vm_packets": 7.0, "from_vm_bytes": 700.0}
    assert rates(found, "worker")["worker-0"] == {"cpu_seconds": 0.5}


def test_a_restarted_host_counts_from_zero_even_where_it_has_counted_more() -> None:
    before = {"host1": reading(1.0, worker(5.0), port(10))}
    now = {"host1": reading(2.0, worker(0.5), port(12))}
    assert rates(between(before, now), "port")["blue1:eth0"]["from_vm_packets"] == 12.0


def test_drops_are_told_apart_by_stage_vsid_and_reason() -> None:
    def drop(reason: str, packets: int) -> Any:
        return counter("drop", "blue1:eth0", stage="wnv", vsid=5001, reason=reason, packets=packets)

    before = {"host1": reading(1.0, drop("not-ip", 5), drop("not-nvgre", 1))}
    now = {"host1": reading(2.0, drop("not-ip", 6), drop("not-nvgre", 3), drop("oversize", 3))}
    found = {each.parts["reason"]: each.per_second["packets"] for each in between(before, now)}
    assert found == {"not-ip": 1.0, "not-nvgre": 2.0, "oversize": 3.0}


def test_what_goes_up_and_down_has_no_rate() -> None:
    fields = {"flows_nic1": 4, "flowlets_moved": 9, "flows_rebalanced": 2}
    now = {"host1": reading(2.0, counter("team", "team", **fields), counter("extension", "acl", hits=3))}
    found = between({"host1": reading(1.0)}, now)
    assert rates(found, "team")["team"] == {"flowlets_moved": 9.0, "flows_rebalanced": 2.0}
    assert rates(found, "extension")["acl"] == {}


# ---- rows -----------------------------------------------------------------------------------


def named(rows: tuple[Row, ...]) -> dict[str, Row]:
    return {row.object: row for row in rows}


def test_rows_join_counters_plan_and_state() -> None:
    def drop(packets: int) -> Any:
        return counter("drop", "blue1:eth0", stage="wnv", vsid=5001, reason="not-ip", packets=packets)

    def cable(frames: int) -> Any:
        fields = {"from_host_packets": frames, "from_host_bytes": 10 * frames, "to_host_drop_packets": frames}
        return counter("cable", "host1:nic1", **fields)

    def fault(what: str, frames: int) -> Any:
        return counter("cable-fault", "host1:nic1", way="to-host", fault=what, packets=frames)

    before = sample(
        0.0, {"host1": reading(0.0, worker(0), port(0), drop(0)), "fabric": reading(0.0, cable(0))}
    )
    now = sample(
        2.0,
        {
            "host1": reading(2.0, worker(1.0), port(20), drop(4)),
            "fabric": reading(2.0, cable(6), fault("lost", 2), fault("corrupted", 9)),
        },
        down={"host2": "it does not run"},
        vms={"blue1": True, "red1": False},
        members=(Member("host1", "nic1", "Failed", "no-carrier", 3, None),),
        carriers={"host1:nic1": True},
    )
    found = activity(before, now)
    vms = named(found.vms)
    assert [*vms] == [vm.name for vm in PLAN.vms]
    assert (vms["blue1"].out_bits, vms["blue1"].out_packets) == (8000.0, 10.0)
    assert (vms["blue1"].drops, vms["blue1"].reasons) == (2.0, {"not-ip": 2.0})
    assert (vms["red1"].state, vms["red1"].out_bits) == ("down", None)
    cables = named(found.cables)
    assert (cables["host1:nic1"].state, cables["host2:nic1"].state) == ("up", "down")
    assert cables["host1:nic1"].out_bits == 240.0
    assert cables["host1:nic1"].reasons == {"refused": 3.0, "lost": 1.0}
    assert [(row.state, row.note) for row in found.team] == [("Failed", "no-carrier, 3 flows")]
    assert [(row.object, row.drops, row.total) for row in found.drops] == [("blue1:eth0", 2.0, 4)]
    hosts = named(found.hosts)
    assert (hosts["host1"].state, hosts["host1"].note) == ("running", "CPU 50%")
    assert hosts["host2"].state == "down"
    assert found.problems[0] == "host2: it does not run"
    assert "red1" in found.problems[1]


def test_queues_and_subnets() -> None:
    before = msgspec.structs.replace(everything(), readings={"host1": reading(0.0), "fabric": reading(0.0)})
    found = activity(before, everything())
    assert named(found.queues)["nic9 1"] == Row("nic9 1", "host1", "NIC", "100%", in_bits=8.0, in_packets=1.0)
    assert named(found.queues)["red1:eth0 0"].note == "47%"
    assert named(found.queues)["red1:eth0 0"].in_bits is None
    assert (named(found.vsids)["5001"].drops, named(found.vsids)["0"].drops) == (1.0, 1.0)


@pytest.mark.parametrize("state", ["ended", "dead"])
def test_a_lab_that_is_gone_is_told(state: Any) -> None:
    found = activity(everything(), Sample("team", 2.0, state))
    assert (found.state, found.vms) == (state, ())
    assert "team" in found.problems[0]


def test_another_lab_of_the_same_name_has_no_past() -> None:
    readings = {name: msgspec.structs.replace(each, time=3.0) for name, each in everything().readings.items()}
    later = msgspec.structs.replace(everything(), time=3.0, readings=readings)
    other = msgspec.structs.replace(later, record=msgspec.structs.replace(RECORD, id="other"))
    assert (activity(everything(), later).seconds, activity(everything(), other).seconds) == (2.0, 0.0)
    assert {row.object for row in activity(everything(), later).hosts if row.drops is not None} == {"host1"}
    assert all(row.drops is None for row in activity(everything(), other).hosts)


def test_interfaces_are_read_as_switch_ports() -> None:
    text = (
        "Inter-|   Receive  |  Transmit\n"
        " face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop\n"
        "tor1-p1: 1546 19 0 3 0 0 0 0 1536 30 0 4 0 0 0 0\n"
    )
    assert device_counts(text) == {
        "tor1-p1": {
            "from_host_packets": 19,
            "from_host_bytes": 1546,
            "from_host_drop_packets": 3,
            "to_host_packets": 30,
            "to_host_bytes": 1536,
            "to_host_drop_packets": 4,
        }
    }
