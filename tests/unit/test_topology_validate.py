"""Checks across values: each bad topology is one edit of a good one, with the whole complaint."""

from pathlib import Path

import pytest

from support.bad_topologies import CASES, GOOD, R1
from testbed.errors import BadInput
from testbed.topology import plan_from_file


def complaint(tmp_path: Path, text: str) -> str:
    path = tmp_path / "F"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        plan_from_file(path, {})
    return str(caught.value).replace(str(path), "F")


def test_the_good_one_is_good(tmp_path):
    path = tmp_path / "F"
    path.write_text(GOOD)
    assert plan_from_file(path, {}).name == "lab"


@pytest.mark.parametrize(("old", "new", "expected"), CASES.values(), ids=CASES)
def test_bad_topology(tmp_path, old, new, expected):
    assert GOOD.count(old) == 1
    message = complaint(tmp_path, GOOD.replace(old, new))
    assert expected in message
    lines = message.split("\n")
    assert all(line.startswith("F:") and line.isprintable() and "; " in line for line in lines)


@pytest.mark.parametrize(
    "name", ["host bits", "unknown host", "MAC twice", "loop", "small pool", "address twice"]
)
def test_one_fault_gives_one_line(tmp_path, name):
    old, new, _ = CASES[name]
    assert "\n" not in complaint(tmp_path, GOOD.replace(old, new))


def test_all_problems_in_the_order_of_the_file(tmp_path):
    text = GOOD
    for name in ("loop", "host bits", "unknown team member", "unknown host", "small pool"):
        old, new, _ = CASES[name]
        text = text.replace(old, new, 1)
    lines = complaint(tmp_path, text).split("\n")
    assert [line.split(":")[1] for line in lines[:2]] == ["7", "13"]
    numbers = [int(line.split(":")[1]) for line in lines]
    assert numbers == sorted(numbers)
    for key in ("prefixes[0]", "team.primary", "vms[1].host", "fabric.pa_pool", "links[5]"):
        assert sum(key in line.split(": ")[1] for line in lines) == 1, key


def test_very_many_problems_are_counted(tmp_path):
    vms = "".join(f"  - {{name: x{i}, host: nowhere, vnics: [{{vsid: 6001}}]}}\n" for i in range(60))
    lines = complaint(tmp_path, GOOD.replace("vms:\n", "vms:\n" + vms)).split("\n")
    assert len(lines) == 51
    assert lines[-1] == "F: and 10 more problems"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pa_mtu", "pa_mtu"),
        (R1, R1.replace(", addresses: [10.0.0.5]", "")),  # an adapter may learn its address later
        ("tor3]", "tor3], pa_mtu: 1322"),
        ("tor3]", "tor3], pa_pool: 192.0.2.0/29"),
        ("10.0.1.0/24", "10.0.1.0/24, 'fd00:0:0:1::/64'"),
        ("[10.0.1.0/24]", "[10.0.1.0/24], gateways: [10.0.1.254]"),
        (
            "{name: nic2}]",
            "{name: nic2}], team: {primary: nic2, standby: nic1, algorithm: HyperVPort, flowlet-gap: 1ms}",
        ),
        ("name: red1", "name: red1, image: 'registry.example:5000/a/b:1', command: [sleep, '1']"),
    ],
)
def test_good_variants(tmp_path, old, new):
    path = tmp_path / "F"
    path.write_text(GOOD.replace(old, new))
    assert plan_from_file(path, {})
