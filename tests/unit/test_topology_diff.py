"""The difference of two Plans."""

from collections.abc import Callable

import msgspec
import pytest

from testbed.topology.diff import Changes, PlanDiff, diff
from testbed.topology.plan import Plan
from testbed.topology.planner import build
from testbed.topology.schema import Topology

NOTHING = Changes()
Edit = Callable[[dict], object]


def topology() -> dict:
    return {
        "name": "lab",
        "networks": [
            {"name": "blue", "subnets": [{"vsid": 5001, "prefixes": ["10.0.0.0/24"]}]},
            {"name": "red", "subnets": [{"vsid": 6001, "prefixes": ["10.0.0.0/24"]}]},
        ],
        "hosts": [{"name": f"host{i}", "nics": [{"name": "nic1"}, {"name": "nic2"}]} for i in (1, 2, 3)],
        "vms": [
            {"name": "blue1", "host": "host1", "vnics": [{"vsid": 5001, "addresses": ["10.0.0.5"]}]},
            {"name": "blue2", "host": "host2", "vnics": [{"vsid": 5001, "addresses": ["10.0.0.6"]}]},
            {"name": "red3", "host": "host3", "vnics": [{"vsid": 6001, "addresses": ["10.0.0.6"]}]},
        ],
        "fabric": {"switches": ["tor1", "tor2"]},
        "links": [{"endpoints": [f"host{i}:nic{n}", f"tor{n}"]} for i in (1, 2, 3) for n in (1, 2)]
        + [{"endpoints": ["tor1", "tor2"]}],
    }


def change(edit: Edit) -> tuple[Plan, Plan, PlanDiff]:
    value = topology()
    before = build(msgspec.convert(value, Topology))
    edit(value)
    after = build(msgspec.convert(value, Topology), before)
    return before, after, diff(before, after)


def changes(found: PlanDiff) -> dict[str, object]:
    """Only what is not empty."""
    return {name: value for name in PlanDiff.__struct_fields__ if (value := getattr(found, name))}


def add_host(value: dict) -> None:
    value["hosts"].append({"name": "host4", "nics": [{"name": "nic1"}]})
    value["vms"].append(
        {"name": "blue4", "host": "host4", "vnics": [{"vsid": 5001, "addresses": ["10.0.0.8"]}]}
    )
    value["links"].append({"endpoints": ["host4:nic1", "tor1"]})


def remove_host(value: dict) -> None:
    del value["hosts"][1], value["vms"][1], value["links"][2:4]


def set_in(*path: str | int, to: object) -> Edit:
    def edit(value: dict) -> None:
        target = value
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = to

    return edit


def names(*values: str) -> Changes:
    return Changes(changed=values)


CABLES = tuple(f"host{i}:nic{n}" for i in (1, 2, 3) for n in (1, 2))
CASES: dict[str, tuple[Edit, dict[str, object]]] = {
    "nothing": (lambda value: None, {}),
    "order of everything": (lambda value: [value[key].reverse() for key in ("vms", "hosts", "links")], {}),
    "host added": (
        add_host,
        {
            "hosts": Changes(added=("host4",)),
            "vms": Changes(added=("blue4",)),
            "cables": Changes(added=("host4:nic1",)),
            "policy": ("host1", "host2"),
        },
    ),
    "host removed": (
        remove_host,
        {
            "hosts": Changes(removed=("host2",)),
            "vms": Changes(removed=("blue2",)),
            "cables": Changes(removed=("host2:nic1", "host2:nic2")),
            "policy": ("host1",),
        },
    ),
    "VM added to a new tenant of the host": (
        lambda value: value["vms"].append({"name": "x", "host": "host1", "vnics": [{"vsid": 6001}]}),
        {"vms": Changes(added=("x",)), "policy": ("host1", "host3")},
    ),
    "VM moved": (
        set_in("vms", 1, "host", to="host3"),
        {"vms": names("blue2"), "policy": ("host1", "host2", "host3")},
    ),
    "CA changed": (
        set_in("vms", 0, "vnics", 0, "addresses", to=["10.0.0.9"]),
        {"vms": names("blue1"), "policy": ("host1", "host2")},
    ),
    "image changed": (set_in("vms", 0, "image", to="debian:12"), {"vms": names("blue1")}),
    "NIC's MAC changed": (
        set_in("hosts", 0, "nics", 0, "mac", to="02:00:00:00:00:01"),
        {"hosts": names("host1"), "vms": names("blue1"), "cables": names("host1:nic1", "host1:nic2")},
    ),
    "team changed": (
        set_in("hosts", 2, "team", to={"primary": "nic2"}),
        {"hosts": names("host3"), "vms": names("red3"), "cables": names("host3:nic1", "host3:nic2")},
    ),
    "policy of a host that is rebuilt anyway": (
        lambda value: (
            set_in("hosts", 0, "team", to={"primary": "nic2"})(value),
            set_in("vms", 1, "vnics", 0, "addresses", to=["10.0.0.9"])(value),
        ),
        {
            "hosts": names("host1"),
            "vms": names("blue1", "blue2"),
            "cables": names("host1:nic1", "host1:nic2"),
            "policy": ("host2",),
        },
    ),
    "PA pool": (set_in("fabric", "pa_pool", to="192.0.2.0/24"), {"policy": ("host1", "host2", "host3")}),
    "PA MTU": (
        set_in("fabric", "pa_mtu", to=1400),
        {
            "hosts": names("host1", "host2", "host3"),
            "vms": names("blue1", "blue2", "red3"),
            "switches": names("tor1", "tor2"),
            "cables": names(*CABLES),
            "trunks": names("tor1--tor2"),
        },
    ),
    "cable to the other switch": (
        set_in("links", 0, "endpoints", 1, to="tor2"),
        {"cables": names("host1:nic1")},
    ),
    "cable's wire": (set_in("links", 0, "wire", to="aggregated"), {"rewired": ("host1:nic1",)}),
    "cable's faults": (set_in("links", 0, "loss", to="1%"), {"rewired": ("host1:nic1",)}),
    "NIC's profile": (
        set_in("hosts", 0, "nics", 1, "profile", to="r2"),
        {"nics": ("host1:nic2",)},
    ),
    "NIC's queues": (
        set_in("hosts", 2, "nics", 0, "queues", to=4),
        {
            "hosts": names("host3"),
            "vms": names("red3"),
            "cables": names("host3:nic1", "host3:nic2"),
        },
    ),
    "trunk's wire": (set_in("links", 6, "wire", to="aggregated"), {"rewired": ("tor1--tor2",)}),
    "wire and switch": (
        set_in("links", 0, to={"endpoints": ["host1:nic1", "tor2"], "wire": "aggregated"}),
        {"cables": names("host1:nic1")},
    ),
    "trunk removed": (lambda value: value["links"].pop(), {"trunks": Changes(removed=("tor1--tor2",))}),
    "switch added": (
        lambda value: (
            value["fabric"]["switches"].append("t3"),
            value["links"].append({"endpoints": ["tor2", "t3"]}),
        ),
        {"switches": Changes(added=("t3",)), "trunks": Changes(added=("t3--tor2",))},
    ),
    "gateway": (
        set_in("networks", 1, "subnets", 0, "gateways", to=["10.0.0.254"]),
        {"vms": names("red3"), "policy": ("host3",)},
    ),
}


@pytest.mark.parametrize(("edit", "expected"), CASES.values(), ids=CASES)
def test_diff(edit, expected):
    _, _, found = change(edit)
    assert changes(found) == expected
    assert bool(found) is bool(expected)


def test_switch_with_another_kernel_name_is_rebuilt_with_its_links():
    before, after, _ = change(lambda value: None)
    renamed = msgspec.structs.replace(before.fabric.switches[0], interface="other")
    fabric = msgspec.structs.replace(before.fabric, switches=(renamed, before.fabric.switches[1]))
    found = diff(msgspec.structs.replace(before, fabric=fabric), after)
    assert found.switches == names("tor1")
    assert found.cables == names("host1:nic1", "host2:nic1", "host3:nic1")
    assert found.trunks == names("tor1--tor2")


def test_there_and_back_is_nothing():
    before, after, _ = change(add_host)
    back = build(msgspec.convert(topology(), Topology), after)
    assert not diff(before, back)
